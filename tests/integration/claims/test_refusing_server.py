"""A server that forgets, is full, or takes no writes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import redis
from claims_machine import LEASE_MS, FaultyRedis, end_of
from claims_model import stored
from claims_queues import NEXT, QUEUE, claim_from, put_all, spread_of

from modelyard.claims import (
    DONE,
    LOST,
    Ack,
    Back,
    Claims,
    Hop,
    Join,
    New,
    Record,
    Settlement,
    Want,
    put,
)
from modelyard.embedded_redis import unused_port

IDS: Final = ("a", "b", "c", "d")


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    """Redis has more than it may have, and evicts nothing."""
    client.set("filler", b"x" * 2_000_000)
    client.config_set("maxmemory", "1mb")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


@contextmanager
def replica(client: redis.Redis) -> Iterator[None]:
    """Redis is the replica of a server that is away."""
    client.execute_command("REPLICAOF", "127.0.0.1", unused_port())
    try:
        yield
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def alone(client: redis.Redis) -> Iterator[None]:
    """Redis must have a replica to take writes, and has none."""
    client.config_set("min-replicas-to-write", "1")
    try:
        yield
    finally:
        client.config_set("min-replicas-to-write", "0")


def test_a_server_that_forgot_the_scripts_is_sent_them_again(client: FaultyRedis) -> None:
    moments = iter([0, 0, LEASE_MS])
    worker = Claims(client, lease_s=LEASE_MS / 1000, now_ms=lambda: next(moments))
    client.script_flush()
    put_all(client, b"a")
    client.script_flush()
    (claimed,) = claim_from(worker)
    client.script_flush()
    assert worker.renew([claimed.claim]) == []
    client.script_flush()
    (taken,) = worker.take_over()
    client.script_flush()
    assert worker.settle([Ack(taken.claim)]) == [DONE]


def test_a_full_server_takes_nothing_new_and_work_in_hand_comes_to_its_end(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put(client, QUEUE, [New("a", b"a", "key a"), *(New(id, id.encode()) for id in "bcd")])
    first, second = claim_from(worker, room=2)
    with full(client):
        before = stored(client, [QUEUE, NEXT], IDS, ["key a", "key e"])
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            put(client, QUEUE, [New("a", b"a", "key a"), New("e", b"e", "key e"), New("f", b"f")])
        assert stored(client, [QUEUE, NEXT], IDS, ["key a", "key e"]) == before
        assert put(client, QUEUE, [New("a", b"a", "key a")]) == ["a"], "this needs no memory"
        assert worker.renew([first.claim, second.claim]) == []
        (third,) = claim_from(worker, room=1)
        settlements: list[Settlement] = [
            Hop(first.claim, NEXT, b"a"),
            end_of(second.claim, "b", "FAILURE"),
            Back(third.claim, QUEUE, b"c"),
            Join("", "nobody", 1, "one", True),
        ]
        assert worker.settle(settlements) == [DONE, DONE, DONE, LOST]
        claim_from(worker, room=1)
        (taken,) = rescuer.take_over()
        assert taken.message == b"c"
    assert put(client, QUEUE, [New("e", b"e", "key e")]) == [DONE]
    after = stored(client, [QUEUE, NEXT], IDS)
    assert after.queues == {QUEUE: [b"d", b"e"], NEXT: [b"a"]}
    assert [held.message for held in after.claims.values()] == [b"c"]
    assert list(after.outcomes) == list(after.letters) == ["b"]


@pytest.mark.parametrize("refusing", [replica, alone])
def test_a_server_that_takes_no_writes_refuses_each_call_as_a_whole(
    client: FaultyRedis,
    worker: Claims,
    rescuer: Claims,
    refusing: Callable[[redis.Redis], Any],
) -> None:
    put_all(client, b"a", b"b", b"c")
    first, second = claim_from(worker, room=2)
    ends: list[Settlement] = [
        Hop(first.claim, NEXT, b"a"),
        end_of(second.claim, "b", "FAILURE"),
    ]
    calls: dict[str, Callable[[], Any]] = {
        "put": lambda: put(client, QUEUE, [New("d", b"d", "key d"), New("e", b"e")]),
        "claim": lambda: worker.claim([Want(QUEUE, 1, 1)], 1, [first.claim]),
        "claim nothing": lambda: worker.claim([Want(NEXT, 1, 1)], 1),
        "renew": lambda: worker.renew([first.claim, "gone"]),
        "take over": rescuer.take_over,
        "settle": lambda: worker.settle(ends),
        "back": lambda: worker.settle([Back(first.claim, QUEUE, b"a")]),
        "end": lambda: worker.settle(ends[1:]),
        "ack": lambda: worker.settle([Ack(first.claim)]),
        "spread": lambda: worker.settle([spread_of(first.claim)]),
        "record": lambda: worker.settle([Record(first.claim, "e", 9)]),
        "overdue": worker.release_overdue,
    }
    before = stored(client, [QUEUE, NEXT], IDS, ["key d"])
    with refusing(client):
        for name, call in calls.items():
            with pytest.raises(redis.ResponseError):
                call()
            assert stored(client, [QUEUE, NEXT], IDS, ["key d"]) == before, name
    assert worker.settle(ends) == [DONE, DONE]
    assert [each.message for each in claim_from(worker, QUEUE, NEXT)] == [b"c", b"a"]
    assert list(stored(client, [], IDS).outcomes) == ["b"]
