"""A Redis that goes away, hangs or refuses, under load: all that was accepted ends once.

One yard goes through all of it, so its workers must not only survive an outage but be as good as
new after it.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from waiting import eventually
from workers import Workers, workers

from modelyard import BrokerFull, Client, Handle
from modelyard.embedded_redis import EmbeddedRedis, unused_port
from modelyard.names import CLAIMS_KEY, LEASES_KEY
from modelyard.testing import Gate, Reply

LEASE_S = 1.5
CALL_S = 0.05


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def started(server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("yard")
    with workers(folder, server.url, env={"MODELYARD_LEASE_S": str(LEASE_S)}) as yard:
        yard.start_router()
        yard.start_pool("small")
        yield yard


@pytest.fixture
def yard(started: Workers) -> Workers:
    started.fake.reset()
    started.fake.always("*", Reply(delay_s=CALL_S))
    return started


@pytest.fixture
def store(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)) as store:
        yield store


@pytest.fixture
def client(yard: Workers) -> Iterator[Client]:
    with Client(yard.broker_url, patience_s=60) as client:
        yield client


class Load:
    """Requests that are submitted all the time, by a client with patience."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._submit)
        self.handles: list[Handle] = []
        self.error: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._enough.set()
        self._thread.join(70)

    def _submit(self) -> None:
        try:
            while not self._enough.wait(0.02):
                self.handles += self._client.submit_many(["hello"] * 5)
        except Exception as error:  # noqa: BLE001 - told in the test's thread
            self.error = error


@contextmanager
def under_load(yard: Workers, client: Client, store: redis.Redis) -> Iterator[None]:
    """Let an outage happen while requests come in; check then that each of them ended once."""
    load = Load(client)
    load.start()
    try:
        yard.fake.wait_until(lambda fake: len(fake.calls) > 50)
        yield
        back = len(load.handles)
        eventually(
            lambda: len(load.handles) > back + 50 or load.error,
            timeout_s=30,
            message="requests are submitted again",
        )
    finally:
        load.stop()
    assert load.error is None
    answered = list(client.as_completed(load.handles, timeout_s=60))

    assert {handle.result(0).model for handle in answered} == {"small"}
    assert len(answered) == len(load.handles)
    calls = Counter(call.request_id for call in yard.fake.calls)
    assert calls.keys() == {handle.id for handle in load.handles}
    assert set(calls.values()) == {1}
    assert_as_new(yard, store)


def assert_as_new(yard: Workers, store: redis.Redis) -> None:
    """No message lies anywhere, and the same workers go on."""
    eventually(lambda: store.hlen(CLAIMS_KEY) == store.zcard(LEASES_KEY) == 0)
    assert store.exists("requests", "model.small", "batch.requests", "batch.model.small") == 0
    assert [process.poll() for process in yard.processes.values()] == [None, None]


def lapsed(store: redis.Redis) -> int:
    """Return how many claims have a lease that ran out."""
    seconds, micros = store.time()
    return int(store.zcount(LEASES_KEY, "-inf", 1000 * seconds + micros // 1000))


def worker_connections(store: redis.Redis) -> int:
    return sum(each["cmd"] == "brpop" for each in store.client_list())


def test_a_restart(
    yard: Workers, client: Client, server: EmbeddedRedis, store: redis.Redis
) -> None:
    with under_load(yard, client, store):
        store.shutdown()
        eventually(lambda: not server.alive)
        server.revive()


def test_a_kill_and_a_restart(
    yard: Workers, client: Client, server: EmbeddedRedis, store: redis.Redis
) -> None:
    with under_load(yard, client, store):
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.alive)
        # Longer than a lease: nobody may take over what the living could not renew.
        time.sleep(2 * LEASE_S)
        server.revive()


def test_calls_that_run_while_redis_is_away_are_not_made_again(
    yard: Workers, client: Client, server: EmbeddedRedis, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    handles = client.submit_many(["hello"] * 30)
    yard.fake.wait_until(lambda fake: fake.in_flight == 20)
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.alive)
    time.sleep(2 * LEASE_S)
    server.revive()
    eventually(lambda: lapsed(store) == 0, message="leases that are renewed")
    gate.open()

    assert len(list(client.as_completed(handles, timeout_s=30))) == 30
    assert len(yard.fake.calls) == 30
    assert_as_new(yard, store)


def test_a_hang_of_several_leases(
    yard: Workers, client: Client, server: EmbeddedRedis, store: redis.Redis
) -> None:
    with under_load(yard, client, store):
        os.kill(server.pid, signal.SIGSTOP)
        try:
            time.sleep(3 * LEASE_S)
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_a_pause_of_all_commands(yard: Workers, client: Client, store: redis.Redis) -> None:
    with under_load(yard, client, store):
        store.client_pause(round(2000 * LEASE_S))
        time.sleep(2 * LEASE_S)


def test_connections_that_are_cut(yard: Workers, client: Client, store: redis.Redis) -> None:
    with under_load(yard, client, store):
        for _ in range(5):
            eventually(lambda: worker_connections(store) > 0, message="workers are back")
            store.client_kill_filter(_type="normal", skipme=True)
            store.client_kill_filter(_type="pubsub", skipme=True)


def test_no_memory_left(yard: Workers, client: Client, store: redis.Redis) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    accepted = client.submit_many(["hello"] * 60)
    yard.fake.wait_until(lambda fake: fake.in_flight == 20)
    store.config_set("maxmemory", "1")
    try:
        with pytest.raises(BrokerFull):
            client.submit("one more")
        gate.open()
        # What was accepted is worked off although nothing can be added.
        assert len(list(client.as_completed(accepted, timeout_s=30))) == 60
    finally:
        store.config_set("maxmemory", "0")

    assert client.submit("one more").result(30).model == "small"
    assert len(yard.fake.calls) == 61
    assert_as_new(yard, store)


def refusals(store: redis.Redis) -> int:
    return int(store.info("stats")["total_error_replies"])


def test_a_server_that_is_a_replica_for_a_while(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    with under_load(yard, client, store):
        before = refusals(store)
        store.replicaof("127.0.0.1", unused_port())
        try:
            eventually(lambda: refusals(store) > before + 5, message="refused writes")
            time.sleep(2 * LEASE_S)
        finally:
            store.replicaof("NO", "ONE")


def test_a_disk_that_can_t_be_written_to(
    yard: Workers, client: Client, server: EmbeddedRedis, store: redis.Redis
) -> None:
    """Redis refuses writes with MISCONF while it can't save a snapshot."""
    in_the_way = Path(str(store.config_get("dir")["dir"])) / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    (in_the_way / "not empty").mkdir(parents=True)
    before = str(store.config_get("save")["save"])
    store.config_set("save", "3600 1000000000")
    try:
        with under_load(yard, client, store):
            refused = refusals(store)
            save(store, "err")
            eventually(lambda: refusals(store) > refused + 5, message="refused writes")
            time.sleep(2 * LEASE_S)
            (in_the_way / "not empty").rmdir()
            in_the_way.rmdir()
            save(store, "ok")
    finally:
        store.config_set("save", before)


def save(store: redis.Redis, status: str) -> None:
    """Save a snapshot, and wait until it came to `status`."""
    store.bgsave()
    eventually(partial(came_to, store, status), message=f"a snapshot: {status}")


def came_to(store: redis.Redis, status: str) -> bool:
    said = store.info("persistence")
    return not said["rdb_bgsave_in_progress"] and said["rdb_last_bgsave_status"] == status
