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
| 3xx | PERMANENT | base_url is wrong; following it could send the key elsewhere |
| no connection, reset, timeout, half an answer | RETRYABLE | |
| a certificate that is not accepted | PERMANENT | |
| 200 that is not JSON, or JSON of another shape | RETRYABLE | a proxy's page, mostly |
| 200 with `error` and no choices (OpenRouter) | by the error's `code` | 502 if it has none |
| 200 with `refusal`, or no text and `content_filter` | REFUSED | |
| 200 without text at `finish_reason: length`, or with tool calls | PERMANENT | same again |
| an answer of more than 32 MiB | PERMANENT | |

Formats: https://platform.openai.com/docs/api-reference/chat and, for errors,
https://platform.openai.com/docs/guides/error-codes
"""

import base64
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from model_workers.providers.base import Completion, Failure
from model_workers.providers.clean import encodable
from model_workers.providers.http import MAX_ANSWER_BYTES, retry_after_s
from model_workers.providers.over_http import OverHttp
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind
from modelyard.messages import Message, Request, Usage

OURS: Final = frozenset({"model", "messages", "stream", "stream_options"})
"""Parameters that a request can't set: the plan, the request and this provider decide them."""

_TOO_LONG_CODES: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_TOO_LONG: Final = re.compile(
    r"context[ _](length|window|size)|(prompt|input|request) is too long|input token count"
    r"|reduce the length",
    re.IGNORECASE,
)
_REFUSED_CODES: Final = frozenset(
    {"content_filter", "content_policy_violation", "invalid_prompt", "data_inspection_failed"}
)
_INVALID_CODES: Final = frozenset({"invalid_type", "missing_required_parameter"})
_UNPAID_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
    }
)
LEAST_LOG: Final = -1e6


class OpenAIDialect:
    """Chat completions of one model. User and password in `base_url` become basic authentication if
    there is no key. Implements `model_workers.providers.over_http.Dialect`.
    """

    def __init__(self, model: Model, endpoint: Endpoint) -> None:
        self._model = model
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
        return encode_call(self._model.provider_model, request)

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Completion | Failure:
        return read_response(status, headers, body, self._model.provider_model, now)


class OpenAI(OverHttp):
    """Calls one model at one OpenAI-compatible endpoint: `OverHttp` in `OpenAIDialect`."""

    def __init__(
        self,
        model: Model,
        endpoint: Endpoint,
        client: httpx.AsyncClient,
        *,
        clock: Callable[[], float] = time.time,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        super().__init__(
            model,
            endpoint,
            client,
            OpenAIDialect(model, endpoint),
            clock=clock,
            max_answer_bytes=max_answer_bytes,
        )


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an error response says, whichever server's form it has."""

    message: str
    code: str = ""
    type: str = ""

    @property
    def words(self) -> str:
        """The code, if there is one, and the message."""
        return ": ".join(part for part in (self.code or self.type, self.message) if part)


def encode_call(model: str, request: Request) -> bytes:
    """Return the body of a call: the request's params, and over them what is ours to say.

    Raises `TypeError` or `ValueError` for params that JSON can't hold (NaN, lone surrogates).
    """
    body = {key: value for key, value in request.params.items() if key not in OURS}
    body["model"] = model
    body["messages"] = [_turn(message) for message in request.messages]
    return _write_json(body).encode()


def _turn(message: Message) -> dict[str, Any]:
    if type(message.content) is str and message.role in {"user", "system", "developer"}:
        return {"role": message.role, "content": message.content}
    turn = message.encode()
    if not message.tool_calls:
        turn.setdefault("content", "")
    return turn


_write_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


def read_response(
    status: int, headers: Mapping[str, str], body: bytes, model: str, now: float
) -> Completion | Failure:
    """Return what a whole response means; `now` is seconds since the epoch."""
    if status // 100 == 2:
        return read_completion(status, body, model)
    if status // 100 == 3:
        target = headers.get("location", "nowhere").split("?", 1)[0]
        problem = f"HTTP {status}: redirects to {target}; base_url should be the final address"
        return Failure(FailureKind.PERMANENT, problem, status)
    complaint = read_complaint(body)
    kind = classify(status, complaint)
    wait = None
    if kind in (FailureKind.LIMITED, FailureKind.RETRYABLE):
        wait = retry_after_s(headers, now)
    return Failure(kind, f"HTTP {status} {complaint.words}".rstrip(), status, wait)


def classify(status: int, complaint: Complaint) -> FailureKind:
    """Return what an error status and its body mean, by the table above."""
    codes = {complaint.code, complaint.type}
    kind = FailureKind.PERMANENT
    if status == 429:
        if complaint.message.lower().startswith("request too large"):
            kind = FailureKind.TOO_LONG  # More than a whole minute's limit: never goes through.
        else:
            kind = FailureKind.DENIED if codes & _UNPAID_CODES else FailureKind.LIMITED
    elif status in (408, 409, 425) or status >= 500:
        kind = FailureKind.RETRYABLE
    elif status == 413:
        kind = FailureKind.TOO_LONG
    elif status in (400, 403, 422) and codes & _REFUSED_CODES:
        kind = FailureKind.REFUSED
    elif status in (401, 402, 403, 404):
        kind = FailureKind.DENIED
    elif status in (400, 422):
        if codes & _TOO_LONG_CODES or _TOO_LONG.search(complaint.message):
            kind = FailureKind.TOO_LONG
        elif codes & _INVALID_CODES:
            kind = FailureKind.INVALID
    return kind


def read_complaint(body: bytes) -> Complaint:
    """Return what an error body says.

    Knows `{"error": {...}}` (OpenAI), a list around it (Gemini), `{"error": "..."}` (Ollama),
    `{"message": ...}` (vLLM, Mistral) and `{"detail": ...}` (FastAPI); anything else is text.
    """
    data = _load(body)
    if isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, dict) and isinstance(data.get("error"), dict | str):
        data = data["error"]
    if not isinstance(data, dict):
        return Complaint(data if isinstance(data, str) else body.decode("utf-8", "replace"))
    said = data.get("message") or data.get("detail") or ""
    return Complaint(
        said if isinstance(said, str) else json.dumps(said, ensure_ascii=False),
        *(value if isinstance(value := data.get(key), str) else "" for key in ("code", "type")),
    )


def read_completion(status: int, body: bytes, model: str) -> Completion | Failure:
    """Return the first choice of a chat completion; `model` stands in if it names none."""
    data = _load(body)
    if not isinstance(data, dict):
        what = "JSON, but no object" if data is not None else "not JSON"
        begin = body[:80].decode("utf-8", "replace")
        return Failure(FailureKind.RETRYABLE, f"the answer is {what}: {begin!r}", status)
    choices = data.get("choices")
    if not choices and isinstance(error := data.get("error"), dict | str):
        code = error.get("code") if isinstance(error, dict) else None
        within = code if isinstance(code, int) and 400 <= code <= 599 else 502
        complaint = read_complaint(body)
        return Failure(classify(within, complaint), f"error {within} {complaint.words}", within)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Failure(FailureKind.RETRYABLE, "the answer has no choices[0].message", status)
    finish_reason = choice.get("finish_reason")
    text = _text(message.get("content"))
    if failure := _no_answer(message, text, finish_reason, status):
        return failure
    return Completion(
        text=encodable(text or ""),
        provider_model=encodable(said) if isinstance(said := data.get("model"), str) else model,
        usage=_usage(data.get("usage")),
        finish_reason=encodable(finish_reason) if isinstance(finish_reason, str) else "stop",
        confidence=read_confidence(choice.get("logprobs")),
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
    message: Mapping[str, Any], text: str | None, finish_reason: object, status: int
) -> Failure | None:
    """Return why a message is no answer, or None if it is one. A model may answer with ""."""
    kind, problem = FailureKind.PERMANENT, ""
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        kind, problem = FailureKind.REFUSED, f"the model refused: {refusal}"
    elif text:
        return None
    elif finish_reason == "content_filter":
        kind, problem = FailureKind.REFUSED, "the provider filtered the whole answer"
    elif message.get("tool_calls") or message.get("function_call"):
        problem = "the model answered with tool calls, which answers don't carry"
    elif finish_reason == "length":
        problem = "the output limit was spent before any text: raise max_tokens"
    elif text is None:
        kind, problem = FailureKind.RETRYABLE, "the answer has no text in its message"
    return Failure(kind, problem, status) if problem else None


def _load(body: bytes) -> Any:
    """Return the JSON value, or None if there is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _text(content: object) -> str | None:
    """The text of a message: a string, or the text parts of a list."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


def _usage(data: object) -> Usage:
    if not isinstance(data, dict):
        return Usage()
    prompt, completion = (
        value if isinstance(value := data.get(key), int) and value > 0 else 0
        for key in ("prompt_tokens", "completion_tokens")
    )
    return Usage(input_tokens=int(prompt), output_tokens=int(completion))
