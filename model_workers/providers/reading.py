"""What answers of Anthropic and Bedrock have in common: tool calls, and what is no answer."""

import json
from collections.abc import Mapping
from typing import Any

from model_workers.providers.base import Failure
from model_workers.providers.clean import encodable
from model_workers.providers.complaint import load
from modelyard.errors import FailureKind
from modelyard.messages import ToolCall


def read_object(status: int, body: bytes) -> dict[str, Any] | Failure:
    """Return the JSON object that a body is."""
    data = load(body)
    if isinstance(data, dict):
        return data
    what = "JSON, but no object" if data is not None else "not JSON"
    begin = body[:80].decode("utf-8", "replace")
    return Failure(FailureKind.RETRYABLE, f"the answer is {what}: {begin!r}", status)


def redirected(status: int, headers: Mapping[str, str]) -> Failure:
    """Return the failure for a 3xx: following it could send the key elsewhere."""
    target = headers.get("location", "nowhere").split("?", 1)[0]
    problem = f"HTTP {status}: redirects to {target}; base_url should be the final address"
    return Failure(FailureKind.DENIED, problem, status)


def read_call(
    id: object,
    name: object,
    arguments: object,
    number: int,
    opaque: dict[str, Any] | None = None,
) -> ToolCall | None:
    """Return a call of a tool, or None if it is none; `arguments` are JSON text or an object."""
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(name, str) or not name or not isinstance(arguments, str):
        return None
    arguments = encodable(arguments).strip() or "{}"
    if not isinstance(load(arguments), dict):
        return None
    told = encodable(id) if isinstance(id, str) and id else f"call_{number}"
    return ToolCall.of(told, encodable(name), arguments, opaque)


def no_answer(
    text: str, calls: tuple[ToolCall | None, ...], finish_reason: str, status: int
) -> Failure | None:
    """Return why this is no answer, or None if it is one. A model may answer with "".

    A call that is None could not be read.
    """
    if None in calls and finish_reason == "length":
        problem = "the output limit was spent within a tool call: raise max_tokens"
        return Failure(FailureKind.PERMANENT, problem, status)
    if None in calls:
        problem = "the answer has a tool call without a name, or with arguments that are none"
        return Failure(FailureKind.RETRYABLE, problem, status)
    if text or calls:
        return None
    if finish_reason == "length":
        problem = "the output limit was spent before any text: raise max_tokens"
        return Failure(FailureKind.PERMANENT, problem, status)
    if finish_reason == "tool_calls":
        problem = "the answer ends for tool calls and has none"
        return Failure(FailureKind.RETRYABLE, problem, status)
    return None


def count(data: object, key: str) -> int:
    """Return how many tokens `data` says under `key`; 0 if it does not."""
    value = data.get(key) if isinstance(data, dict) else None
    return int(value) if isinstance(value, int) and value > 0 else 0
