"""Putting: marks that are remembered, and queues and stores that are full."""

from claims_machine import FaultyRedis, end_of
from claims_model import NO_ROOM_FOR_DEAD
from claims_queues import NEXT, QUEUE, claim_from, in_queue, put_all

from modelyard.claims import DONE, NO_ROOM, Claims, Hop, New, put
from modelyard.names import SUBMITTED_KEY_PREFIX


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


def test_a_queue_is_full_too_when_one_behind_it_is(client: FaultyRedis, worker: Claims) -> None:
    put_all(client, b"a", b"b")
    first, second = claim_from(worker)
    # Where hops go to is behind the lane of requests that its name belongs to.
    worker.settle([Hop(first.claim, "model.x", b"a"), Hop(second.claim, "model.x", b"b")])

    assert put(client, "requests", [New("c", b"c")], most=2) == [NO_ROOM]
    assert put(client, "requests", [New("c", b"c")], most=3) == [DONE]
    assert put(client, "batch.requests", [New("d", b"d")], most=2) == [DONE]


def test_a_full_store_of_dead_letters_stops_what_is_new(
    client: FaultyRedis, worker: Claims
) -> None:
    worker.settle([end_of("", "dead", "FAILURE")])
    put(client, QUEUE, [New("a", b"a", "key")], most_dead=2)
    said = put(client, QUEUE, [New("b", b"b", "key"), New("c", b"c")], most_dead=1)
    assert said == ["a", NO_ROOM_FOR_DEAD]
    assert in_queue(client) == [b"a"]
