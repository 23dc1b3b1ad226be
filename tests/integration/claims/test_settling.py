"""Settling: the first outcome of a request stands, and whoever waits hears of it once."""

import json
from dataclasses import replace

import pytest
import redis
from claims_machine import LEASE_MS, FaultyRedis, end_of
from claims_model import Held, stored
from claims_queues import NEXT, QUEUE, claim_from, put_all

from modelyard.claims import (
    DONE,
    FENCED,
    LOST,
    Ack,
    Back,
    Claims,
    End,
    Hop,
    Record,
    Settlement,
    settle,
)
from modelyard.embedded_redis import unused_port
from modelyard.names import COUNTERS_KEY, DECISIONS_KEY, RESULT_KEY_PREFIX, session_key


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


def test_who_lost_the_claim_can_t_fail_the_request_of_who_has_it(
    client: FaultyRedis, worker: Claims, rescuer: Claims
) -> None:
    put_all(client, b"a")
    (former,) = claim_from(worker)
    (taken,) = rescuer.take_over()
    letter = replace(end_of(former.claim, "a", "FAILURE"), entry="e", entries=9)
    assert worker.settle([letter]) == [FENCED]
    after = stored(client, [], ["a"])
    assert (after.outcomes, after.letters, after.entries) == ({}, {}, [])
    assert after.counters == {"taken_over": 1, "duplicates": 1}
    assert rescuer.settle([end_of(taken.claim, "a")]) == [DONE]
    assert worker.settle([letter]) == [LOST], "it is over now"


def test_a_failure_does_not_end_what_waits_in_a_queue_again(
    client: FaultyRedis, worker: Claims
) -> None:
    put_all(client, b"a")
    (claimed,) = claim_from(worker)
    failure = end_of(claimed.claim, "a", "FAILURE")
    assert worker.settle([Back(claimed.claim, QUEUE, b"a"), failure]) == [DONE, FENCED]
    (again,) = claim_from(worker)
    assert worker.settle([end_of(again.claim, "a", "FAILURE")]) == [DONE]
    assert worker.settle([end_of(again.claim, "a", "FAILURE")]) == [DONE], "told again"
    assert stored(client, []).counters == {"duplicates": 1, "dead_exhausted": 1}


@pytest.mark.parametrize("outcome", ["FAILURE", "REVOKED"])
def test_who_names_no_claim_has_none_to_lose(
    client: FaultyRedis, worker: Claims, outcome: str
) -> None:
    put_all(client, b"a")
    (claimed,) = claim_from(worker)
    assert settle(client, [end_of("", "a", outcome)]) == [DONE]
    assert worker.settle([end_of(claimed.claim, "a")]) == [LOST]


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
