"""Claiming and taking over: no message is lost, changed or in two places."""

import json

import pytest
from claims_machine import FaultyRedis
from claims_model import stored
from claims_queues import NEXT, QUEUE, claim_from, in_queue, put_all

from modelyard.claims import AT_ONCE, DONE, Ack, Back, Claims, Hop, New, Want, put, settle
from modelyard.names import CANCELLED_KEY
from modelyard.publish import envelope


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
    claimed, _ = worker.claim([Want(QUEUE, 1, 1)], 1, done)
    assert list(stored(client, [QUEUE]).claims) == [each.claim for each in claimed]
    assert worker.claim([], 0, [claimed[0].claim]) == ([], set())
    assert stored(client, [QUEUE]).claims == {}


def task_message(id: str, text: str = "") -> bytes:
    """Return a request as a client sends it."""
    return envelope(task="t", id=id, payload={"text": text}, queue=QUEUE, summary="").encode()


def test_whoever_claims_is_told_which_of_them_are_cancelled(
    client: FaultyRedis, worker: Claims
) -> None:
    """Without asking again: some request is cancelled most of the time."""
    marks = ("a", 'q"uote', "ä", "€", "elsewhere", "in a body", "forgotten")
    client.zadd(CANCELLED_KEY, dict.fromkeys(marks, 1.0))
    client.zadd(CANCELLED_KEY, {"forgotten": 0.0})
    by_kombu = json.dumps({"body": "", "headers": {"lang": "id", "id": "ä"}}).encode()
    messages = (
        task_message("a"),
        task_message("b", '{"id": "in a body"}, "id": "in a body"'),
        task_message('q"uote'),
        by_kombu,
        by_kombu.replace(b"\\u00e4", "€".encode()),
        task_message("forgotten"),
        b'"id" "id":3, "id":"\\u12',
        b'{"id": "\\"", "headers": 3}',
        b"",
    )
    client.lpush(QUEUE, *messages)
    claimed, cancelled = worker.claim([Want(QUEUE, 20, 20)], 20)
    assert [each.message for each in claimed] == list(messages)
    assert cancelled == {"a", 'q"uote', "ä", "€"}
    assert not client.zscore(CANCELLED_KEY, "forgotten")
    assert client.zcard(CANCELLED_KEY) == 6, "its members may come across it, too"


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
