"""What an answer of Gemini's generateContent means. The tables are in `vertex`."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from model_workers.providers.base import Completion, Failure
from model_workers.providers.clean import encodable
from model_workers.providers.complaint import load
from model_workers.providers.events import is_event_stream, read_events
from model_workers.providers.gemini_call import SIGNATURE
from model_workers.providers.http import duration_s, retry_after_s
from model_workers.providers.opaque import seal
from model_workers.providers.openai import LEAST_LOG
from model_workers.providers.reading import count, no_answer, read_call, read_object, redirected
from modelyard.errors import FailureKind
from modelyard.messages import ToolCall, Usage

_TOO_LONG: Final = re.compile(
    r"token count|exceeds? the (maximum|max) (number of )?(input )?tokens"
    r"|(payload|request) size exceeds|context (length|window)|(prompt|input|request) is too long",
    re.IGNORECASE,
)
_SPENT: Final = re.compile(
    r"per[ _-]?day|daily (limit|quota)|credits? (are|is|have been) (depleted|exhausted|used up)"
    r"|spend(ing)? (cap|limit)|billing .{0,60}(disabled|not active|closed)",
    re.IGNORECASE,
)
_STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_WAITS: Final = (FailureKind.LIMITED, FailureKind.RETRYABLE)
_FINISH: Final[Mapping[str, str]] = {
    "": "stop",
    "STOP": "stop",
    "FINISH_REASON_UNSPECIFIED": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
}
_FILTERED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MODEL_ARMOR",
        "ESCALATION",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    }
)
_BROKEN: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"}
)
"""The model wrote what it could not finish: it may write it better when it is asked again."""


def read_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    model: str,
    now: float,
    *,
    by: str = "",
) -> Completion | Failure:
    """Return what a whole response means; `now` is seconds since the epoch.

    `by` is under whose name signatures are kept with tool calls (`providers.opaque`).
    """
    if status // 100 == 3:
        return redirected(status, headers)
    if status // 100 != 2:
        return _read_error(status, headers, body, now)
    data = join_events(body, status) if is_event_stream(headers) else read_object(status, body)
    return data if isinstance(data, Failure) else read_answer(status, data, model, by)


# -- errors


def _read_error(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
    data = load(body)
    if isinstance(data, list) and data:
        data = data[0]  # How a stream without events begins, and ends, with an error.
    said = data.get("error") if isinstance(data, dict) else None
    if not isinstance(said, dict):
        said = {"message": said if isinstance(said, str) else body.decode("utf-8", "replace")}
    failure = _failure(status, said, f"HTTP {status}")
    if failure.retry_after_s is not None or failure.kind not in _WAITS:
        return failure
    return replace(failure, retry_after_s=retry_after_s(headers, now))


def _error_within(said: Mapping[str, Any], where: str) -> Failure:
    """Return what an error means that came instead of an answer, or in the middle of one."""
    code = said.get("code")
    if not isinstance(code, int) or not 400 <= code <= 599:
        code = _STATUS.get(_text(said.get("status")), 502)
    return _failure(code, said, f"error {code}{where}")


def _failure(status: int, said: Mapping[str, Any], begin: str) -> Failure:
    name, message = _text(said.get("status")), _text(said.get("message"))
    details = [each for each in _list(said.get("details")) if isinstance(each, dict)]
    kind = classify(status, name, message, details)
    wait_s = None
    if kind in _WAITS:
        wait_s = next(filter(None, map(_delay_s, details)), None)
    words = ": ".join(part for part in (name, message) if part)
    return Failure(kind, f"{begin} {words}".rstrip(), status, wait_s)


def classify(
    status: int, name: str, message: str, details: list[dict[str, Any]] | None = None
) -> FailureKind:
    """Return what an error means, by the table in `vertex`; `name` is its canonical code's."""
    details = details or []
    kind = FailureKind.PERMANENT
    if status == 429:
        # "Check your plan and billing details" stands in those of a minute's limit, too.
        spent = _SPENT.search(message) or any(map(_is_daily, details))
        kind = FailureKind.DENIED if spent else FailureKind.LIMITED
    elif status == 413 or (status == 400 and _TOO_LONG.search(message)):
        kind = FailureKind.TOO_LONG
    elif status in (401, 402, 403, 404) or (status == 400 and _is_locked(name, details)):
        kind = FailureKind.DENIED
    elif status in (408, 409, 425, 499) or status >= 500:
        kind = FailureKind.RETRYABLE
    return kind


def _is_locked(name: str, details: list[dict[str, Any]]) -> bool:
    """Whether a person has to act: the key is wrong, or the project is not as it has to be."""
    wrong_key = any(_text(each.get("reason")).startswith("API_KEY_") for each in details)
    return wrong_key or name == "FAILED_PRECONDITION"


def _is_daily(detail: Mapping[str, Any]) -> bool:
    violations = _list(detail.get("violations"))
    return any("PerDay" in _text(_object(each).get("quotaId")) for each in violations)


def _delay_s(detail: Mapping[str, Any]) -> float | None:
    """The seconds of a google.rpc.RetryInfo, which look like `47s` or `0.250s`."""
    if not _text(detail.get("@type")).endswith("google.rpc.RetryInfo"):
        return None
    return duration_s(_text(detail.get("retryDelay")))


# -- answers


def join_events(body: bytes, status: int) -> dict[str, Any] | Failure:
    """Return the answer whose pieces are the events of `body`, in the shape of a whole one.

    A failure is an error that was sent in the middle, what is no JSON, and a stream that ends
    before the answer does.
    """
    whole: dict[str, Any] = {}
    candidate: dict[str, Any] = {}
    parts: list[Any] = []
    chosen: list[Any] = []
    for event in read_events(body):
        data = load(event.data)
        if isinstance(data, list) and data:
            data = data[0]
        if not isinstance(data, dict):
            problem = f"the answer has an event that is no JSON object: {event.data[:80]!r}"
            return Failure(FailureKind.RETRYABLE, problem, status)
        if isinstance(said := data.get("error"), dict):
            return _error_within(said, " in the middle of the answer")
        for key in ("modelVersion", "responseId", "usageMetadata", "promptFeedback"):
            if data.get(key):
                whole[key] = data[key]
        piece = _first(data)
        if isinstance(reason := piece.get("finishReason"), str) and reason:
            candidate |= {
                key: piece[key] for key in ("finishReason", "finishMessage") if key in piece
            }
        parts += _list(_object(piece.get("content")).get("parts"))
        chosen += _list(_object(piece.get("logprobsResult")).get("chosenCandidates"))
    if not candidate and not _object(whole.get("promptFeedback")).get("blockReason"):
        problem = "half an answer: the stream ended without a finishReason"
        return Failure(FailureKind.RETRYABLE, problem, status)
    candidate |= {"content": {"parts": parts}, "logprobsResult": {"chosenCandidates": chosen}}
    return {**whole, "candidates": [candidate]}


def read_answer(
    status: int, data: Mapping[str, Any], model: str, by: str = ""
) -> Completion | Failure:
    """Return what a whole answer says; `model` stands in if it names none."""
    if isinstance(said := data.get("error"), dict) and not data.get("candidates"):
        return _error_within(said, "")
    feedback = _object(data.get("promptFeedback"))
    if blocked := _text(feedback.get("blockReason")):
        words = ": ".join(filter(None, (blocked, _text(feedback.get("blockReasonMessage")))))
        return Failure(FailureKind.REFUSED, f"the prompt was blocked: {words}", status)
    candidate = _first(data)
    if not candidate:
        return Failure(FailureKind.RETRYABLE, "the answer has no candidates", status)
    listed = [
        part
        for part in _list(_object(candidate.get("content")).get("parts"))
        if isinstance(part, dict) and part.get("thought") is not True
    ]
    texts = [part["text"] for part in listed if isinstance(part.get("text"), str)]
    calls = _calls(listed, _text(data.get("responseId")), by)
    if failure := _no_answer(candidate, texts, calls, status):
        return failure
    ended = _text(candidate.get("finishReason"))
    finish_reason = "content_filter" if ended in _FILTERED else _FINISH.get(ended, ended.lower())
    if calls and finish_reason == "stop":
        finish_reason = "tool_calls"
    return Completion(
        text=encodable("".join(texts)),
        provider_model=encodable(_text(data.get("modelVersion"))) or model,
        usage=read_usage(data.get("usageMetadata")),
        finish_reason=encodable(finish_reason),
        confidence=read_confidence(candidate),
        tool_calls=tuple(call for call in calls if call is not None),
    )


def _calls(parts: list[dict[str, Any]], response_id: str, by: str) -> tuple[ToolCall | None, ...]:
    calls: list[ToolCall | None] = []
    for part in parts:
        if "functionCall" not in part:
            continue
        asked = _object(part["functionCall"])
        name, args, number = asked.get("name"), asked.get("args") or {}, len(calls)
        # Most answers have no ids. Those of a whole conversation have to differ, so a number is
        # none; and the same answer has to have the same ones.
        made = json.dumps([response_id, number, name, args], sort_keys=True)
        id = asked.get("id") or f"call_{hashlib.sha256(made.encode()).hexdigest()[:24]}"
        opaque = seal(by, {SIGNATURE: _text(part.get(SIGNATURE))})
        calls.append(read_call(id, name, args, number, opaque))
    return tuple(calls)


def _no_answer(
    candidate: Mapping[str, Any], texts: list[str], calls: tuple[ToolCall | None, ...], status: int
) -> Failure | None:
    """Return why a candidate is no answer, or None if it is one."""
    ended = _text(candidate.get("finishReason"))
    about = ": ".join(filter(None, (ended, _text(candidate.get("finishMessage")))))
    if ended in _BROKEN:
        return Failure(FailureKind.RETRYABLE, f"the model's output is broken: {about}", status)
    text = "".join(texts)
    if ended in _FILTERED:
        words = f"the provider filtered the whole answer: {about}"
        return None if text else Failure(FailureKind.REFUSED, words, status)
    known = _FINISH.get(ended)
    if failure := no_answer(text, calls, known or "stop", status):
        return failure
    if known is None and not text and not calls:
        kind = FailureKind.RETRYABLE if ended == "OTHER" else FailureKind.PERMANENT
        return Failure(kind, f"the answer ended without text: {about}", status)
    if not texts and not calls:
        return Failure(FailureKind.RETRYABLE, "the answer has no text in its parts", status)
    return None


def read_confidence(candidate: Mapping[str, Any]) -> float | None:
    """Return the geometric mean of the tokens' probabilities, or None if none were sent."""
    said = [candidate.get("avgLogprobs")]
    if said == [None]:
        result = _object(candidate.get("logprobsResult"))
        said = [
            _object(each).get("logProbability") for each in _list(result.get("chosenCandidates"))
        ]
    # A probability over 1, by rounding, is 1. The bounds keep what no probability is from raising.
    logs = [
        max(LEAST_LOG, min(0.0, log))
        for log in said
        if isinstance(log, int) or (isinstance(log, float) and not math.isnan(log))
    ]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def read_usage(data: object) -> Usage:
    """Return the tokens; what was thought is not among `candidatesTokenCount` there.

    https://ai.google.dev/api/generate-content#UsageMetadata
    """
    prompt = count(data, "promptTokenCount") + count(data, "toolUsePromptTokenCount")
    thought = count(data, "thoughtsTokenCount")
    return Usage(
        input_tokens=prompt,
        output_tokens=count(data, "candidatesTokenCount") + thought,
        cached_input_tokens=min(count(data, "cachedContentTokenCount"), prompt),
        reasoning_tokens=thought,
    )


def _first(data: Mapping[str, Any]) -> dict[str, Any]:
    """The candidate of index 0, or nothing."""
    for candidate in _list(data.get("candidates")):
        if isinstance(candidate, dict) and candidate.get("index") in (0, None):
            return candidate
    return {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
