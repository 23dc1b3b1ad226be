"""What becomes of an answer that stands: the steps, one more call, or the reason why not."""

import threading
from typing import Any

import pytest

from model_workers import finish as finishing
from model_workers.caller import Answered, Failed
from model_workers.finish import Standing, Unfinished, finish
from model_workers.providers.base import Completion
from modelyard.advance import Die
from modelyard.catalog import Model, Price
from modelyard.messages import Attempt, Call, DeadReason, Draft, Part, Request, ToolCall, Usage
from modelyard.plan import Decision, Plan

MODEL = Model(name="a", provider="extractive", price=Price(output_usd_per_mtok=1e6))
FIRST = Attempt(model="a", endpoint="here", started_at=1.0, duration_ms=1.0)
never = threading.Event()


def standing(text: str, *after: Any, model: str = "a", **draft: Any) -> Standing:
    plan = Plan.model_validate({"steps": [{"model": "b"}, {"model": "a"}], "after": after})
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=1.0, plan=plan
    )
    call = Call(request=Request.of("hello"), decision=decision, step=0, part=Part.JUDGE)
    return Standing(call, (FIRST,), Draft(model=model, text=text, cost_usd=1.0, **draft))


class Asked:
    """Answers with these texts, and keeps what was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.calls: list[tuple[Call, Request]] = []

    async def __call__(self, call: Call, request: Request) -> Answered | Failed:
        self.calls.append((call, request))
        completion = Completion(self.texts.pop(0), "a-1", usage=Usage(output_tokens=2))
        return Answered(MODEL, (*call.attempts, FIRST), completion)


async def test_what_is_fit_needs_no_call() -> None:
    ask = Asked()
    found = await finish(standing(" {'a': 1} ", "json"), ask)
    assert isinstance(found, Standing)
    assert (found.draft.text, found.draft.processed) == ('{"a": 1}', ("json",))
    assert ask.calls == []


async def test_the_model_that_answered_is_asked_again_whoever_s_turn_it_is() -> None:
    ask = Asked("[1]")
    found = await finish(standing("one", "json"), ask)
    assert isinstance(found, Standing)
    ((call, request),) = ask.calls
    assert (call.model, call.part, call.attempts) == ("a", Part.ANSWER, (FIRST,))
    assert [turn.role for turn in request.messages] == ["user", "assistant", "user"]
    assert found.draft.text == "[1]"
    assert [each.cost_usd for each in found.paid] == [1.0, 2.0]
    assert [(each.text, each.unfit) for each in found.others] == [("one", True)]
    assert len(found.attempts) == 2


async def test_an_answer_without_text_is_not_quoted() -> None:
    ask = Asked("[1]")
    await finish(standing(" ", "json"), ask)
    assert [turn.role for turn in ask.calls[0][1].messages] == ["user", "user"]


async def test_it_is_asked_once_and_both_answers_are_told() -> None:
    found = await finish(standing("one", "json"), Asked("two", "[3]"))
    assert isinstance(found, Unfinished)
    assert found.may_go_on
    assert [each.text for each in found.drafts] == ["one", "two"]
    assert found.die == Die(DeadReason.EXHAUSTED, "a: after: json: it has no JSON")


async def test_the_answer_of_several_models_is_not_asked_for_again() -> None:
    ask = Asked("[1]")
    found = await finish(standing("one", "json", model="a+b"), ask)
    assert isinstance(found, Unfinished)
    assert ask.calls == []


async def test_after_the_deadline_it_is_expired() -> None:
    expired = Die(DeadReason.EXPIRED, "its deadline passed before the next call")

    async def ask(call: Call, request: Request) -> Answered | Failed:
        return Failed(call.attempts, expired)

    found = await finish(standing("one", "json"), ask)
    assert isinstance(found, Unfinished)
    assert found.die == expired


async def test_a_call_of_a_tool_is_no_json_yet_and_is_redacted_all_the_same() -> None:
    tool = ToolCall.of("1", "look", "{}")
    found = await finish(standing("for a@b.org", "json", "redact", tool_calls=(tool,)), Asked())
    assert isinstance(found, Standing)
    assert found.draft.text == "for [email]"


def hang(text: str) -> str:
    never.wait()
    return text


async def test_a_function_that_hangs_ends_the_request_and_not_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finishing, "FINISH_S", 0.01)
    name = f"{__name__}:hang"
    found = await finish(standing("one", {"function": name}), Asked())
    never.set()
    assert isinstance(found, Unfinished)
    assert not found.may_go_on
    assert found.die.message == f"after.function {name!r} took more than 0.01 s"
