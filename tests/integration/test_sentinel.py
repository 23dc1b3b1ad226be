"""A broker that Redis Sentinel watches over: whoever is the master now is the broker."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.sentinel import SentinelConnectionPool
from sentinels import Watched, watched_redis
from waiting import eventually
from workers import Workers, workers

from modelyard import Client
from modelyard.app import make_app
from modelyard.claims import New, put
from modelyard.connect import connect
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.names import CLAIMS_KEY, LEASES_KEY
from modelyard.sentinel import MasterConnection
from modelyard.testing import ECHO, Gate, Reply


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with watched_redis(tmp_path / "redis") as watched:
        yield watched


@pytest.fixture
def yard(watched: Watched, tmp_path: Path) -> Iterator[Workers]:
    with workers(tmp_path, watched.url, env={"MODELYARD_LEASE_S": "2"}) as yard:
        yard.start_router()
        yard.start_pool("small")
        yield yard


@pytest.fixture
def client(yard: Workers) -> Iterator[Client]:
    with Client(yard.broker_url, patience_s=60) as client:
        yield client


def assert_whole(yard: Workers, watched: Watched, client: Client, calls: int) -> None:
    """All that was submitted was called for once, nothing is left, and the yard still works."""
    assert set(Counter(call.request_id for call in yard.fake.calls).values()) == {1}
    assert len(yard.fake.calls) == calls
    yard.fake.always("*", ECHO)
    assert client.submit("still there").result(30).model == "small"
    with connect(watched.url) as store:
        eventually(lambda: store.hlen(CLAIMS_KEY) == store.zcard(LEASES_KEY) == 0)
    assert [process.poll() for process in yard.processes.values()] == [None, None]


def test_a_killed_master_is_replaced_and_a_killed_sentinel_is_not_missed(
    yard: Workers, watched: Watched, client: Client
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    handles = client.submit_many(f"before {n}" for n in range(60))
    yard.fake.wait_until(lambda fake: fake.in_flight == 20)
    assert watched.all_replicated()
    old = watched.master

    watched.kill(watched.sentinels[0])
    watched.kill(old)
    later: list[Any] = []
    submitter = threading.Thread(
        target=lambda: later.extend(client.submit_many(f"during {n}" for n in range(20)))
    )
    submitter.start()
    eventually(lambda: watched.master != old, message="a new master")
    gate.open()
    submitter.join(60)
    # The old one comes back as what it was, and is made a replica.
    watched.start_server(old)

    done = list(client.as_completed([*handles, *later], timeout_s=60))
    assert len(done) == 80
    assert {handle.result(0).model for handle in done} == {"small"}
    assert_whole(yard, watched, client, 80)


def test_calls_in_flight_outlive_a_failover_of_many_leases(
    yard: Workers, watched: Watched, client: Client
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    handles = client.submit_many(["hello"] * 60)
    yard.fake.wait_until(lambda fake: fake.in_flight == 20)
    assert watched.all_replicated()
    # Until the old master is told, which takes seconds, it is what the workers talk to: where they
    # come to then, all leases ran out long ago.
    old = watched.fail_over()
    with connect(watched.url) as store, watched.server(old) as server:
        eventually(lambda: lapsed(store) == 0, message="leases that are renewed")
        assert server.info("replication")["role"] == "slave"
    gate.open()

    assert len(list(client.as_completed(handles, timeout_s=60))) == 60
    assert_whole(yard, watched, client, 60)


def lapsed(store: redis.Redis) -> int:
    """Return how many claims have a lease that ran out."""
    seconds, micros = store.time()
    return int(store.zcount(LEASES_KEY, "-inf", 1000 * seconds + micros // 1000))


def test_celery_s_own_commands_and_clients_find_the_master(
    yard: Workers, watched: Watched, client: Client
) -> None:
    id = client.submit("hello").id
    with make_app("test", watched.url, current=False) as app:
        assert app.AsyncResult(id).get(timeout=30)["model"] == "small"
        assert len(app.control.inspect(timeout=3).ping() or {}) == 2
        conf = json.dumps(app.control.inspect(timeout=3).conf())
    assert "of-the-master" not in conf
    assert "of-the-sentinels" not in conf
    # `celery -A modelyard flower`: kombu's own transport, and all sentinels.
    with make_app("flower", watched.url, current=False, broker_transport=None) as app:
        assert len(app.control.inspect(timeout=3).ping() or {}) == 2


class ToldBy:
    """Stands for the sentinels; `master` is who they say it is."""

    def __init__(self, master: int) -> None:
        self.master = master

    def discover_master(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", self.master


def port_of(server: EmbeddedRedis) -> int:
    return int(server.url.split(":")[2].split("/")[0])


@pytest.mark.parametrize("refusal", ["replicaof", "min-replicas-to-write"])
def test_a_connection_that_is_open_leaves_a_server_that_is_the_master_no_more(
    tmp_path: Path, refusal: str
) -> None:
    with EmbeddedRedis(tmp_path / "a") as a, EmbeddedRedis(tmp_path / "b") as b:
        told = ToldBy(port_of(a))
        pool = SentinelConnectionPool("yard", told, connection_class=MasterConnection)
        with redis.Redis.from_pool(pool) as client, redis.Redis.from_url(a.url) as first:
            put(client, "requests", [New("1", "one")])
            if refusal == "replicaof":
                first.replicaof("127.0.0.1", port_of(b))
            else:
                first.config_set(refusal, 1)
            told.master = port_of(b)

            with pytest.raises(redis.ConnectionError, match="master"):
                put(client, "requests", [New("2", "two")])
            put(client, "requests", [New("2", "two")])

            assert client.lrange("requests", 0, -1) == [b"two"]


def test_a_plain_connection_leaves_a_server_that_can_t_be_written_to(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "a") as a, connect(a.url) as client:
        client.set("a", 1)
        client.replicaof("127.0.0.1", 1)
        first = client.client_id()
        with pytest.raises(redis.ResponseError, match="read only replica"):
            put(client, "requests", [New("1", "one")])

        # Behind a proxy, say, this is another server.
        assert client.client_id() != first
