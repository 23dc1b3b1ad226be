"""Cascades, ensembles and shadows through real processes."""

import contextlib
import json
import math
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis
from strategy_yard import MODELS, strategy_yard
from waiting import eventually
from workers import Workers

from modelyard import Client, RequestFailed, RequestRevoked
from modelyard.app import make_app
from modelyard.messages import Usage
from modelyard.names import (
    CLAIMS_KEY,
    DEAD_LETTERS_KEY,
    DECISIONS_KEY,
    JOIN_KEY_PREFIX,
    JOINS_KEY,
    session_key,
)
from modelyard.testing import Gate, Reply

USAGE = Usage(input_tokens=10, output_tokens=5)
CALL_USD = 15e-6
"""What one call of `small` costs; `medium` is twice as dear, `large` four times, `judge` eight."""


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with strategy_yard(tmp_path_factory.mktemp("yard")) as yard:
        yield yard


@pytest.fixture
def yard(module_yard: Workers) -> Workers:
    module_yard.calm(*MODELS)
    return module_yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        store.delete(DECISIONS_KEY)
        yield store
        # Nothing of any of it is left.
        eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
        assert store.zcard(JOINS_KEY) == 0


def says(yard: Workers, **texts: str) -> None:
    """Have each model always say this; what usage it has is known."""
    for model, text in texts.items():
        yard.fake.always(model, Reply(text=text, usage=USAGE))


def called(yard: Workers) -> list[str]:
    return [call.model for call in yard.fake.calls]


def entries(store: redis.Redis) -> list[dict[str, Any]]:
    """The decision ledger."""
    rows: Any = store.xrange(DECISIONS_KEY)
    return [json.loads(fields[b"e"]) for _, fields in rows]


def with_log_probabilities(*probabilities: float) -> Reply:
    tokens = [{"token": "x", "logprob": math.log(each)} for each in probabilities]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "an answer"},
        "finish_reason": "stop",
        "logprobs": {"content": tokens},
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    body = {"model": "small", "choices": [choice], "usage": usage}
    return Reply(body=json.dumps(body).encode())


# -- cascades


@pytest.mark.parametrize(
    ("route", "good", "bad", "why"),
    [
        ("expression", "this is fine", "no idea", "expression"),
        ("schema", '{"total": 1}', '{"sum": 1}', "json_schema"),
    ],
)
def test_an_answer_that_meets_its_conditions_is_taken_and_any_other_goes_on(
    yard: Workers, client: Client, route: str, good: str, bad: str, why: str
) -> None:
    says(yard, small=good, large="better")
    answer = client.submit("hello", route=route).result(30)
    assert (answer.model, answer.text, answer.drafts) == ("small", good, ())
    assert called(yard) == ["small"]

    says(yard, small=bad)
    answer = client.submit("hello", route=route).result(30)
    assert (answer.model, answer.text) == ("large", "better")
    (draft,) = answer.drafts
    assert (draft.model, draft.text) == ("small", bad)
    assert draft.verdict.startswith(why)
    assert answer.usage == USAGE + USAGE
    assert answer.cost_usd == pytest.approx(5 * CALL_USD)
    assert [attempt.model for attempt in answer.attempts] == ["small", "large"]


def test_a_model_that_is_not_sure_is_not_trusted(yard: Workers, client: Client) -> None:
    bodies: list[Mapping[str, Any]] = []

    def unsure(body: Mapping[str, Any]) -> Reply:
        bodies.append(body)
        return with_log_probabilities(0.9, 0.5)

    yard.fake.always("small", with_log_probabilities(0.9, 0.8))
    assert client.submit("hello", route="sure").result(30).model == "small"
    yard.fake.always("small", unsure)
    answer = client.submit("hello", route="sure").result(30)

    assert answer.model == "large"
    assert answer.drafts[0].confidence == pytest.approx(math.sqrt(0.9 * 0.5))
    assert bodies[0]["logprobs"] is True


def test_samples_of_one_model_must_agree(yard: Workers, client: Client) -> None:
    says(yard, small="42", large="43")
    answer = client.submit("hello", route="agreed").result(30)
    assert (answer.model, answer.text) == ("small", "42")
    assert called(yard) == ["small"] * 3
    assert answer.cost_usd == pytest.approx(3 * CALL_USD)

    yard.fake.reset()
    says(yard, large="43")
    yard.fake.script("small", [Reply(text=text, usage=USAGE) for text in ("1", "2", "3")])
    answer = client.submit("hello", route="agreed").result(30)
    assert answer.model == "large"
    assert "33% of 3 answers agree" in answer.drafts[0].verdict
    assert answer.cost_usd == pytest.approx((3 + 4) * CALL_USD)


def test_a_sample_that_fails_does_not_agree(yard: Workers, client: Client) -> None:
    says(yard, large="43")
    down = Reply(status=400, code="invalid_request_error")
    yard.fake.script("small", [Reply(text="42", usage=USAGE), down, down])

    answer = client.submit("hello", route="agreed").result(30)

    assert answer.model == "large"
    assert [attempt.model for attempt in answer.attempts] == ["small"] * 3 + ["large"]


def test_a_judge_decides(yard: Workers, client: Client, store: redis.Redis) -> None:
    says(yard, small="an answer", large="a better one", judge="9")
    answer = client.submit("hello", route="judged").result(30)
    assert (answer.model, answer.text, answer.drafts) == ("small", "an answer", ())
    assert answer.cost_usd == pytest.approx((1 + 8) * CALL_USD)
    assert [attempt.model for attempt in answer.attempts] == ["small", "judge"]

    says(yard, judge="3")
    answer = client.submit("hello", route="judged").result(30)
    assert answer.model == "large"
    (draft,) = answer.drafts
    assert (draft.score, draft.verdict) == (0.3, "judge graded it 0.3, below 0.7")
    assert answer.cost_usd == pytest.approx((1 + 8 + 4) * CALL_USD)
    first, second = entries(store)
    assert (first["outcome"], first["accepted"], first["score"]) == ("answered", True, 0.9)
    assert (second["model"], second["accepted"]) == ("large", False)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(text="lovely weather"), "the grade that judge gave can't be read"),
        (Reply(status=401), "judge could not grade it: exhausted"),
    ],
)
def test_without_a_grade_the_next_model_answers(
    yard: Workers, client: Client, reply: Reply, why: str
) -> None:
    says(yard, small="an answer", large="a better one")
    yard.fake.always("judge", reply)

    answer = client.submit("hello", route="judged").result(30)

    assert answer.model == "large"
    assert answer.drafts[0].verdict == why


def test_the_best_draft_stands_if_all_later_models_fail(yard: Workers, client: Client) -> None:
    says(yard, small="good", medium="bad")
    yard.fake.script("judge", [Reply(text=grade, usage=USAGE) for grade in ("6", "2")])
    yard.fake.always("large", Reply(status=503))

    answer = client.submit("hello", route="three").result(30)

    assert (answer.model, answer.text) == ("small", "good")
    assert [draft.verdict for draft in answer.drafts] == [
        "judge graded it 0.6, below 0.7",
        "judge graded it 0.2, below 0.7",
    ]
    assert answer.cost_usd == pytest.approx((1 + 8 + 2 + 8) * CALL_USD)


def test_a_model_that_is_down_is_skipped_in_a_cascade(yard: Workers, client: Client) -> None:
    says(yard, medium="an answer", judge="10")
    yard.fake.always("small", Reply(status=503))

    answer = client.submit("hello", route="three").result(30)

    assert (answer.model, answer.drafts) == ("medium", ())


def test_a_draft_stands_when_the_deadline_passes(yard: Workers, client: Client) -> None:
    says(yard, small="in time")
    yard.fake.always("judge", Reply(text="0", usage=USAGE, delay_s=2.5))

    answer = client.submit("hello", route="judged", deadline_s=2).result(30)

    assert (answer.model, answer.text) == ("small", "in time")
    assert "large" not in called(yard)


def test_a_session_stays_where_it_was_escalated_to(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    says(yard, small="bad", medium="good")
    yard.fake.script("judge", [Reply(text=grade) for grade in ("1", "9")])
    of = {"session": "s-1", "tenant": "acme"}
    assert client.submit("hello", route="three", metadata=of).result(30).model == "medium"

    key = session_key("acme", "s-1")
    assert store.get(key) == b"medium"
    assert 86_000 < store.ttl(key) <= 86_400
    says(yard, judge="9")
    again = client.submit("and then?", route="three", metadata=of).result(30)
    assert [step.model for step in again.decision.plan.steps] == ["medium", "large"]
    other = {"session": "s-1", "tenant": "other"}
    assert client.submit("hello", route="three", metadata=other).result(30).model == "small"
    assert store.get(session_key("other", "s-1")) is None


def test_a_model_that_was_down_escalates_no_session(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    says(yard, medium="good", judge="9")
    yard.fake.always("small", Reply(status=503))
    client.submit("hello", route="three", metadata={"session": "s-2"}).result(30)
    assert store.get(session_key(None, "s-2")) is None


# -- ensembles


def test_most_votes_win(yard: Workers, client: Client, store: redis.Redis) -> None:
    says(yard, small="42", medium="41", large="The answer is 42.")

    answer = client.submit("hello", route="vote").result(30)

    assert (answer.model, answer.text) == ("small", "42")
    assert [draft.model for draft in answer.drafts] == ["medium", "large"]
    assert answer.usage == USAGE + USAGE + USAGE
    assert answer.cost_usd == pytest.approx((1 + 2 + 4) * CALL_USD)
    assert sorted(attempt.model for attempt in answer.attempts) == ["large", "medium", "small"]
    assert not store.exists(JOIN_KEY_PREFIX + answer.id)
    assert sorted(entry["kind"] for entry in entries(store)) == ["member"] * 3 + ["request"]


def test_a_judge_picks_the_best(yard: Workers, client: Client, store: redis.Redis) -> None:
    says(yard, small="a", medium="b", large="c", judge="2")
    answer = client.submit("hello", route="best").result(30)
    assert (answer.model, answer.text) == ("medium", "b")
    assert answer.cost_usd == pytest.approx((1 + 2 + 4 + 8) * CALL_USD)
    assert answer.attempts[-1].model == "judge"

    yard.fake.always("judge", Reply(status=401))
    assert client.submit("hello", route="best").result(30).model == "small"


def test_all_answers_are_put_together_and_by_a_function(yard: Workers, client: Client) -> None:
    says(yard, small="first", medium="2nd", large="third")
    answer = client.submit("hello", route="all").result(30)
    assert [answer.text.index(text) for text in ("first", "2nd", "third")] == sorted(
        answer.text.index(text) for text in ("first", "2nd", "third")
    )
    assert len(answer.drafts) == 3
    assert client.submit("hello", route="function").result(30).text == "2nd"


def test_a_function_that_never_ends_is_a_dead_letter_and_holds_nobody_up(client: Client) -> None:
    with pytest.raises(RequestFailed) as told:
        client.submit("hello", route="hanging").result(60)
    assert told.value.reason == "exhausted"
    assert "'hanging_combine:hang' took more than 2 s" in str(told.value)
    assert client.submit("hello", route="function").result(30).text


def test_an_ensemble_does_without_a_member_that_fails(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    says(yard, small="42", large="42")
    yard.fake.always("medium", Reply(status=401))

    answer = client.submit("hello", route="vote").result(30)

    assert answer.text == "42"
    assert [draft.model for draft in answer.drafts] == ["large"]
    assert sorted((each.model, each.kind) for each in answer.attempts) == [
        ("large", None),
        ("medium", "denied"),
        ("small", None),
    ]


def test_when_all_members_fail_the_request_is_one_dead_letter(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    before = store.hlen(DEAD_LETTERS_KEY)
    yard.fake.always("*", Reply(status=503))
    handle = client.submit("hello", route="vote")

    with pytest.raises(RequestFailed, match="no member of the ensemble answered") as failed:
        handle.result(30)

    assert failed.value.reason == "exhausted"
    assert sorted(each["model"] for each in failed.value.attempts) == sorted(
        ["small", "medium", "large"] * 2
    )
    assert store.hlen(DEAD_LETTERS_KEY) == before + 1
    assert store.hexists(DEAD_LETTERS_KEY, handle.id)


def test_a_quorum_is_enough_and_the_straggler_is_only_recorded(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    says(yard, small="a", medium="b")
    gate = Gate()
    yard.fake.always("large", Reply(gate=gate, text="late", usage=USAGE))

    handle = client.submit("hello", route="quorum")
    answer = handle.result(30)
    gate.open()

    assert [draft.model for draft in answer.drafts] == ["small", "medium"]
    eventually(lambda: [entry["model"] for entry in entries(store)][-1:] == ["large"])
    assert handle.result(0) == answer


def test_an_ensemble_goes_on_without_those_that_are_late(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    says(yard, small="a", large="c")
    gate = Gate()
    yard.fake.always("medium", Reply(gate=gate, text="late"))

    answer = client.submit("hello", route="impatient").result(30)
    gate.open()

    assert [draft.model for draft in answer.drafts] == ["small", "large"]
    assert answer.timings.total_ms >= 1_000


def test_a_member_of_what_was_cancelled_is_not_called(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    # Twenty calls of each model run at a time: the last request's members wait.
    running = client.submit_many([f"hello {number}" for number in range(30)], route="vote")
    yard.fake.wait_until(lambda fake: fake.in_flight == 60)
    waiting = running[-1]
    assert waiting.cancel()
    gate.open()

    for handle in running[:-1]:
        handle.result(60)
    with pytest.raises(RequestRevoked):
        waiting.result(0)
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    assert not store.exists(JOIN_KEY_PREFIX + waiting.id)
    assert not [call for call in yard.fake.calls if (call.request_id or "").startswith(waiting.id)]


def test_each_part_has_a_row_of_its_own_in_flower(yard: Workers, client: Client) -> None:
    says(yard, small="a", medium="a", large="a")
    heard: dict[str, dict[str, Any]] = {}

    def hear(event: dict[str, Any]) -> None:
        if str(event["type"]).startswith("task-"):
            heard.setdefault(event["uuid"], {}).update(event)

    def listen() -> None:
        with contextlib.suppress(TimeoutError):
            receiver.capture(limit=None, timeout=30)

    def types(*rows: str) -> set[str]:
        return {str(heard.get(row, {}).get("type")) for row in rows}

    with (
        make_app("operator", yard.broker_url, current=False) as app,
        app.connection_for_read() as connection,
    ):
        receiver = app.events.Receiver(connection, handlers={"*": hear})
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        eventually(
            lambda: client.submit("hello").result(30) and heard,
            interval_s=0.3,
            message="the receiver hears",
        )
        id = client.submit("hello", route="vote").result(30).id
        parts = [f"{id}:{number}" for number in (1, 2, 3)]
        eventually(
            lambda: types(*parts, id) == {"task-succeeded"}, message="all parts are heard of"
        )
        receiver.should_stop = True
        client.submit("hello").result(30)  # something to hear
        listener.join(20)

    rows = [(heard[part]["name"], heard[part]["parent_id"]) for part in parts]
    assert rows == [("model.small", id), ("model.medium", id), ("model.large", id)]
    assert "ensemble of small, medium, large by vote" in heard[f"{id}:route"]["result"]


# -- shadows


@pytest.mark.parametrize("reply", [Reply(text="of the shadow", usage=USAGE), Reply(status=401)])
def test_a_shadow_is_recorded_and_nobody_sees_it(
    yard: Workers, client: Client, store: redis.Redis, reply: Reply
) -> None:
    before = store.hlen(DEAD_LETTERS_KEY)
    says(yard, small="an answer")
    yard.fake.always("large", reply)

    handle = client.submit("hello", route="shadowed")
    answer = handle.result(30)

    assert (answer.model, answer.text, answer.drafts) == ("small", "an answer", ())
    assert answer.cost_usd == pytest.approx(CALL_USD)
    eventually(lambda: len(entries(store)) == 2)
    by_kind = {entry["kind"]: entry for entry in entries(store)}
    assert by_kind["shadow"]["id"] == by_kind["request"]["id"] == handle.id
    assert by_kind["shadow"]["model"] == "large"
    assert by_kind["shadow"]["outcome"] == ("answered" if reply.status == 200 else "failed")
    assert store.hlen(DEAD_LETTERS_KEY) == before
    assert not list(store.scan_iter("celery-task-meta-*shadow*"))
