"""What is done to final answers, through real processes."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from strategy_yard import strategy_yard
from workers import Workers

from modelyard import Client, RequestFailed
from modelyard.messages import Usage
from modelyard.testing import Cue, Reply

ROUTES = """
routes:
  default:
    after: [strip_reasoning, redact]
    otherwise: [small]
  total: {otherwise: {models: [small, large], after: [{json: {schema:
    {type: object, required: [total]}}}]}}
  alone: {otherwise: {models: [small], after: [json]}}
  plain: {after: [json], otherwise: {models: [small], after: []}}
  judged: {after: [json], otherwise: {models: [small, large], strategy: cascade,
    accept: {judge: judge}}}
  vote: {after: [json, redact], otherwise: {models: [small, medium, large], strategy: ensemble}}
  all: {after: [json], otherwise: {models: [small, large], strategy: ensemble,
    combine: {how: concatenate}}}
  function: {after: [{function: "test_post:shout"}], otherwise: [small]}
  broken: {after: [{function: "test_post:fails"}], otherwise: [small, large]}
"""

USAGE = Usage(input_tokens=10, output_tokens=5)
CALL_USD = 15e-6
"""What one call of `small` costs; `medium` is twice as dear, `large` four times, `judge` eight."""


def shout(text: str) -> str:
    return text.upper()


def fails(text: str) -> str:
    raise LookupError(text)


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("yard")
    with strategy_yard(folder, routes=ROUTES, env={"PYTHONPATH": python_path()}) as yard:
        yield yard


def python_path() -> str:
    """Where the workers find this module, and all that this process finds."""
    return os.pathsep.join([str(Path(__file__).parent), *sys.path])


@pytest.fixture
def yard(module_yard: Workers) -> Workers:
    module_yard.fake.reset()
    return module_yard


def says(yard: Workers, model: str, *texts: str) -> None:
    """Have a model say this, one after the other."""
    yard.fake.script(model, [Reply(text=text, usage=USAGE) for text in texts])


def called(yard: Workers) -> list[str]:
    return [call.model for call in yard.fake.calls]


def recorded(into: list[Mapping[str, Any]], *texts: str) -> Cue:
    """Return a cue that says this, one after the other, and keeps what it was asked."""

    def cue(body: Mapping[str, Any]) -> Reply:
        into.append(body)
        return Reply(text=texts[len(into) - 1], usage=USAGE)

    return cue


def test_an_answer_says_what_was_done_to_it(yard: Workers, client: Client) -> None:
    says(yard, "small", "<think>who?</think>Ask a@b.org", "Ask nobody.")
    answer = client.submit("hello").result(30)
    assert (answer.text, answer.processed) == ("Ask [email]", ("strip_reasoning", "redact"))
    answer = client.submit("hello").result(30)
    assert (answer.text, answer.processed) == ("Ask nobody.", ())


def test_a_request_that_names_its_models_has_its_route_s_steps(
    yard: Workers, client: Client
) -> None:
    says(yard, "large", "Ask a@b.org")
    assert client.submit("hello", models=["large"]).result(30).text == "Ask [email]"


def test_a_target_s_own_steps_are_in_place_of_its_route_s(yard: Workers, client: Client) -> None:
    says(yard, "small", "no JSON")
    assert client.submit("hello", route="plain").result(30).text == "no JSON"


def test_json_is_repaired_without_another_call(yard: Workers, client: Client) -> None:
    says(yard, "small", "Here:\n```json\n{'total': 3,}\n```")
    answer = client.submit("hello", route="total").result(30)
    assert (answer.text, answer.processed) == ('{"total": 3}', ("json",))
    assert called(yard) == ["small"]


def test_a_model_is_told_once_what_was_wrong_with_its_answer(yard: Workers, client: Client) -> None:
    bodies: list[Mapping[str, Any]] = []
    yard.fake.always("small", recorded(bodies, '{"sum": 3}', '{"total": 3}'))
    answer = client.submit("add up", route="total").result(30)

    assert (answer.text, answer.model, answer.processed) == ('{"total": 3}', "small", ())
    assert [attempt.model for attempt in answer.attempts] == ["small", "small"]
    assert answer.cost_usd == pytest.approx(2 * CALL_USD)
    assert answer.usage == USAGE + USAGE
    (draft,) = answer.drafts
    assert (draft.text, draft.unfit) == ('{"sum": 3}', True)
    assert draft.verdict == "after: json: its JSON breaks required"
    first, second = (body["messages"] for body in bodies)
    assert second[:-2] == first
    assert second[-2] == {"role": "assistant", "content": '{"sum": 3}'}
    assert "its JSON breaks required" in second[-1]["content"]
    assert '"required": ["total"]' in second[-1]["content"]


def test_after_a_second_failure_it_is_the_next_model_s_turn(yard: Workers, client: Client) -> None:
    says(yard, "small", "no", "still no")
    says(yard, "large", '{"total": 4}')
    answer = client.submit("hello", route="total").result(30)
    assert (answer.text, answer.model) == ('{"total": 4}', "large")
    assert called(yard) == ["small", "small", "large"]
    assert [draft.text for draft in answer.drafts] == ["no", "still no"]
    assert answer.cost_usd == pytest.approx(6 * CALL_USD)


def test_where_nothing_is_left_it_is_a_dead_letter_that_says_so(
    yard: Workers, client: Client
) -> None:
    says(yard, "small", "secret", "secret again")
    with pytest.raises(RequestFailed, match="small: after: json: it has no JSON") as failed:
        client.submit("hello", route="alone").result(30)
    assert failed.value.reason == "exhausted"
    assert len(failed.value.attempts) == 2
    assert "secret" not in str(failed.value)


def test_an_answer_that_is_not_fit_does_not_stand_for_a_model_that_fails(
    yard: Workers, client: Client
) -> None:
    says(yard, "small", "no", "still no")
    yard.fake.always("large", Reply(status=500))
    with pytest.raises(RequestFailed) as failed:
        client.submit("hello", route="total").result(30)
    assert failed.value.reason == "exhausted"


def test_a_model_that_fails_when_it_is_asked_again_is_followed_by_the_next(
    yard: Workers, client: Client
) -> None:
    yard.fake.script("small", [Reply(text="no"), Reply(status=400), Reply(status=400)])
    says(yard, "large", '{"total": 5}')
    answer = client.submit("hello", route="total").result(30)
    assert (answer.model, called(yard)) == ("large", ["small", "small", "large"])


def test_an_answer_that_a_judge_accepted_is_asked_for_again(yard: Workers, client: Client) -> None:
    says(yard, "small", "three", "3")
    says(yard, "judge", "9")
    answer = client.submit("hello", route="judged").result(30)
    assert (answer.text, answer.model) == ("3", "small")
    assert called(yard) == ["small", "judge", "small"]
    assert answer.cost_usd == pytest.approx((1 + 8 + 1) * CALL_USD)


def test_the_winner_of_an_ensemble_is_asked_again_and_the_others_are_redacted(
    yard: Workers, client: Client
) -> None:
    says(yard, "small", "same", '"a@b.org"')
    says(yard, "medium", "same")
    says(yard, "large", "c@d.org")
    answer = client.submit("hello", route="vote").result(30)
    assert (answer.text, answer.model) == ('"[email]"', "small")
    assert "[email]" in [draft.text for draft in answer.drafts]
    assert not any("@" in draft.text for draft in answer.drafts)
    assert answer.cost_usd == pytest.approx((1 + 2 + 4 + 1) * CALL_USD)
    assert len(answer.attempts) == 4


def test_what_several_models_wrote_is_nobody_s_to_write_again(
    yard: Workers, client: Client
) -> None:
    says(yard, "small", "one")
    says(yard, "large", "two")
    with pytest.raises(RequestFailed, match="after: json: it has no JSON"):
        client.submit("hello", route="all").result(30)
    assert sorted(called(yard)) == ["large", "small"]


def test_a_function_makes_the_text(yard: Workers, client: Client) -> None:
    says(yard, "small", "hello")
    answer = client.submit("hi", route="function").result(30)
    assert (answer.text, answer.processed) == ("HELLO", ("function",))


def test_a_function_that_fails_is_a_dead_letter_and_no_other_model_is_paid(
    yard: Workers, client: Client
) -> None:
    says(yard, "small", "private")
    why = "after.function 'test_post:fails' failed: LookupError"
    with pytest.raises(RequestFailed, match=why) as failed:
        client.submit("hi", route="broken").result(30)
    assert "private" not in str(failed.value)
    assert called(yard) == ["small"]
