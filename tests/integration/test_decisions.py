"""The decision ledger in a real Redis: reading, following, feedback."""

import asyncio

import pytest
import redis
from ledger_entries import entry, put

from modelyard.async_client import AsyncClient
from modelyard.claims import settle
from modelyard.client import Client
from modelyard.decision_ledger import BEGIN, Kind, follow, last_id, read
from modelyard.endings import answered, died
from modelyard.errors import InvalidRequest, ModelyardError, RequestFailed
from modelyard.messages import Answer, DeadLetter, DeadReason
from modelyard.names import DECISIONS_KEY
from modelyard.plan import Arm, Decision, Plan, Step

ARM = Arm(experiment="try", arm="control")


def answer(store: redis.Redis, id: str) -> None:
    """End a request as a worker does."""
    decision = Decision(
        route="default",
        intent="code",
        why="rule 1",
        input_tokens=1,
        arms=(ARM,),
        decided_at=1.0,
        plan=Plan(steps=(Step(model="small"),)),
    )
    done = Answer(id=id, text="42", model="small", provider_model="small", decision=decision)
    settle(store, [answered(done, claim="", ttl_s=60, channel="", now=2.0)])


def test_entries_are_read_in_order_whatever_the_size_of_a_page(store: redis.Redis) -> None:
    put(store, *(entry(id=f"r{n}") for n in range(7)))
    for page in (1, 2, 7, 100):
        assert [each.id for each in read(store, page=page)] == [f"r{n}" for n in range(7)]


def test_what_is_no_entry_is_left_out_and_said(
    store: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, entry(id="r1"))
    store.xadd(DECISIONS_KEY, {"e": "{"})
    store.xadd(DECISIONS_KEY, {"other": "field"})
    put(store, entry(id="r2"))

    assert [each.id for each in read(store, page=2)] == ["r1", "r2"]
    assert "2 entries of the decision ledger can't be read" in caplog.text


def test_a_span_of_time_is_read_by_redis_s_clock(store: redis.Redis) -> None:
    for seconds in (100, 200, 300):
        text = entry(id=f"r{seconds}").model_dump_json()
        store.xadd(DECISIONS_KEY, {"e": text}, id=f"{1000 * seconds}-0")

    assert [each.id for each in read(store, 200.0)] == ["r200", "r300"]
    assert [each.id for each in read(store, 100.0, 200.0)] == ["r100"]
    assert list(read(store, 301.0)) == []


def test_following_goes_on_where_it_stopped(store: redis.Redis) -> None:
    assert follow(store) == ([], BEGIN)
    assert last_id(store) == BEGIN
    put(store, entry(id="r1"), entry(id="r2"), entry(id="r3"))

    some, place = follow(store, page=2)
    rest, end = follow(store, place, page=2)

    assert [each.id for _, each in some + rest if each] == ["r1", "r2", "r3"]
    assert follow(store, end) == ([], end)
    assert last_id(store) == end


def test_feedback_is_about_the_model_and_the_arms_of_the_answer(
    redis_url: str, store: redis.Redis
) -> None:
    answer(store, "r1")
    with Client(redis_url) as client:
        client.feedback("r1", 0.25, "it is wrong")
        client.handle("r1").feedback(1.0)

    first, second = read(store)
    assert (first.kind, first.id, first.score) == (Kind.FEEDBACK, "r1", 0.25)
    assert (first.model, first.intent, first.arms) == ("small", "code", (ARM,))
    assert (first.comment, second.comment, second.score) == ("it is wrong", "", 1.0)


def test_feedback_can_be_awaited(redis_url: str, store: redis.Redis) -> None:
    answer(store, "r1")

    async def give() -> None:
        async with AsyncClient(redis_url) as client:
            await client.feedback("r1", 0.5)
            await client.handle("r1").feedback(0.75)

    asyncio.run(give())

    assert [each.score for each in read(store)] == [0.5, 0.75]


def test_without_an_answer_there_is_nothing_to_give_feedback_on(
    redis_url: str, store: redis.Redis
) -> None:
    letter = DeadLetter(
        id="dead", reason=DeadReason.EXPIRED, message="late", request={}, died_at=1.0
    )
    settle(store, [died(letter, claim="", ttl_s=60, channel="")])
    with Client(redis_url) as client:
        with pytest.raises(ModelyardError, match="request never: there is no answer"):
            client.feedback("never", 1.0)
        with pytest.raises(RequestFailed, match="expired"):
            client.feedback("dead", 1.0)
    assert store.xlen(DECISIONS_KEY) == 0


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_score_is_from_0_to_1(redis_url: str, store: redis.Redis, score: float) -> None:
    answer(store, "r1")
    with Client(redis_url) as client, pytest.raises(InvalidRequest, match="from 0 to 1"):
        client.feedback("r1", score)
    assert store.xlen(DECISIONS_KEY) == 0
