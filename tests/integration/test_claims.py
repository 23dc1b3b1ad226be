"""Claims on a real Redis: a message is in one place, and the first outcome of a request stands."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

import pytest
import redis
from claims_machine import LEASE_MS, FaultyRedis, Yard, end_of
from claims_model import NO_ROOM_FOR_DEAD, Held, id_of, stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from waiting import eventually

from modelyard.claims import (
    AT_ONCE,
    DONE,
    LOST,
    NO_ROOM,
    Ack,
    Back,
    Claimed,
    Claims,
    End,
    Hop,
    Join,
    JoinPoint,
    New,
    Record,
    Settlement,
    Spread,
    Want,
    put,
    settle,
)
from modelyard.embedded_redis import EmbeddedRedis, unused_port
from modelyard.names import (
    CANCELLED_KEY,
    COUNTERS_KEY,
    DECISIONS_KEY,
    JOIN_KEY_PREFIX,
    JOINS_KEY,
    RESULT_KEY_PREFIX,
    SUBMITTED_KEY_PREFIX,
    WAKE_KEY_PREFIX,
    session_key,
)
from modelyard.redis_binary import RedisBinary, usable_binaries

QUEUE: Final = "requests"
NEXT: Final = "model.small"
IDS: Final = ("a", "b", "c", "d")


@pytest.fixture(scope="module", params=list(usable_binaries()), ids=str)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedRedis]:
    """A Redis of each version that is on this machine."""
    binary: RedisBinary = request.param
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), find=lambda _data: binary) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedRedis) -> Iterator[FaultyRedis]:
    """A connection to a Redis that is empty."""
    with FaultyRedis.from_url(server.url) as client:
        client.config_set("appendonly", "no")  # it is flushed for each example
        client.flushall()
        yield client


@pytest.fixture
def worker(client: FaultyRedis) -> Claims:
    """A worker whose clock stands still at 0."""
    return Claims(client, lease_s=LEASE_MS / 1000, now_ms=lambda: 0)


@pytest.fixture
def rescuer(client: FaultyRedis) -> Claims:
    """Another one, who lives when the first one's leases have just run out."""
    return Claims(client, lease_s=LEASE_MS / 1000, now_ms=lambda: LEASE_MS)


def in_queue(client: redis.Redis, queue: str = QUEUE) -> list[bytes]:
    """Return what is in a queue, the oldest first."""
    return stored(client, [queue]).queues[queue]


def put_all(client: redis.Redis, *messages: bytes, queue: str = QUEUE) -> None:
    said = put(client, queue, [New(id_of(message), message) for message in messages])
    assert said == [DONE] * len(messages)


def claim_from(worker: Claims, *queues: str, room: int = AT_ONCE) -> list[Claimed]:
    return worker.claim([Want(queue, room, room) for queue in queues or [QUEUE]], room)[0]


def test_workers_in_any_order_do_to_a_store_what_they_do_to_its_model(client: FaultyRedis) -> None:
    class YardHere(Yard):
        pass

    YardHere.client = client
    run_state_machine_as_test(
        YardHere,
        settings=settings(
            max_examples=120,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# -- putting


def test_a_mark_is_remembered_as_long_as_it_was_asked_for(client: FaultyRedis) -> None:
    assert put(client, QUEUE, [New("a", b"a", "key", 60), New("b", b"b", "key", 60)]) == [DONE, "a"]
    assert put(client, NEXT, [New("c", b"c", "key", 3600)]) == ["a"]
    assert 0 < client.ttl(SUBMITTED_KEY_PREFIX + "key") <= 60
    assert in_queue(client) == [b"a"]
    assert in_queue(client, NEXT) == []

    client.delete(SUBMITTED_KEY_PREFIX + "key")
    assert put(client, QUEUE, [New("d", b"d", "key", 60)]) == [DONE]


def test_a_queue_that_is_full_takes_no_more_but_knows_its_marks(client: FaultyRedis) -> None:
    put(client, QUEUE, [New("a", b"a", "key")])
    again = [New("b", b"b"), New("c", b"c"), New("d", b"d", "key")]
    assert put(client, QUEUE, again, most=2) == [DONE, NO_ROOM, "a"]
    assert in_queue(client) == [b"a", b"b"]


def test_a_full_store_of_dead_letters_stops_what_is_new(
    client: FaultyRedis, worker: Claims
) -> None:
    worker.settle([end_of("", "dead", "FAILURE")])
    put(client, QUEUE, [New("a", b"a", "key")], most_dead=2)
    said = put(client, QUEUE, [New("b", b"b", "key"), New("c", b"c")], most_dead=1)
    assert said == ["a", NO_ROOM_FOR_DEAD]
    assert in_queue(client) == [b"a"]


# -- claiming


@pytest.mark.parametrize(
    "message",
    [b"", b"\0", b"\0\0model.small\0", bytes(range(256)), b"\xff\xfe\xc3(", b'{"half": ', b"\r\n"],
)
def test_any_bytes_travel_unchanged(
    client: FaultyRedis, worker: Claims, rescuer: Claims, message: bytes
) -> None:
    put(client, QUEUE, [New("a", message)])
    (claimed,) = claim_from(worker)
    assert (claimed.queue, claimed.message) == (QUEUE, message)
    (taken,) = rescuer.take_over()
    assert (taken.queue, taken.message) == (QUEUE, message)
    settle(client, [Hop(taken.claim, NEXT, message)])
    (hopped,) = claim_from(worker, NEXT)
    settle(client, [Back(hopped.claim, NEXT, hopped.message)])
    assert in_queue(client, NEXT) == [message]


def test_a_thousand_are_claimed_at_once_renewed_and_moved_on(
    client: FaultyRedis, worker: Claims
) -> None:
    messages = [f"{number}".encode() for number in range(AT_ONCE + 1)]
    put_all(client, *messages)
    claimed = claim_from(worker, room=5 * AT_ONCE)
    assert [each.message for each in claimed] == messages[:AT_ONCE]
    claimed += claim_from(worker)
    claims = [each.claim for each in claimed]
    assert len(set(claims)) == AT_ONCE + 1
    assert worker.renew([*claims, "gone"]) == ["gone"]
    hops = [Hop(each.claim, NEXT, each.message) for each in claimed]
    assert worker.settle(hops) == [DONE] * len(hops)
    assert in_queue(client, NEXT) == messages
    assert stored(client, [QUEUE, NEXT]).claims == {}


def test_a_thousand_are_taken_over_at_once(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put_all(client, *(f"{number}".encode() for number in range(AT_ONCE)))
    lost = claim_from(worker)
    taken = rescuer.take_over(2 * AT_ONCE)
    assert {each.message for each in taken} == {each.message for each in lost}
    assert worker.renew(each.claim for each in lost) == [each.claim for each in lost]


def test_each_queue_gets_its_share_and_the_first_gets_what_is_left(
    client: FaultyRedis, worker: Claims
) -> None:
    put_all(client, *(b"a%d" % number for number in range(9)), queue="a")
    put_all(client, *(b"b%d" % number for number in range(9)), queue="b")
    put_all(client, b"c0", queue="c")
    wants = [Want("a", 1, 4), Want("b", 2, 9), Want("c", 3, 9)]
    claimed, _ = worker.claim(wants, 9)
    # The third has less than its share, and the first may have no more than four.
    taken = {queue: [each.message for each in claimed if each.queue == queue] for queue in "abc"}
    assert taken == {
        "a": [b"a0", b"a1", b"a2", b"a3"],
        "b": [b"b0", b"b1", b"b2", b"b3"],
        "c": [b"c0"],
    }


def test_what_is_done_is_acknowledged_on_the_way_to_the_next(
    client: FaultyRedis, worker: Claims
) -> None:
    put_all(client, b"a", b"b", b"c")
    done = [each.claim for each in claim_from(worker, room=2)]
    client.zadd(CANCELLED_KEY, {"x": 1.0, "y": 2.0})
    claimed, cancelled = worker.claim([Want(QUEUE, 1, 1)], 1, done)
    assert cancelled == 2
    assert list(stored(client, [QUEUE]).claims) == [each.claim for each in claimed]
    assert worker.claim([], 0, [claimed[0].claim]) == ([], 2)
    assert stored(client, [QUEUE]).claims == {}


def test_two_of_one_process_never_give_one_name_twice(client: FaultyRedis) -> None:
    """A worker connects again and counts from 1 again, while what it had still runs."""
    put_all(client, b"a", b"b")
    (first,), (second,) = (
        claim_from(Claims(client, owner="one", now_ms=lambda: 0), room=1) for _ in range(2)
    )
    taken = Claims(client, owner="one", now_ms=lambda: 10_000).take_over()
    names = {first.claim, second.claim, *(each.claim for each in taken)}
    assert len(names) == 4
    assert {held.message for held in stored(client, [QUEUE]).claims.values()} == {b"a", b"b"}


def test_a_claim_that_the_client_sends_twice_loses_nothing(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put_all(client, b"a", b"b")
    client.fault = "resent"
    (heard,) = claim_from(worker, room=1)
    assert heard.message == b"b"
    worker.settle([Ack(heard.claim)])
    (unheard,) = rescuer.take_over()
    assert unheard.message == b"a"


def test_a_take_over_that_the_client_sends_twice_loses_nothing(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put_all(client, b"a", b"b")
    claim_from(worker)
    client.fault = "resent"
    (heard,) = rescuer.take_over(1)
    assert heard.message == b"b"
    held = stored(client, [QUEUE]).claims
    assert sorted(each.message for each in held.values()) == [b"a", b"b"]


def test_the_clock_of_the_server_is_the_clock_of_the_leases(client: FaultyRedis) -> None:
    worker = Claims(client, lease_s=3600)
    put_all(client, b"a")
    (claimed,) = claim_from(worker)
    seconds, _ = client.time()
    due_ms = stored(client, [QUEUE]).claims[claimed.claim].due_ms
    assert abs(due_ms - 1000 * (seconds + 3600)) <= 60_000
    assert worker.renew([claimed.claim]) == []
    assert worker.take_over() == []


# -- settling


def test_a_lease_ends_at_its_moment_and_its_former_owner_can_do_nothing(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put_all(client, b"a")
    (former,) = claim_from(worker)
    early = Claims(client, now_ms=lambda: LEASE_MS - 1)
    assert early.take_over() == []
    (taken,) = rescuer.take_over()
    assert worker.renew([former.claim]) == [former.claim]
    settlements: list[Settlement] = [
        Hop(former.claim, NEXT, b"a"),
        Back(former.claim, QUEUE, b"a"),
        Ack(former.claim),
    ]
    assert worker.settle(settlements) == [LOST, LOST, DONE]
    assert stored(client, [QUEUE, NEXT]).claims == {taken.claim: Held(QUEUE, b"a", 2 * LEASE_MS)}
    assert client.hget(COUNTERS_KEY, "taken_over") == b"1"


def test_the_first_end_of_an_id_stands_whoever_has_the_claim(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put_all(client, b"a")
    (former,) = claim_from(worker)
    (taken,) = rescuer.take_over()
    # The answer was paid for, so it counts though the claim is lost.
    assert worker.settle([end_of(former.claim, "a", text="first")]) == [DONE]
    assert worker.settle([end_of(former.claim, "a", text="first")]) == [DONE]
    assert rescuer.settle([end_of(taken.claim, "a", "FAILURE", "second")]) == [LOST]
    after = stored(client, [QUEUE], ["a"])
    assert after.claims == {}
    assert after.letters == {}
    assert after.outcomes == {"a": end_of("", "a", text="first").result}
    assert after.counters == {"taken_over": 1, "duplicates": 1}
    assert 0 < client.ttl(RESULT_KEY_PREFIX + "a") <= 3600


@pytest.mark.parametrize("status", ["STARTED", "RETRY", "PENDING"])
def test_what_is_no_outcome_does_not_stand_in_the_way_of_one(
    client: FaultyRedis, status: str
) -> None:
    client.set(RESULT_KEY_PREFIX + "a", f'{{"status":"{status}","result":null}}')
    assert settle(client, [end_of("", "a")]) == [DONE]
    assert client.get(RESULT_KEY_PREFIX + "a") == end_of("", "a").result


def test_a_result_that_is_too_deep_to_be_read_is_an_outcome(client: FaultyRedis) -> None:
    deep = '{"status":"SUCCESS","result":' + "[" * 2000 + "]" * 2000 + "}"
    client.set(RESULT_KEY_PREFIX + "a", deep)
    assert settle(client, [end_of("", "a")]) == [LOST]
    assert client.get(RESULT_KEY_PREFIX + "a") == deep.encode()


def test_whoever_waits_hears_of_each_outcome_once(client: FaultyRedis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe("modelyard:answers:client", RESULT_KEY_PREFIX + "a")
        for _ in range(2):
            heard.get_message(timeout=5)
        ends = [end_of("", id) for id in ("a", "b", "c")]
        client.fault = "resent"
        settle(client, [*ends, end_of("", "b", "REVOKED")])
        client.publish("modelyard:answers:client", "last")
        told = list(iter(lambda: next_message(heard), b"last"))
    whole = "\n".join(f"{end.id}\n{stored_text(end)}" for end in ends)
    assert told == [ends[0].result, whole.encode()]


def stored_text(end: End) -> str:
    return end.result if isinstance(end.result, str) else end.result.decode()


def test_a_notice_holds_no_long_result_and_none_that_has_lines(client: FaultyRedis) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe("modelyard:answers:client")
        heard.get_message(timeout=5)
        answer = json.dumps({"status": "SUCCESS", "result": "x" * 9000})
        long = replace(end_of("", "a"), result=answer)
        lines = replace(end_of("", "b"), result='{"status":\n"SUCCESS"}')
        assert settle(client, [long, lines]) == [DONE, DONE]
        assert next_message(heard) == b"a\n\nb\n"
        assert settle(client, [end_of("", f"c{number}", text="x" * 1_900) for number in range(50)])
        assert len(next_message(heard)) < 70_000


def next_message(heard: redis.client.PubSub) -> bytes:
    message = heard.get_message(timeout=5)
    assert message is not None, "nothing was published"
    data: bytes = message["data"]
    return data


def test_a_queue_is_full_too_when_one_behind_it_is(client: FaultyRedis, worker: Claims) -> None:
    put_all(client, b"a", b"b")
    first, second = claim_from(worker)
    # Where hops go to is behind the lane of requests that its name belongs to.
    worker.settle([Hop(first.claim, "model.x", b"a"), Hop(second.claim, "model.x", b"b")])

    assert put(client, "requests", [New("c", b"c")], most=2) == [NO_ROOM]
    assert put(client, "requests", [New("c", b"c")], most=3) == [DONE]
    assert put(client, "batch.requests", [New("d", b"d")], most=2) == [DONE]


# -- spreading and joining


def spread_of(claim: str, need: int = 3, *, within_ms: int = 60_000, **fields: Any) -> Spread:
    """Return a request `a` of three members, who are joined in `model.small`."""
    members = tuple(("members", b"a%d" % number) for number in (1, 2, 3))
    return Spread(claim, members, JoinPoint("a", need, 3, within_ms, NEXT, b"a", **fields))


def members_of(worker: Claims, client: redis.Redis, need: int = 3, **fields: Any) -> list[str]:
    """Spread a request, and return the claims of its members."""
    put_all(client, b"a")
    (claimed,) = claim_from(worker)
    assert worker.settle([spread_of(claimed.claim, need, **fields)]) == [DONE]
    return [each.claim for each in claim_from(worker, "members")]


def test_members_are_joined_once_when_all_have_ended(client: FaultyRedis, worker: Claims) -> None:
    first, second, third = members_of(worker, client)
    answered = [Join(first, "a", 1, "one", True), Join(second, "a", 2, "two", True)]
    assert worker.settle(answered) == [DONE, DONE]
    assert in_queue(client, NEXT) == []
    for said in (DONE, DONE, LOST):
        ended = "other" if said == LOST else "failed"
        assert worker.settle([Join(third, "a", 3, ended)]) == [said]
        assert in_queue(client, NEXT) == [b"a"]
    assert stored(client, [QUEUE, NEXT, "members"]).claims == {}


def test_a_quorum_is_enough_and_who_comes_later_is_noted(
    client: FaultyRedis, worker: Claims
) -> None:
    first, second, third = members_of(worker, client, need=2)
    worker.settle([Join(first, "a", 1, "one", True), Join(second, "a", 2, "failed")])
    assert in_queue(client, NEXT) == [], "a failure is no answer"
    worker.settle([Join(third, "a", 3, "three", True)])
    assert in_queue(client, NEXT) == [b"a"]
    assert stored(client, [NEXT]).meetings["a"].ended == {1: "one", 2: "failed", 3: "three"}


def test_where_all_are_needed_the_first_that_fails_is_the_end_of_the_wait(
    client: FaultyRedis, worker: Claims
) -> None:
    first, second, third = members_of(worker, client, needs_all=True)
    worker.settle([Join(first, "a", 1, "one", True)])
    assert in_queue(client, NEXT) == []
    worker.settle([Join(second, "a", 2, "failed")])
    assert in_queue(client, NEXT) == [b"a"]
    worker.settle([Join(third, "a", 3, "failed too")])
    assert in_queue(client, NEXT) == [b"a"], "once"


def test_a_member_that_was_taken_over_may_still_end(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    (former, *_) = members_of(worker, client, need=1)
    taken = {each.message: each.claim for each in rescuer.take_over()}
    assert worker.settle([Join(former, "a", 1, "paid for", True)]) == [DONE]
    assert rescuer.settle([Join(taken[b"a1"], "a", 1, "again", True)]) == [LOST]
    assert in_queue(client, NEXT) == [b"a"]


def test_who_lost_a_request_spreads_nothing(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put_all(client, b"a")
    (former,) = claim_from(worker)
    rescuer.take_over()
    assert worker.settle([spread_of(former.claim)]) == [LOST]
    assert in_queue(client, "members") == []
    assert not client.exists(JOIN_KEY_PREFIX + "a")


def test_late_members_are_not_waited_for(client: FaultyRedis, worker: Claims) -> None:
    server_clock = Claims(client)
    members_of(worker, client, within_ms=60_000)
    assert server_clock.release_overdue() == 0
    client.flushall()
    first, *_ = members_of(worker, client, within_ms=0)
    worker.settle([Join(first, "a", 1, "one", True)])
    assert server_clock.release_overdue() == 1
    assert in_queue(client, NEXT) == [b"a"]
    assert server_clock.release_overdue() == 0
    assert client.exists(WAKE_KEY_PREFIX + NEXT)


def test_who_is_spread_again_starts_anew(client: FaultyRedis, worker: Claims) -> None:
    first, *_ = members_of(worker, client, need=1)
    worker.settle([Join(first, "a", 1, "one", True)])
    (combiner,) = claim_from(worker, NEXT)
    assert worker.settle([spread_of(combiner.claim, need=2)]) == [DONE]
    assert stored(client, [NEXT]).meetings["a"].ended == {}
    (again, *_) = (each.claim for each in claim_from(worker, "members"))
    assert worker.settle([Join(again, "a", 1, "one", True)]) == [DONE]
    assert in_queue(client, NEXT) == [], "one of two"


def test_what_is_known_of_members_is_forgotten_in_time(client: FaultyRedis, worker: Claims) -> None:
    first, second, _ = members_of(worker, client, need=1, ttl_s=60)
    assert client.ttl(JOIN_KEY_PREFIX + "a") == -1, "the request is nowhere else"
    worker.settle([Join(first, "a", 1, "one", True)])
    assert 0 < client.ttl(JOIN_KEY_PREFIX + "a") <= 60
    client.delete(JOIN_KEY_PREFIX + "a")
    assert Claims(client).release_overdue() == 0
    assert worker.settle([Join(second, "a", 2, "two", True, entry="e", entries=9)]) == [LOST]
    assert stored(client, [NEXT]).entries == ["e"]


def test_late_members_of_which_none_has_answered_are_waited_for(
    client: FaultyRedis, worker: Claims
) -> None:
    first, second, _ = members_of(worker, client, within_ms=0, last_ms=60_000)
    worker.settle([Join(first, "a", 1, "failed")])
    assert Claims(client).release_overdue() == 0
    assert in_queue(client, NEXT) == []
    worker.settle([Join(second, "a", 2, "two", True)])
    assert in_queue(client, NEXT) == [b"a"], "the first answer is enough then"


def test_late_members_are_waited_for_until_the_last(client: FaultyRedis, worker: Claims) -> None:
    members_of(worker, client, within_ms=0, last_ms=1)
    eventually(lambda: Claims(client).release_overdue() == 1)
    assert in_queue(client, NEXT) == [b"a"]


def test_a_member_of_an_earlier_round_is_only_noted(client: FaultyRedis, worker: Claims) -> None:
    first, second, third = members_of(worker, client, need=1, round="2")
    stale = Join(first, "a", 1, "old", True, entry="e", entries=9, round="1")
    assert worker.settle([stale]) == [LOST]
    assert in_queue(client, NEXT) == []
    assert stored(client, [NEXT]).entries == ["e"]
    assert worker.settle([Join(second, "a", 1, "new", True, round="2")]) == [DONE]
    assert in_queue(client, NEXT) == [b"a"]
    assert worker.settle([Join(third, "a", 3, "unreadable")]) == [DONE], "of which nobody can tell"


def test_what_ends_is_not_waited_for_by_its_members(client: FaultyRedis, worker: Claims) -> None:
    members_of(worker, client)
    gone = replace(end_of("", "a", "REVOKED"), joined=True)
    assert settle(client, [gone]) == [DONE]
    assert not client.exists(JOIN_KEY_PREFIX + "a", JOINS_KEY)
    put_all(client, b"a")
    (again,) = claim_from(worker)
    assert worker.settle([spread_of(again.claim)]) == [DONE]
    assert settle(client, [replace(end_of("", "a"), joined=True)]) == [LOST]
    assert not client.exists(JOIN_KEY_PREFIX + "a", JOINS_KEY), "nor by a second end"


def test_failed_members_are_joined_where_a_worker_lives(
    client: FaultyRedis, worker: Claims
) -> None:
    first, *_ = members_of(worker, client, anywhere=True, within_ms=0)
    worker.settle([Join(first, "a", 1, "failed", queue="members")])
    assert Claims(client).release_overdue() == 1
    assert in_queue(client, NEXT) == []


def test_much_is_settled_in_several_pieces(
    client: FaultyRedis, worker: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.claims.MOST_CHARS", 20_000)
    put_all(client, *(b"%d" % number for number in range(40)))
    hops = [Hop(each.claim, NEXT, b"x" * 100_000) for each in claim_from(worker)]
    client.config_set("client-query-buffer-limit", "1mb")  # a gigabyte is what it is by default
    try:
        assert worker.settle(hops) == [DONE] * 40
    finally:
        client.config_set("client-query-buffer-limit", "1gb")
    assert client.llen(NEXT) == 40


def test_an_end_tells_the_ledger_and_the_session_once(client: FaultyRedis, worker: Claims) -> None:
    key = session_key("acme", "one")
    end = replace(end_of("", "a"), entry="e", entries=9, session=key, model="large")
    assert settle(client, [end, end]) == [DONE, DONE]
    other = replace(end_of("", "a", "FAILURE"), entry="f", entries=9, session=key, model="small")
    assert settle(client, [other]) == [LOST]
    after = stored(client, [])
    assert (after.entries, after.sessions) == (["e"], {key: "large"})
    assert 86_000 < client.ttl(key) <= 86_400


def test_the_ledger_keeps_about_as_many_as_it_was_told(client: FaultyRedis) -> None:
    ends = [replace(end_of("", f"id{at}"), entry=str(at), entries=300) for at in range(900)]
    settle(client, ends)
    assert 300 <= client.xlen(DECISIONS_KEY) <= 500
    assert stored(client, []).entries[-1] == "899"


def test_what_is_only_recorded_has_no_outcome(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put_all(client, b"a", b"b")
    first, second = claim_from(worker)
    assert worker.settle([Record(first.claim, "e", 9), Record(second.claim, "", 9)]) == [DONE, DONE]
    assert worker.settle([Record(first.claim, "e", 9)]) == [LOST]
    after = stored(client, [QUEUE], ["a", "b"])
    assert (after.entries, after.outcomes, after.claims) == (["e"], {}, {})


def test_nothing_to_settle_asks_nothing_of_redis() -> None:
    with redis.Redis(port=unused_port()) as nobody:
        assert settle(nobody, []) == []
        assert Claims(nobody).renew([]) == []


# -- waking up


def test_there_is_one_token_at_most_for_whoever_sleeps(client: FaultyRedis, worker: Claims) -> None:
    for message in (b"a", b"b", b"c"):
        put_all(client, message)
    wake = WAKE_KEY_PREFIX + QUEUE
    assert client.llen(wake) == 1
    client.delete(wake)
    (claimed,) = claim_from(worker, room=1)
    assert client.llen(wake) == 1, "two are left"
    client.delete(wake)
    claim_from(worker, room=2)
    assert client.llen(wake) == 0, "none is left"
    claim_from(worker)
    assert client.llen(wake) == 0, "nothing was taken"
    worker.settle([Back(claimed.claim, QUEUE, b"a")])
    assert client.llen(wake) == 1


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A worker that waits for a token of its queues and then claims once, with little room."""

    queues: tuple[str, ...]
    room: int


SLEEPERS: Final = st.builds(
    Sleeper, st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "a")]), st.integers(1, 2)
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    puts=st.lists(st.sampled_from("ab"), max_size=6),
    sleepers=st.lists(SLEEPERS, min_size=1, max_size=3),
    random=st.randoms(),
)
def test_no_message_is_left_while_a_worker_sleeps_that_wants_it(
    client: FaultyRedis, puts: list[str], sleepers: list[Sleeper], random: Random
) -> None:
    client.flushall()
    worker = Claims(client)
    coming = list(puts)
    awake: list[Sleeper] = []
    while True:
        tokens = [queue for queue in "ab" if client.exists(WAKE_KEY_PREFIX + queue)]
        woken = [(each, queue) for each in sleepers for queue in tokens if queue in each.queues]
        moves = ["put"] * bool(coming) + ["wake"] * bool(woken) + ["claim"] * bool(awake)
        if not moves:
            break
        match random.choice(moves):
            case "put":
                put_all(client, b"x", queue=coming.pop())
            case "wake":
                sleeper, queue = random.choice(woken)
                client.delete(WAKE_KEY_PREFIX + queue)
                awake.append(sleeper)
            case _:
                sleeper = awake.pop(random.randrange(len(awake)))
                claim_from(worker, *sleeper.queues, room=sleeper.room)
    wanted = {queue for sleeper in sleepers for queue in sleeper.queues}
    assert {queue: in_queue(client, queue) for queue in wanted} == {queue: [] for queue in wanted}


# -- a server that forgets, is full, or takes no writes


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
