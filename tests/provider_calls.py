"""One call of a provider as a worker makes it: catalog, balancer, provider, HTTP."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model_workers.caller import Answered, Caller
from modelyard.advance import Die
from modelyard.catalog import Catalog
from modelyard.errors import FailureKind
from modelyard.messages import Attempt, Call, DeadReason, Request
from modelyard.plan import Decision, Plan, Step

K = FailureKind
KEY = "key-that-nobody-may-read-0123456789"
SAID = "The yard is full."


@dataclass(frozen=True)
class Kind:
    """A provider: what its endpoints need, and its answers that are well and that refuse."""

    name: str
    well: Callable[[str], dict[str, Any]]
    refusing: tuple[int, Any]
    lost: str
    endpoint: Mapping[str, Any] = field(default_factory=dict)


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return {"model": "m", "choices": [{**choice, "finish_reason": "stop"}]}


def claude(text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
    }


def converse(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": [{"text": text}]}
    return {"output": {"message": message}, "stopReason": "end_turn"}


def gemini(text: str) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text}]}
    return {"candidates": [{"content": content, "finishReason": "STOP"}]}


FILTERED = {"error": {"code": "content_filter", "message": "The response was filtered."}}
REFUSING = {"choices": [{"message": {"role": "assistant", "refusal": "I'd rather not."}}]}
KINDS = {
    kind.name: kind
    for kind in (
        Kind("openai", completion, (200, REFUSING), "no choices[0].message"),
        Kind(
            "azure",
            completion,
            (400, FILTERED),
            "no choices[0].message",
            {"api_version": "2024-10-21"},
        ),
        Kind(
            "anthropic",
            claude,
            (200, {"type": "message", "content": [], "stop_reason": "refusal"}),
            "no content",
        ),
        Kind(
            "bedrock",
            converse,
            (200, {**converse(""), "stopReason": "guardrail_intervened"}),
            "no output.message.content",
            {"region": "eu-west-1"},
        ),
        Kind(
            "vertex",
            gemini,
            (200, {"promptFeedback": {"blockReason": "SAFETY"}}),
            "no candidates",
            {"project": "p", "region": "europe-west4"},
        ),
    )
}


async def called(kind: Kind, base_url: str, key: str = KEY, **more: Any) -> Answered | Attempt:
    """Call once as a worker does; return the answer, or the attempt that failed."""
    stream = more.pop("stream", False)
    endpoint = {"base_url": base_url, "api_key": key, **kind.endpoint, **more}
    model = {
        "name": "small",
        "provider": kind.name,
        "endpoints": [endpoint],
        "retry": {"calls": 1},
        "timeout_s": 60,
        "stream": stream,
    }
    catalog = Catalog.model_validate(
        {"models": [model], "routes": {"default": {"otherwise": ["small"]}}}
    )
    decision = Decision(
        route="default",
        intent="other",
        why="",
        input_tokens=1,
        decided_at=0.0,
        plan=Plan(steps=(Step(model="small"),)),
    )
    call = Call(
        request=Request.of("Is there room in the yard for one more train?"), decision=decision
    )
    caller = Caller()
    try:
        outcome = await caller.call(catalog, "r-1", "", call, call.request)
    finally:
        await caller.aclose()
    if isinstance(outcome, Answered):
        return outcome
    (attempt,) = outcome.attempts
    assert isinstance(outcome.move, Die)
    refused = attempt.kind is K.REFUSED
    assert outcome.move.reason is (DeadReason.REFUSED if refused else DeadReason.EXHAUSTED)
    assert KEY not in attempt.message
    assert len(attempt.message) < 500
    return attempt


async def failed(kind: Kind, base_url: str, **more: Any) -> Attempt:
    outcome = await called(kind, base_url, **more)
    assert isinstance(outcome, Attempt), "it was answered"
    return outcome


async def answered(kind: Kind, base_url: str, **more: Any) -> str:
    outcome = await called(kind, base_url, **more)
    assert isinstance(outcome, Answered), outcome
    return outcome.completion.text
