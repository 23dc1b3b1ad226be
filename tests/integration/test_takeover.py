"""Leases at work, on real processes: takeover, long calls, zombies, poison, lanes and bounds."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from waiting import eventually
from workers import Workers, own_yard

from modelyard.app import make_app
from modelyard.client import Client
from modelyard.errors import QueueFull, RequestFailed
from modelyard.messages import Lane, Request
from modelyard.names import (
    CLAIMS_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_KEY,
    REQUESTS_QUEUE,
    ROUTE_TASK,
    model_queue,
)
from modelyard.settings import Settings
from modelyard.testing import Gate, Reply
from producer.commands import model_command

LEASE_S = 0.9


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Workers]:
    with own_yard(tmp_path, env={"MODELYARD_LEASE_S": str(LEASE_S)}) as yard:
        yield yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        yield store


def test_a_killed_pools_calls_are_made_by_another(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate))
    yard.start_router()
    yard.start_pool("small")
    handles = client.submit_many([f"summarize {number}" for number in range(5)])
    yard.fake.wait_until(lambda fake: fake.in_flight == 5)

    yard.stop("small", signal.SIGKILL)
    gate.open()
    yard.start("other", second("small"))

    assert [handle.result(30).model for handle in handles] == ["small"] * 5
    assert store.hget(COUNTERS_KEY, "taken_over") == b"5"
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)


def test_a_call_much_longer_than_its_lease_is_made_once(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("provider-small", Reply(delay_s=5 * LEASE_S))
    yard.start_router()
    yard.start_pool("small")
    yard.start("other", second("small"))

    handles = client.submit_many([f"summarize {number}" for number in range(5)])

    assert [handle.result(30).model for handle in handles] == ["small"] * 5
    assert len(yard.fake.calls) == 5
    assert store.hget(COUNTERS_KEY, "taken_over") is None


def test_a_worker_that_was_stopped_for_longer_than_its_lease_changes_nothing(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate))
    yard.start_router()
    zombie = yard.start_pool("small")
    handle = client.submit("summarize this")
    yard.fake.wait_until(lambda fake: fake.in_flight == 1)

    zombie.send_signal(signal.SIGSTOP)
    try:
        yard.start("other", second("small"))
        yard.fake.wait_until(lambda fake: fake.in_flight == 2, timeout_s=30)
        gate.open()
        answer = handle.result(30)
    finally:
        zombie.send_signal(signal.SIGCONT)

    eventually(lambda: "another outcome was first" in yard.log("small"), timeout_s=30)
    assert handle.result(0) == answer
    assert store.hget(COUNTERS_KEY, "duplicates") == b"1"
    assert store.hlen(CLAIMS_KEY) == store.llen(model_queue("small")) == 0


def test_a_request_that_kills_its_workers_is_a_dead_letter(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate))
    yard.start_router()
    handle = client.submit("summarize poison")
    for _ in range(4):
        yard.start_pool("small")
        yard.fake.wait_until(lambda fake: fake.in_flight == 1, timeout_s=30)
        yard.stop("small", signal.SIGKILL)
        yard.fake.wait_until(lambda fake: fake.in_flight == 0, timeout_s=30)
    yard.start_pool("small")

    with pytest.raises(RequestFailed) as failed:
        handle.result(30)

    assert failed.value.reason == "poison"
    assert len(yard.fake.calls) == 4
    assert store.hexists(DEAD_LETTERS_KEY, handle.id)
    assert "summarize poison" in str(store.hget(DEAD_LETTERS_KEY, handle.id))
    gate.open()


def test_an_orderly_stop_is_no_delivery(yard: Workers, client: Client, store: redis.Redis) -> None:
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate))
    yard.start_router()
    handle = client.submit("summarize this")
    for _ in range(6):
        yard.start_pool("small", MODELYARD_SHUTDOWN_GRACE_S="0")
        yard.fake.wait_until(lambda fake: fake.in_flight == 1, timeout_s=30)
        yard.stop("small")
        yard.fake.wait_until(lambda fake: fake.in_flight == 0, timeout_s=30)
    gate.open()
    yard.start_pool("small")

    assert handle.result(30).model == "small"


def test_neither_lane_starves_the_other(yard: Workers, client: Client, store: redis.Redis) -> None:
    requests = [
        Request.of(f"summarize {lane} {number}", lane=lane)
        for lane in Lane
        for number in range(200)
    ]
    handles = client.submit_many(requests)
    yard.start_router()
    eventually(lambda: store.llen(model_queue("small", batch=True)) == 200)
    eventually(lambda: store.llen(model_queue("small")) == 200)
    yard.start_pool("small")
    for handle in handles:
        handle.result(60)

    # Of the first half, four fifths are interactive: what a worker has in hand blurs the edge.
    interactive = {handle.id for handle in handles[:200]}
    first = [call.request_id for call in yard.fake.calls][:200]
    assert 120 <= sum(id in interactive for id in first) <= 190


def test_a_submit_waits_when_a_models_queue_is_full_and_nobody_else_does(
    yard: Workers, store: redis.Redis
) -> None:
    settings = Settings(catalog=yard.folder / "catalog.yaml", queue_limit=50)
    yard.start_router()
    yard.start_pool("large")
    with Client(yard.broker_url, settings=settings) as client:
        batch = [Request.of(f"summarize {number}", lane=Lane.BATCH) for number in range(50)]
        handles = client.submit_many(batch)
        eventually(lambda: store.llen(model_queue("small", batch=True)) == 50)
        with pytest.raises(QueueFull):
            client.submit("summarize more", lane=Lane.BATCH)
        # What is of another lane passes by.
        assert client.submit("hello", models=["large"]).result(30).model == "large"

        yard.start_pool("small")
        handles.append(client.submit("summarize the last", lane=Lane.BATCH, wait_s=30))
        assert {handle.result(60).model for handle in handles} == {"small"}
    assert len(yard.fake.calls) == 52


def test_a_worker_of_two_models_serves_one_while_the_other_is_full_and_does_not_spin(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate))
    yard.start_router()
    yard.start("both", model_command("small", "large"))
    waiting = client.submit_many([f"summarize {number}" for number in range(40)])
    yard.fake.wait_until(lambda fake: fake.in_flight == 20)

    before = commands(store)
    answered = 0
    for number in range(10):
        answered += client.submit(f"hello {number}", models=["large"]).result(30).model == "large"
    spent = commands(store) - before

    assert answered == 10
    # Some dozens a request, and what the workers ask again each 20 or 100 ms: a worker that spins
    # asks thousands of times.
    assert spent < 2_000
    assert store.llen(model_queue("small")) == 20
    gate.open()
    assert {handle.result(60).model for handle in waiting} == {"small"}


def commands(store: redis.Redis) -> int:
    """Return how many commands Redis was given so far."""
    return int(store.info("stats")["total_commands_processed"])


def test_a_message_with_an_eta_is_routed_when_it_is_due(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.start_router()
    yard.start_pool("small")
    with make_app("eta", yard.broker_url, current=False) as app:
        result = app.send_task(
            ROUTE_TASK, [{"text": "summarize later"}], countdown=1, queue=REQUESTS_QUEUE
        )
        assert client.handle(result.id).result(30).model == "small"
    assert len(yard.fake.calls) == 1
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)


def test_a_rate_limit_that_is_set_on_the_router_holds(yard: Workers, client: Client) -> None:
    yard.start_router()
    yard.start_pool("small")
    with make_app("operator", yard.broker_url, current=False) as app:
        said = app.control.rate_limit(ROUTE_TASK, "60/m", reply=True, timeout=5)
    replies = [reply for each in said for reply in each.values()]
    assert {"ok": "new rate limit set successfully"} in replies

    handles = client.submit_many([f"summarize {number}" for number in range(3)])

    decided = sorted(handle.result(30).decision.decided_at for handle in handles)
    assert decided[-1] - decided[0] > 1.5  # one a second


def second(model: str) -> list[str]:
    """A second worker of the same model."""
    return model_command(model, process=2)
