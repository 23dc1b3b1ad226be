"""Requests that are too long for their models, in pieces through real processes."""

import json
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from fake_models import fake_model, fake_models
from waiting import eventually
from workers import Workers, own_yard

from modelyard import Client, RequestFailed, RequestRevoked
from modelyard.dead_letters import DeadLetters
from modelyard.handle import Handle
from modelyard.messages import Answer, Usage
from modelyard.names import (
    CACHED_KEY_PREFIX,
    CLAIMS_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_BY_AGE_KEY,
    DEAD_LETTERS_KEY,
    DECISIONS_KEY,
    JOIN_KEY_PREFIX,
    JOINS_KEY,
    SPENT_KEY_PREFIX,
    model_queue,
)
from modelyard.plan import Strategy
from modelyard.testing import Gate, Reply
from producer.commands import model_command

LEASE_S = 0.9
USAGE = Usage(input_tokens=10, output_tokens=5)
CALL_USD = 15e-6
"""What one call of `small` costs; `second` is twice as dear."""

MODELS = ("small", "second")


def model(name: str, usd: float, **settings: Any) -> str:
    narrow = {"context_tokens": 1000, "max_output_tokens": 200, "timeout_s": 60}
    return fake_model(name, usd=usd, **narrow, **settings)


CATALOG = (
    fake_models(model("small", 1), model("second", 2), model("narrow", 1, concurrency=1))
    + """
budgets:
  - {usd_per_day: 1000}
routes:
  default: {too_long: map_reduce, otherwise: [small, second]}
  refuse: {otherwise: [small, second]}
  alone: {too_long: map_reduce, otherwise: [small]}
  narrow: {too_long: map_reduce, otherwise: [narrow]}
  cached: {too_long: map_reduce, answer_cache: {ttl_s: 600}, otherwise: [small]}
  json: {too_long: map_reduce, after: [json], otherwise: [small, second]}
"""
)

DAY = "The pump was stopped at noon, and the night shift found the valve open. "
REPORT = "\n\n".join(f"Day {day}. {DAY * 3}" for day in range(60))
QUESTION = f"Which days were dry?\n\n{REPORT}\n\nOnly the days."

PIECE = re.compile(r"this is part (\d+) of (\d+)\.")


def piece_of(body: Mapping[str, Any]) -> int | None:
    """Which piece is asked about; None for the last question."""
    found = PIECE.search(body["messages"][-1]["content"])
    return int(found.group(1)) if found else None


def answers(
    special: Mapping[int | None, Reply] | None = None, heard: list[str] | None = None
) -> Callable[[Mapping[str, Any]], Reply]:
    """A model that says which piece it was asked about; `special` replies to some."""

    def reply(body: Mapping[str, Any]) -> Reply:
        number = piece_of(body)
        if heard is not None:
            heard.append(body["messages"][-1]["content"])
        if special is not None and number in special:
            return special[number]
        text = f"dry in {number}" if number else "all of it"
        return Reply(text=text, usage=USAGE)

    return reply


@contextmanager
def empty_yard(folder: Path) -> Iterator[Workers]:
    with own_yard(folder, catalog=CATALOG, env={"MODELYARD_LEASE_S": str(LEASE_S)}) as yard:
        yard.start_router()
        yield yard


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with empty_yard(tmp_path_factory.mktemp("yard")) as yard:
        yard.start("pool", model_command(*MODELS, "narrow"))
        yield yard


@pytest.fixture
def yard(module_yard: Workers) -> Workers:
    module_yard.calm(*MODELS, "narrow")
    return module_yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        dead = (DEAD_LETTERS_KEY, DEAD_LETTERS_BY_AGE_KEY)
        for key in (DECISIONS_KEY, *dead, *store.keys(f"{SPENT_KEY_PREFIX}*")):
            store.delete(key)
        yield store
        # Nothing of any of it is left.
        eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
        assert store.zcard(JOINS_KEY) == 0
        assert store.hget(COUNTERS_KEY, "duplicates") is None


def entries(store: redis.Redis) -> list[dict[str, Any]]:
    """The decision ledger."""
    rows: Any = store.xrange(DECISIONS_KEY)
    return [json.loads(fields[b"e"]) for _, fields in rows]


def spent_usd(store: redis.Redis) -> float:
    rows: Any = [store.hgetall(key) for key in store.keys(f"{SPENT_KEY_PREFIX}*")]
    return sum(int(value) for row in rows for value in row.values()) / 1e9


def count_of(answer: Answer) -> int:
    assert answer.decision.plan.pieces is not None
    return answer.decision.plan.pieces.count


def test_each_piece_is_asked_about_and_the_last_question_is_about_their_answers(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    heard: list[str] = []
    yard.fake.always("small", answers(heard=heard))

    answer = client.submit(QUESTION).result(30)

    plan, count = answer.decision.plan, count_of(answer)
    assert (plan.strategy, [step.model for step in plan.steps]) == (
        Strategy.MAP_REDUCE,
        ["small", "second"],
    )
    assert count > 3
    assert f"too long for its models: in {count} pieces" in answer.decision.why
    assert [each.model for each in answer.decision.excluded] == ["small", "second"]
    assert (answer.text, answer.model) == ("all of it", "small")
    assert [draft.text for draft in answer.drafts] == [f"dry in {at + 1}" for at in range(count)]
    assert len(answer.attempts) == count + 1
    assert answer.usage.input_tokens == (count + 1) * USAGE.input_tokens
    assert answer.cost_usd == pytest.approx((count + 1) * CALL_USD)
    assert spent_usd(store) == pytest.approx(answer.cost_usd)
    *pieces, last = heard
    assert all(f"Day {day}. " in "".join(pieces) for day in range(60))
    assert DAY not in last
    assert "Part 2 of" in last
    assert "dry in 2" in last
    by_kind = [entry["kind"] for entry in entries(store)]
    assert sorted(by_kind) == ["member"] * count + ["request"]
    (request,) = [entry for entry in entries(store) if entry["kind"] == "request"]
    assert (request["strategy"], request["cost_usd"]) == ("map_reduce", answer.cost_usd)
    ids = sorted(call.request_id or "" for call in yard.fake.calls)
    assert ids == sorted([answer.id, *(f"{answer.id}:{at + 1}" for at in range(count))])
    assert not store.exists(JOIN_KEY_PREFIX + answer.id)


def test_what_fits_goes_whole_and_without_the_switch_what_does_not_is_refused(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("small", answers())
    answer = client.submit("Which days were dry?").result(30)
    assert (answer.decision.plan.strategy, answer.drafts) == (Strategy.SINGLE, ())

    with pytest.raises(RequestFailed, match=r"tokens do not fit the 800 it has") as refused:
        client.submit(QUESTION, route="refuse").result(30)
    assert refused.value.reason == "invalid"
    with pytest.raises(RequestFailed, match=r"the most that can be put together: about [\d,]+ tok"):
        client.submit(QUESTION * 9).result(30)


def test_a_piece_that_a_model_fails_on_goes_to_the_next(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("small", answers({2: Reply(status=503)}))
    yard.fake.always("second", answers())

    answer = client.submit(QUESTION).result(30)

    assert [draft.model for draft in answer.drafts][:3] == ["small", "second", "small"]
    assert (answer.text, answer.model) == ("all of it", "small")
    count = count_of(answer)
    assert len(answer.attempts) == count + 1 + 2
    assert answer.cost_usd == pytest.approx((count + 2) * CALL_USD)
    assert spent_usd(store) == pytest.approx(answer.cost_usd)


def test_the_last_question_goes_to_the_next_model_too_and_no_piece_is_asked_again(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("small", answers({None: Reply(status=503)}))
    yard.fake.always("second", answers())

    answer = client.submit(QUESTION).result(30)

    count = count_of(answer)
    assert (answer.text, answer.model) == ("all of it", "second")
    assert {draft.model for draft in answer.drafts} == {"small"}
    assert [each.model for each in answer.attempts] == ["small"] * (count + 2) + ["second"]
    assert answer.cost_usd == pytest.approx((count + 2) * CALL_USD)
    assert spent_usd(store) == pytest.approx(answer.cost_usd)


def test_a_piece_that_nobody_answers_is_the_end_of_the_whole_which_can_be_replayed(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    broken = answers({3: Reply(status=400, code="invalid_request_error", message="no")})
    yard.fake.always("*", broken)
    handle = client.submit(QUESTION)

    with pytest.raises(RequestFailed, match=r"piece 3 of \d+: second: ") as failed:
        handle.result(30)

    assert failed.value.reason == "exhausted"
    assert store.hlen(DEAD_LETTERS_KEY) == 1
    entry = DeadLetters(store).get(handle.id)
    assert entry is not None
    assert entry.letter is not None
    assert entry.letter.request["messages"][0]["content"] == QUESTION
    tried = [each.model for each in entry.letter.attempts if each.kind is not None]
    assert tried == ["small", "second"]

    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    yard.fake.always("*", answers())
    (fate,) = DeadLetters(store).replay()
    assert fate.what == "replayed"
    answer = client.handle(handle.id).result(30)
    assert answer.text == "all of it"
    assert answer.cost_usd == pytest.approx((count_of(answer) + 1) * CALL_USD)


def test_once_a_piece_is_lost_those_that_wait_are_not_called(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    """The model is called for one at a time."""
    broken = Reply(status=400, code="invalid_request_error", message="no")
    yard.fake.always("narrow", answers({1: broken, 2: broken}))

    with pytest.raises(RequestFailed, match=r"piece [12] of \d+: narrow: "):
        client.submit(QUESTION, route="narrow").result(30)

    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    eventually(lambda: store.llen(model_queue("narrow")) == 0)
    assert len(yard.fake.calls) <= 2


def test_a_deadline_that_passes_is_told_with_the_piece_that_was_late(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("small", answers({4: Reply(gate=gate, text="late", usage=USAGE)}))
    handle = client.submit(QUESTION, route="alone", deadline_s=1)

    with pytest.raises(RequestFailed, match=r"piece 4 of \d+ did not end in time") as failed:
        handle.result(30)
    assert failed.value.reason == "expired"
    gate.open()
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    # It was paid for all the same.
    count = sum(each["kind"] == "member" for each in entries(store))
    assert spent_usd(store) == pytest.approx(count * CALL_USD)


def test_what_is_cancelled_is_not_asked_on(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("narrow", answers({at: Reply(gate=gate) for at in range(1, 40)}))
    handle = client.submit(QUESTION, route="narrow")
    yard.fake.wait_until(lambda fake: fake.in_flight == 1)

    assert handle.cancel()
    yard.fake.wait_until(lambda fake: fake.in_flight == 0)
    gate.open()

    with pytest.raises(RequestRevoked):
        handle.result(30)
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    eventually(lambda: store.llen(model_queue("narrow")) == 0)
    assert not store.exists(JOIN_KEY_PREFIX + handle.id)
    assert len(yard.fake.calls) == 1


def test_the_same_long_request_is_paid_for_once(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("small", answers())
    first = client.submit(QUESTION, route="cached").result(30)
    calls = len(yard.fake.calls)
    assert first.cached is None

    again = client.submit(QUESTION, route="cached").result(30)

    assert len(yard.fake.calls) == calls == count_of(first) + 1
    assert (again.text, again.cost_usd) == (first.text, 0.0)
    assert again.cached is not None
    assert again.cached.of == first.id
    assert all(draft.cached is not None for draft in again.drafts)
    for key in store.scan_iter(f"{CACHED_KEY_PREFIX}*"):
        store.delete(key)


def test_what_is_replayed_pays_for_no_piece_twice_where_answers_are_kept(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    held = Gate()
    broken = Reply(gate=held, status=400, code="invalid_request_error", message="no")
    yard.fake.always("small", answers({3: broken}))
    handle = client.submit(QUESTION, route="cached")
    others = eventually_all_but_one(store, handle)
    held.open()
    with pytest.raises(RequestFailed, match=r"piece 3 of \d+: small: "):
        handle.result(30)

    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    yard.fake.reset()
    yard.fake.always("small", answers())
    (fate,) = DeadLetters(store).replay()
    assert fate.what == "replayed"
    answer = client.handle(handle.id).result(30)
    assert [draft.cached is None for draft in answer.drafts].index(True) == 2
    assert len(answer.drafts) == others + 1
    assert len(yard.fake.calls) == 2
    for key in store.scan_iter(f"{CACHED_KEY_PREFIX}*"):
        store.delete(key)


def eventually_all_but_one(store: redis.Redis, handle: Handle) -> int:
    """Wait until all pieces but one have ended, and return how many those are."""
    join = JOIN_KEY_PREFIX + handle.id

    def left() -> int:
        ended, members = (int(value or 0) for value in store.hmget(join, "ended", "members"))
        return members - ended

    eventually(lambda: left() == 1, timeout_s=30)
    return int(store.hget(join, "ended") or 0)


def test_an_answer_that_is_no_json_is_asked_for_again_from_the_pieces_answers(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    heard: list[str] = []
    yard.fake.always("small", answers(heard=heard))
    yard.fake.always("second", answers({None: Reply(text="[1]", usage=USAGE)}))

    answer = client.submit(QUESTION, route="json").result(30)

    count = count_of(answer)
    assert (answer.text, answer.model) == ("[1]", "second")
    assert "Your last answer can't be used" in heard[-1]
    assert len(heard) == count + 2
    # The pieces' answers, and the two that were no JSON.
    assert len(answer.drafts) == count + 2
    assert len(answer.attempts) == count + 3
    assert answer.cost_usd == pytest.approx((count + 2 + 2) * CALL_USD)
    assert spent_usd(store) == pytest.approx(answer.cost_usd)


@pytest.mark.parametrize("stage", ["map", "reduce"])
def test_a_killed_worker_s_part_is_done_by_another_and_each_answer_counts_once(
    tmp_path: Path, stage: str
) -> None:
    with empty_yard(tmp_path) as yard, redis.Redis.from_url(yard.broker_url) as store:
        gate = Gate()
        held = 3 if stage == "map" else None
        yard.fake.always("small", answers({held: Reply(gate=gate, text="lost", usage=USAGE)}))
        yard.start("doomed", model_command(*MODELS))
        with yard.client() as client:
            handle: Handle = client.submit(QUESTION)
            join = JOIN_KEY_PREFIX + handle.id
            known, least = ("ended", 4) if stage == "map" else ("released", 1)
            eventually(lambda: int(store.hget(join, known) or 0) >= least)
            yard.fake.wait_until(lambda fake: fake.in_flight == 1, timeout_s=30)
            yard.stop("doomed", signal.SIGKILL)
            yard.fake.always("small", answers())
            gate.open()
            yard.start("second", model_command(*MODELS, process=2))
            answer = handle.result(30)

        count = count_of(answer)
        assert answer.text == "all of it"
        assert [draft.text for draft in answer.drafts] == [
            f"dry in {at + 1}" for at in range(count)
        ]
        assert answer.cost_usd == pytest.approx((count + 1) * CALL_USD)
        eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
        assert spent_usd(store) == pytest.approx(answer.cost_usd)
        kinds = [entry["kind"] for entry in entries(store)]
        assert sorted(kinds) == ["member"] * count + ["request"]
        assert int(store.hget(COUNTERS_KEY, "taken_over") or 0) >= 1
        assert store.hget(COUNTERS_KEY, "duplicates") is None
        assert store.hlen(DEAD_LETTERS_KEY) == store.zcard(JOINS_KEY) == 0
