"""The asyncio pool in a real worker: limits, revocation, shutdown, events, a broker that goes."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from celery.result import AsyncResult
from waiting import eventually
from workers import Workers, workers

from modelyard.app import make_app
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.names import CLAIMS_KEY

COMMAND = [
    *(sys.executable, "-m", "celery", "-A", "pool_app", "worker"),
    *("-n", "pool@test", "-E", "--without-gossip", "--without-mingle", "-l", "INFO"),
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("broker")) as redis:
        yield redis


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, broker: EmbeddedRedis) -> Iterator[Workers]:
    """A worker for the tests that leave it as it was."""
    with workers(tmp_path_factory.mktemp("pool"), broker.url) as pool:
        pool.start("pool", COMMAND)
        yield pool


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Workers]:
    """A place to start workers that the test may end, with a broker of its own."""
    with (
        EmbeddedRedis(tmp_path / "redis") as redis,
        workers(tmp_path, redis.url) as pool,
    ):
        yield pool


@pytest.fixture
def app(shared: Workers) -> Iterator[Celery]:
    with client_of(shared) as app:
        yield app


def client_of(pool: Workers) -> Celery:
    return make_app("test", pool.broker_url, current=False)


def send(app: Celery, name: str, *args: Any, **options: Any) -> AsyncResult:
    return app.send_task(name, args=args, queue="requests", **options)


def active(app: Celery) -> list[str]:
    replies = app.control.inspect(["pool@test"], timeout=2).active() or {}
    return [task["id"] for tasks in replies.values() for task in tasks]


def reserved(app: Celery) -> list[str]:
    replies = app.control.inspect(["pool@test"], timeout=2).reserved() or {}
    return [task["id"] for tasks in replies.values() for task in tasks]


def test_coroutines_run_at_the_same_time_and_each_knows_its_own_request(app: Celery) -> None:
    sent = [send(app, "whoami", 0.3) for _ in range(10)]
    assert [each.get(timeout=20) for each in sent] == [each.id for each in sent]


def test_no_more_run_at_a_time_than_the_concurrency_allows(app: Celery) -> None:
    assert max(each.get(timeout=20) for each in [send(app, "count") for _ in range(60)]) == 10


def test_an_exception_is_stored_as_celery_stores_it(app: Celery) -> None:
    with pytest.raises(ValueError, match="as it was told to"):
        send(app, "fails").get(timeout=20)


def test_a_task_that_cancels_itself_fails_and_is_not_lost(app: Celery) -> None:
    with pytest.raises(RuntimeError, match="cancelled itself"):
        send(app, "leaks_cancellation").get(timeout=20)


def test_a_task_that_is_no_coroutine_runs_too(app: Celery) -> None:
    assert send(app, "plain", 41).get(timeout=20) == 42


def test_the_soft_limit_ends_a_task(app: Celery) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        send(app, "sleep", 30, soft_time_limit=0.2).get(timeout=20)


def test_a_task_may_clean_up_at_its_soft_limit(app: Celery) -> None:
    assert send(app, "saves_itself", soft_time_limit=0.2).get(timeout=20) == "cleaned up"


def test_the_hard_limit_ends_a_task_that_will_not_end(app: Celery) -> None:
    with pytest.raises(TimeLimitExceeded):
        send(app, "stubborn", time_limit=0.3).get(timeout=20)
    eventually(lambda: active(app) == [])


def test_a_queued_task_can_be_revoked(app: Celery) -> None:
    blocking = [send(app, "sleep", 1.0) for _ in range(10)]
    waiting = send(app, "sleep", 0.0)
    app.control.revoke(waiting.id, destination=["pool@test"], reply=True, timeout=5)

    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=20)
    assert [each.get(timeout=20) for each in blocking] == ["slept 1.0"] * 10


def test_a_running_task_can_be_revoked(app: Celery, tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = send(app, "mark", str(log), 30)
    eventually(log.exists)
    app.control.revoke(running.id, terminate=True, destination=["pool@test"], reply=True, timeout=5)

    with pytest.raises(TaskRevokedError):
        running.get(timeout=20)
    eventually(lambda: log.read_text() == "start\ncancelled\n")
    assert active(app) == []


def test_what_waits_for_room_in_the_pool_can_be_revoked(own: Workers) -> None:
    own.start("pool", [*COMMAND, "-c", "1", "--prefetch-multiplier", "4"])
    with client_of(own) as app:
        log = own.folder / "marks"
        running = send(app, "mark", str(log), 30)
        eventually(log.exists)
        waiting = send(app, "sleep", 0.0)
        eventually(lambda: waiting.id in reserved(app))
        for each in (waiting, running):
            told: Any = {"destination": ["pool@test"], "reply": True, "timeout": 5}
            app.control.revoke(each.id, terminate=True, **told)
            with pytest.raises(TaskRevokedError):
                each.get(timeout=20)

        client = app.connection_for_read().default_channel.client
        eventually(lambda: client.hlen(CLAIMS_KEY) == 0)


def test_inspect_sees_what_runs_and_what_the_pool_is(app: Celery, tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = send(app, "mark", str(log), 1.0)
    eventually(log.exists)

    assert active(app) == [running.id]
    stats = app.control.inspect(["pool@test"], timeout=2).stats()["pool@test"]
    assert stats["pool"]["implementation"] == "model_workers.pool:AsyncioPool"
    assert stats["pool"]["in-flight"] == 1
    assert running.get(timeout=20) == "done"


def test_the_pool_grows_and_shrinks_at_run_time(app: Celery) -> None:
    def limit() -> int:
        stats = app.control.inspect(["pool@test"], timeout=2).stats()
        return int(stats["pool@test"]["pool"]["max-concurrency"])

    app.control.pool_grow(2, destination=["pool@test"], reply=True, timeout=5)
    assert limit() == 12
    app.control.pool_shrink(2, destination=["pool@test"], reply=True, timeout=5)
    assert limit() == 10


def test_events_tell_a_task_s_life_and_how_long_it_ran(app: Celery) -> None:
    seen: list[dict[str, Any]] = []
    listening = threading.Event()

    def keep(event: dict[str, Any]) -> None:
        listening.set()
        if event.get("uuid") == "watched":
            seen.append(event)
            receiver.should_stop = event["type"] == "task-succeeded"

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": keep})
        watcher = threading.Thread(
            target=receiver.capture, kwargs={"limit": None, "timeout": 20, "wakeup": False}
        )
        watcher.start()
        # Only an event that arrives shows that the subscription is there.
        eventually(lambda: send(app, "plain", 1) and listening.wait(0.3))
        send(app, "sleep", 0.5, task_id="watched").get(timeout=20)
        watcher.join(20)

    assert [event["type"] for event in seen] == ["task-received", "task-started", "task-succeeded"]
    assert seen[-1]["runtime"] >= 0.5


def test_a_warm_shutdown_finishes_what_runs(own: Workers) -> None:
    own.start("pool", COMMAND)
    with client_of(own) as app:
        log = own.folder / "marks"
        running = send(app, "mark", str(log), 1.5)
        eventually(log.exists)

        assert own.stop("pool") == 0

        assert log.read_text() == "start\nend\n"
        assert running.get(timeout=5) == "done"
        assert app.connection_for_read().default_channel.client.hlen(CLAIMS_KEY) == 0


def test_a_warm_shutdown_hands_back_what_outlasts_its_grace(own: Workers) -> None:
    own.start("pool", COMMAND, GRACE_S="0.5")
    with client_of(own) as app:
        log = own.folder / "marks"
        running = send(app, "mark", str(log), 4.0)
        eventually(log.exists)
        assert own.stop("pool") == 0
        assert log.read_text() == "start\ncancelled\n"

        own.start("pool", COMMAND)

        assert running.get(timeout=20) == "done"
        assert log.read_text() == "start\ncancelled\nstart\nend\n"


def test_a_redis_that_hangs_does_not_stop_the_loop(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "other") as redis, workers(tmp_path, redis.url) as pool:
        pool.start("pool", COMMAND)
        with client_of(pool) as app:
            watching = send(app, "ticks", 3.0)
            finishing = [send(app, "sleep", 1.0) for _ in range(5)]
            log = tmp_path / "marks"
            send(app, "mark", str(log), 0.0)
            eventually(log.exists)
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                # Their results are due while Redis hangs.
                threading.Event().wait(2.0)
            finally:
                os.kill(redis.pid, signal.SIGCONT)

            assert [each.get(timeout=30) for each in finishing] == ["slept 1.0"] * 5
            assert watching.get(timeout=30) < 1.5


def test_a_worker_goes_on_after_redis_was_restarted(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "other") as redis, workers(tmp_path, redis.url) as pool:
        pool.start("pool", COMMAND)
        with client_of(pool) as app:
            log = tmp_path / "marks"
            during = send(app, "mark", str(log), 1.0)
            eventually(log.exists)
            os.kill(redis.pid, signal.SIGKILL)
            eventually(lambda: not redis.alive)
            redis.revive()

            assert during.get(timeout=60) == "done"
            after = eventually(lambda: try_send(app), timeout_s=30)
            assert after.get(timeout=60) == "slept 0.0"


def try_send(app: Celery) -> Any:
    try:
        return send(app, "sleep", 0.0)
    except OSError:
        return None
