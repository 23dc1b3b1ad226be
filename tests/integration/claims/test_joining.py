"""Spreading a request over members, and joining what they ended with."""

from dataclasses import replace
from typing import Any

import redis
from claims_machine import FaultyRedis, end_of
from claims_model import stored
from claims_queues import NEXT, QUEUE, claim_from, in_queue, put_all, spread_of
from waiting import eventually

from modelyard.claims import DONE, FENCED, LOST, Claims, Join, settle
from modelyard.names import JOIN_KEY_PREFIX, JOINS_KEY, WAKE_KEY_PREFIX


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


def test_a_member_that_was_taken_over_is_not_failed_by_who_lost_it(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    (former, *_) = members_of(worker, client, needs_all=True)
    taken = {each.message: each.claim for each in rescuer.take_over()}
    assert worker.settle([Join(former, "a", 1, "timed out")]) == [FENCED]
    assert in_queue(client, NEXT) == []
    assert rescuer.settle([Join(taken[b"a1"], "a", 1, "paid for", True)]) == [DONE]
    assert worker.settle([Join(former, "a", 1, "timed out")]) == [LOST]
    assert rescuer.settle([Join(taken[b"a2"], "a", 2, "failed")]) == [DONE]
    assert in_queue(client, NEXT) == [b"a"]


def test_who_lost_a_request_leaves_its_members_to_who_has_it(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    first, *_ = members_of(worker, client, need=1)
    worker.settle([Join(first, "a", 1, "one", True)])
    (former,) = claim_from(worker, NEXT)
    (taken,) = [each for each in rescuer.take_over() if each.queue == NEXT]
    failure = replace(end_of(former.claim, "a", "FAILURE"), joined=True)
    assert worker.settle([failure]) == [FENCED]
    assert stored(client, []).meetings["a"].ended == {1: "one"}
    answer = replace(end_of(taken.claim, "a"), joined=True)
    assert rescuer.settle([answer]) == [DONE]
    assert stored(client, []).meetings == {}


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
