"""Models behind an OpenAI-compatible address: `POST {base_url}/chat/completions`.

What a failed call means. PERMANENT sends the request to its next model at once; INVALID ends it,
so only what no model could answer is INVALID. A rejected call costs nothing, a request that is
given up too early is lost.

| what came | kind | why |
| --- | --- | --- |
| 400, 413, 422 that speak of the context's length; 413; 429 "Request too large" | TOO_LONG | |
| 400, 403, 422 with the code of a content filter | REFUSED | |
| 400, 422 `invalid_type`, `missing_required_parameter` | INVALID | wrong in shape everywhere |
| 400, 422 otherwise | PERMANENT | most often a parameter that this model does not know |
| 401, 402, 403, 404 | DENIED | key, bill, access, name: wrong until a person acts |
| other 4xx | PERMANENT | |
| 408, 409, 425, 5xx | RETRYABLE | |
| 429 | LIMITED | with the wait that was asked for |
| 429 `insufficient_quota` and other unpaid bills | DENIED | waiting does not pay |
| 3xx | DENIED | base_url is wrong; following it could send the key elsewhere |
| no connection, reset, timeout, half an answer | RETRYABLE | |
| a certificate that is not accepted | DENIED | no retry mends it |
| a name that resolves to link-local addresses only | DENIED | not called, unless allowed |
| 200 that is not JSON, or JSON of another shape | RETRYABLE | a proxy's page, mostly |
| 200 with `error` and no choices (OpenRouter) | by the error's `code` | 502 if it has none |
| 200 with `refusal`, or no text and `content_filter` | REFUSED | |
| 200 without text at `finish_reason: length`, or with `function_call` | PERMANENT | same again |
| 200 with tool calls that no program can read | RETRYABLE | the model may write better ones |
| a stream with an error in it | by the error's `code` or `type` | 502 if it has none |
| a stream that ends without `finish_reason` | RETRYABLE | half an answer |
| an answer of more than 32 MiB | PERMANENT | |

Formats: https://platform.openai.com/docs/api-reference/chat and, for errors,
https://platform.openai.com/docs/guides/error-codes
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import httpx

from model_workers.providers.allowance import read_allowance
from model_workers.providers.base import Allowance, Completion, Failure
from model_workers.providers.clean import encodable
from model_workers.providers.complaint import (
    classify,
    complaint_in,
    load,
    read_complaint,
    status_within,
)
from model_workers.providers.events import is_event_stream
from model_workers.providers.http import retry_after_s
from model_workers.providers.opaque import author
from model_workers.providers.openai_chunks import join_chunks
from model_workers.providers.over_http import Dialect, OverHttp
from model_workers.providers.reading import redirected
from model_workers.providers.vendor_fields import give_back, keep_fields
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind
from modelyard.messages import Message, Request, ToolCall, Usage

OURS: Final = frozenset({"model", "messages", "stream", "stream_options"})
"""Parameters that a request can't set: the plan, the request and this provider decide them."""

LEAST_LOG: Final = -1e6


class OpenAIDialect(Dialect):
    """Chat completions of one model. User and password in `base_url` become basic authentication if
    there is no key. Implements `model_workers.providers.over_http.Dialect`.
    """

    def __init__(self, model: Model, endpoint: Endpoint) -> None:
        self._model = model
        self._author = author(model)
        self._key = endpoint.api_key.get_secret_value() if endpoint.api_key else ""

    def address(self, base: httpx.URL) -> httpx.URL:
        return base.copy_with(path=base.path.rstrip("/") + "/chat/completions")

    def headers(self, base: httpx.URL) -> Mapping[str, str]:
        if self._key:
            return {"authorization": f"Bearer {self._key}"}
        if base.userinfo:
            pair = f"{base.username}:{base.password}".encode()
            return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}

    def encode(self, request: Request) -> bytes:
        stream = self._model.stream
        return encode_call(self._model.provider_model, request, stream=stream, by=self._author)

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Completion | Failure:
        model = self._model.provider_model
        return read_response(status, headers, body, model, now, by=self._author)


class OpenAI(OverHttp):
    """Calls one model at one OpenAI-compatible endpoint: `OverHttp` in `OpenAIDialect`."""

    dialect = OpenAIDialect


def encode_call(model: str, request: Request, *, stream: bool = False, by: str = "") -> bytes:
    """Return the body of a call: the request's params, and over them what is ours to say.

    `by` is whose fields are given back with tool calls (`providers.vendor_fields`).
    Raises `TypeError` or `ValueError` for params that JSON can't hold (NaN, lone surrogates).
    """
    body = {key: value for key, value in request.params.items() if key not in OURS}
    body["model"] = model
    body["messages"] = [_turn(message, by) for message in request.messages]
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return _write_json(body).encode()


def _turn(message: Message, by: str) -> dict[str, Any]:
    if type(message.content) is str and message.role in _PLAIN and message.name is None:
        return {"role": message.role, "content": message.content}
    turn = message.encode()
    if not message.tool_calls and not message.content:
        turn["content"] = ""
    return give_back(turn, message, by)


_PLAIN: Final = frozenset({"user", "system", "developer"})
_write_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


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

    `by` is whose fields are kept with tool calls (`providers.vendor_fields`).
    """
    if status // 100 == 2:
        allowance = read_allowance(headers, now)
        if not is_event_stream(headers):
            return read_completion(status, body, model, allowance, by=by)
        whole = join_chunks(body, status)
        if isinstance(whole, Failure):
            return whole
        return _read_whole(status, whole, model, allowance, by)
    if status // 100 == 3:
        return redirected(status, headers)
    complaint = read_complaint(body)
    kind = classify(status, complaint)
    wait = None
    if kind in (FailureKind.LIMITED, FailureKind.RETRYABLE):
        wait = retry_after_s(headers, now)
    return Failure(kind, f"HTTP {status} {complaint.words}".rstrip(), status, wait)


def read_completion(
    status: int, body: bytes, model: str, allowance: Allowance | None = None, *, by: str = ""
) -> Completion | Failure:
    """Return the first choice of a chat completion; `model` stands in if it names none."""
    data = load(body)
    if not isinstance(data, dict):
        what = "JSON, but no object" if data is not None else "not JSON"
        begin = body[:80].decode("utf-8", "replace")
        return Failure(FailureKind.RETRYABLE, f"the answer is {what}: {begin!r}", status)
    return _read_whole(status, data, model, allowance, by)


def _read_whole(
    status: int, data: Mapping[str, Any], model: str, allowance: Allowance | None, by: str
) -> Completion | Failure:
    choices = data.get("choices")
    if not choices and isinstance(error := data.get("error"), dict | str):
        within, complaint = status_within(error), complaint_in(error)
        return Failure(classify(within, complaint), f"error {within} {complaint.words}", within)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Failure(FailureKind.RETRYABLE, "the answer has no choices[0].message", status)
    finish_reason = choice.get("finish_reason")
    finish_reason = encodable(finish_reason) if isinstance(finish_reason, str) else "stop"
    text = _text(message.get("content"))
    calls: Any = message.get("tool_calls")
    if failure := _no_answer(message, text, finish_reason, status):
        return failure
    tool_calls = _tool_calls(calls, data.get("id"), finish_reason, status) if calls else ()
    if isinstance(tool_calls, Failure):
        return tool_calls
    if tool_calls:
        tool_calls = keep_fields(tool_calls, calls, message, by)
    if tool_calls and finish_reason not in ("length", "content_filter"):
        finish_reason = "tool_calls"  # A call that was asked for by name ends with "stop".
    said = data.get("model")
    return Completion(
        text=encodable(text or ""),
        provider_model=encodable(said) if isinstance(said, str) and said else model,
        usage=_usage(data.get("usage")),
        finish_reason=finish_reason,
        confidence=read_confidence(choice.get("logprobs")),
        tool_calls=tool_calls,
        allowance=allowance,
    )


def read_confidence(logprobs: object) -> float | None:
    """Return the geometric mean of the tokens' probabilities, or None if none were sent.

    It is exp of the mean of `logprobs.content[].logprob`, natural logarithms:
    https://platform.openai.com/docs/api-reference/chat/object
    """
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return None
    said = [token.get("logprob") for token in content if isinstance(token, dict)]
    # A probability over 1, by rounding, is 1. The bounds keep what no probability is from raising.
    logs = [
        max(LEAST_LOG, min(0.0, log))
        for log in said
        if isinstance(log, int) or (isinstance(log, float) and not math.isnan(log))
    ]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _no_answer(
    message: Mapping[str, Any], text: str | None, finish_reason: str, status: int
) -> Failure | None:
    """Return why a message is no answer, or None if it is one. A model may answer with ""."""
    kind, problem = FailureKind.PERMANENT, ""
    old_call = message.get("function_call")
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        kind, problem = FailureKind.REFUSED, f"the model refused: {refusal}"
    elif isinstance(old_call, dict) and old_call.get("name"):
        problem = "the model answered with the deprecated function_call: send tools, not functions"
    elif text:
        return None
    elif finish_reason == "content_filter":
        kind, problem = FailureKind.REFUSED, "the provider filtered the whole answer"
    elif message.get("tool_calls"):
        return None
    elif finish_reason == "length":
        problem = "the output limit was spent before any text: raise max_tokens"
    elif finish_reason == "tool_calls":
        kind, problem = FailureKind.RETRYABLE, "the answer ends for tool calls and has none"
    elif text is None:
        kind, problem = FailureKind.RETRYABLE, "the answer has no text in its message"
    return Failure(kind, problem, status) if problem else None


def _tool_calls(
    calls: object, answer_id: object, finish_reason: str, status: int
) -> tuple[ToolCall, ...] | Failure:
    """Return what the model wants called; all of it can be read, or none is passed on."""
    if not isinstance(calls, list):
        return Failure(FailureKind.RETRYABLE, "the answer's tool_calls are no list", status)
    found: list[ToolCall] = []
    for number, call in enumerate(calls):
        if isinstance(call, dict) and call.get("type") == "custom":
            # Asked for by the request's own params: it would be so again.
            problem = "the model called a custom tool, and answers carry calls of functions only"
            return Failure(FailureKind.PERMANENT, problem, status)
        read = _tool_call(call, call_id(answer_id, number))
        if read is None and finish_reason == "length":
            problem = "the output limit was spent within a tool call: raise max_tokens"
            return Failure(FailureKind.PERMANENT, problem, status)
        if read is None:
            problem = (
                f"the answer's tool_calls[{number}] is no name with a JSON object of arguments"
            )
            return Failure(FailureKind.RETRYABLE, problem, status)
        found.append(read)
    return tuple(found)


def call_id(answer_id: object, number: int) -> str:
    """Return an id for a call whose server gave it none: another one in each answer of a talk."""
    of = re.sub(r"[^A-Za-z0-9]", "", answer_id)[-24:] if isinstance(answer_id, str) else ""
    return f"call_{of}_{number}" if of else f"call_{number}"


def _tool_call(call: object, unnamed: str) -> ToolCall | None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return None
    name, arguments = function.get("name"), function.get("arguments")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(name, str) or not name or not isinstance(arguments, str | None):
        return None
    arguments = encodable(arguments or "").strip() or "{}"  # Nothing to say to a tool without any.
    if not isinstance(load(arguments), dict):
        return None
    id = call.get("id")
    id = encodable(id) if isinstance(id, str) and id else unnamed
    return ToolCall.of(id, encodable(name), arguments)


def _text(content: object) -> str | None:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


def _usage(data: object) -> Usage:
    if not isinstance(data, dict):
        return Usage()
    prompt, completion = _count(data, "prompt_tokens"), _count(data, "completion_tokens")
    cached = _count(data.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(data.get("completion_tokens_details"), "reasoning_tokens")
    if reasoning and _count(data, "total_tokens") == prompt + completion + reasoning:
        completion += reasoning  # xAI counts them beside the rest.
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cached_input_tokens=min(cached, prompt),
        reasoning_tokens=min(reasoning, completion),
    )


def _count(data: object, key: str) -> int:
    value = data.get(key) if isinstance(data, dict) else None
    return int(value) if isinstance(value, int) and value > 0 else 0
