"""A plain Celery application on the same Redis: neither disturbs the other."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from celery import Celery, chord
from waiting import eventually
from workers import Workers, whole_yard

from modelyard.app import make_app
from modelyard.names import ROUTE_TASK
from modelyard.testing import Reply

PLAIN = [
    *(sys.executable, "-m", "celery", "-A", "plain_app", "worker", "-n", "plain@%h"),
    *("-P", "threads", "-c", "4", "-E", "--loglevel", "INFO"),
]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with whole_yard(tmp_path_factory.mktemp("beside")) as yard:
        yard.start("plain", PLAIN, PLAIN_URL=yard.broker_url)
        yield yard


@pytest.fixture
def plain(yard: Workers) -> Iterator[Celery]:
    app = Celery("others", broker=yard.broker_url, backend=yard.broker_url, set_as_current=False)
    with app:
        yield app


def test_a_chord_of_others_runs_beside_the_yard(yard: Workers, plain: Celery) -> None:
    with yard.client() as client:
        handles = client.submit_many([f"summarize {number}" for number in range(50)])
        header = [
            plain.signature("plain.add", (number, number), queue="plain") for number in range(20)
        ]
        result = chord(header, app=plain)(plain.signature("plain.total", queue="plain"))

        assert result.get(timeout=30) == 2 * sum(range(20))
        assert {handle.result(30).model for handle in handles} == {"small"}


def test_a_plain_program_submits_and_waits(yard: Workers, plain: Celery) -> None:
    result = plain.send_task(ROUTE_TASK, [{"text": "summarize this"}], queue="requests")
    assert result.get(timeout=30)["model"] == "small"


def test_remote_control_reaches_all_of_them(yard: Workers, plain: Celery) -> None:
    def nodes(app: Celery) -> set[str]:
        return {node.split("@")[0] for each in app.control.ping(timeout=1.0) for node in each}

    def all_answer(app: Celery) -> bool:
        return nodes(app) == {"router", "small", "large", "plain"}

    with make_app("operator", yard.broker_url, current=False) as ours:
        for app in (plain, ours):
            eventually(partial(all_answer, app))


def test_events_of_all_of_them_are_heard_by_one_listener(yard: Workers, plain: Celery) -> None:
    heard: set[str] = set()

    def hear(event: dict[str, Any]) -> None:
        heard.add(event["hostname"].split("@")[0])

    def listen() -> None:
        with contextlib.suppress(TimeoutError):
            receiver.capture(limit=None, timeout=30)

    def all_heard() -> bool:
        plain.send_task("plain.add", (1, 2), queue="plain")
        plain.send_task(ROUTE_TASK, [{"text": "summarize this"}], queue="requests")
        return heard >= {"plain", "router", "small"}

    with plain.connection_for_read() as connection:
        receiver = plain.events.Receiver(connection, handlers={"task-succeeded": hear})
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        eventually(all_heard, interval_s=0.3, message="all are heard of")
        receiver.should_stop = True
        plain.send_task("plain.add", (1, 2), queue="plain")  # something to hear
        listener.join(20)
        assert not listener.is_alive()


def test_of_a_failover_the_first_model_is_heard_before_the_second(yard: Workers) -> None:
    # Flower merges what it hears of one id in the order of arrival.
    heard: list[tuple[str, str, str]] = []
    yard.fake.always("provider-small", Reply(status=401))

    def hear(event: dict[str, Any]) -> None:
        heard.append((event["uuid"], event["hostname"].split("@")[0], event["type"]))

    def listen() -> None:
        with contextlib.suppress(TimeoutError):
            receiver.capture(limit=None, timeout=30)

    def ended() -> set[str]:
        return {id for id, node, kind in heard if (node, kind) == ("large", "task-succeeded")}

    with (
        make_app("operator", yard.broker_url, current=False) as app,
        app.connection_for_read() as connection,
        yard.client() as client,
    ):
        receiver = app.events.Receiver(connection, handlers={"*": hear_tasks(hear)})
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        # Heartbeats and this one's events come only once the receiver's queue is there.
        eventually(
            lambda: client.submit("hello").result(30) and ended(),
            interval_s=0.3,
            message="the receiver hears",
        )
        ids: set[str] = set()
        for _ in range(30):
            handle = client.submit("hello")
            assert handle.result(30).model == "large"
            ids.add(handle.id)
        eventually(lambda: ids <= ended(), message="all are heard of")
        receiver.should_stop = True
        client.submit("hello").result(30)  # something to hear
        listener.join(20)

    for id in ids:
        nodes = [node for uuid, node, _ in heard if uuid == id]
        assert nodes == sorted(nodes, key=["small", "large"].index), id


def hear_tasks(hear: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Return a handler that passes on what is about tasks of pools."""

    def handle(event: dict[str, Any]) -> None:
        if event["type"].startswith("task-") and not event["hostname"].startswith("router"):
            hear(event)

    return handle
