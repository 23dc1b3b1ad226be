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
| 401, 402, 403, 404 and other 4xx | PERMANENT | key, bill, access, name: wrong for this model |
| 408, 409, 425, 5xx | RETRYABLE | |
| 429 | LIMITED | with the wait that was asked for |
| 429 `insufficient_quota` and other unpaid bills | PERMANENT | waiting does not pay |
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

import asyncio
import base64
import itertools
import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from model_workers.providers.base import Completion
from model_workers.providers.http import (
    MAX_ANSWER_BYTES,
    TRANSPORT_ERRORS,
    explain,
    read_body,
    retry_after_s,
)
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage

OURS: Final = frozenset({"model", "messages", "stream", "stream_options"})
"""Parameters that a request can't set: the plan, the request and this provider decide them."""

MESSAGE_CHARS: Final = 300
"""Longest part of a provider's own error message that is passed on."""

_PIECE_BYTES: Final = 256 * 1024

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
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,512}")


class OpenAI:
    """Calls one model at one endpoint. Implements `model_workers.providers.base.Provider`.

    `client` is the endpoint's own (`providers.http.make_client`) and is closed by `aclose`.
    `clock` gives seconds since the epoch, for Retry-After dates. The whole call is bounded by
    `model.timeout_s`. User and password in `base_url` become basic authentication if there is
    no key. Raises `httpx.InvalidURL` if `base_url` is no address, and `ValueError` for a key that
    no header can hold.
    """

    def __init__(
        self,
        model: Model,
        endpoint: Endpoint,
        client: httpx.AsyncClient,
        *,
        clock: Callable[[], float] = time.time,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        base = httpx.URL(endpoint.base_url)
        key = endpoint.api_key.get_secret_value() if endpoint.api_key else ""
        headers = {"content-type": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        elif base.userinfo:
            pair = f"{base.username}:{base.password}".encode()
            headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        self._secrets = tuple(
            secret for secret in (key, base.password, base.query.decode()) if secret
        )
        # aiohttp refuses a URL with credentials beside an Authorization header.
        url = base.copy_with(
            username=None, password=None, path=base.path.rstrip("/") + "/chat/completions"
        )
        # What httpx makes of all this is the same for each call, so it is made once.
        self._blank = client.build_request("POST", url, headers=headers)
        del self._blank.headers["content-length"]
        self._blank.extensions["timeout"] = _not_timed_twice(
            self._blank.extensions["timeout"], model.timeout_s
        )
        self._model = model
        self._label = endpoint.label
        self._client = client
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        """Call once. Raises `ProviderError` as the table above says, and passes on cancellation.

        `request_id` goes along as the header `X-Request-Id`, which many servers write to their
        logs.
        """
        try:
            content = encode_call(self._model.provider_model, request)
        except (TypeError, ValueError) as error:
            problem = f"params can't be written as JSON: {error}"
            raise self._error(Failure(FailureKind.INVALID, problem), request) from None
        message = self._message(content, request_id)
        try:
            async with asyncio.timeout(self._model.timeout_s) as limit:
                response = await self._client.send(message, stream=True)
                body = await read_body(response, self._max_answer_bytes)
        except TRANSPORT_ERRORS as error:
            kind, words = explain(error)
            if limit.expired():
                words = f"timeout: no whole answer within {self._model.timeout_s:g} s"
            raise self._error(Failure(kind, words), request) from error
        except ProviderError as error:
            failure = Failure(error.kind, str(error), error.status)
            raise self._error(failure, request) from None
        outcome = read_response(
            response.status_code, response.headers, body, self._model.provider_model, self._clock()
        )
        if isinstance(outcome, Failure):
            raise self._error(outcome, request)
        return outcome

    def _message(self, content: bytes, request_id: str | None) -> httpx.Request:
        blank = self._blank
        headers = blank.headers.copy()
        headers["content-length"] = str(len(content))
        if request_id and _REQUEST_ID.fullmatch(request_id):
            headers["x-request-id"] = request_id
        # aiohttp writes bytes in one go and warns that a megabyte of them holds up the loop.
        small = len(content) <= _PIECE_BYTES
        return httpx.Request(
            blank.method,
            blank.url,
            headers=headers,
            stream=httpx.ByteStream(content) if small else _Pieces(content),
            extensions=blank.extensions,
        )

    async def aclose(self) -> None:
        """Close the client and its connections."""
        await self._client.aclose()

    def _error(self, failure: "Failure", request: Request) -> ProviderError:
        words = clean(failure.message, self._secrets, [m.content for m in request.messages])
        return ProviderError(
            failure.kind,
            f"{self._label}: {words}",
            status=failure.status,
            retry_after_s=failure.retry_after_s,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A `ProviderError` to be, before its message is cleaned."""

    kind: FailureKind
    message: str
    status: int | None = None
    retry_after_s: float | None = None


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
    body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
    return _write_json(body).encode()


_write_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


class _Pieces(httpx.AsyncByteStream):
    """A long body, in pieces that leave room for other calls in between."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for begin in range(0, len(self._content), _PIECE_BYTES):
            yield self._content[begin : begin + _PIECE_BYTES]


def _not_timed_twice(timeouts: Mapping[str, float | None], whole_s: float) -> dict[str, Any]:
    """Return httpx's `timeouts`, in seconds, without the one for silences if it can't run out.

    A silence begins after the call does, so one of `whole_s` never ends before the whole call;
    its timer would be set anew for each piece of an answer.
    """
    silence_s = timeouts.get("read")
    if silence_s is None or silence_s < whole_s:
        return dict(timeouts)
    return {**timeouts, "read": None}


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
        elif not codes & _UNPAID_CODES:
            kind = FailureKind.LIMITED
    elif status in (408, 409, 425) or status >= 500:
        kind = FailureKind.RETRYABLE
    elif status == 413:
        kind = FailureKind.TOO_LONG
    elif status in (400, 403, 422) and codes & _REFUSED_CODES:
        kind = FailureKind.REFUSED
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
        text=_encodable(text or ""),
        provider_model=_encodable(said) if isinstance(said := data.get("model"), str) else model,
        usage=_usage(data.get("usage")),
        finish_reason=_encodable(finish_reason) if isinstance(finish_reason, str) else "stop",
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


def _encodable(text: str) -> str:
    """Replace lone surrogates, which a JSON escape can hold but no encoding can."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean(text: str, secrets: Sequence[str], prompts: Iterable[str]) -> str:
    """Return `text` fit for logs: without secrets and the prompt, on one line, cut short."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = text[: 8 * MESSAGE_CHARS]
    for private in (*secrets, *prompts):
        text = without_echo(text, private)
    line = " ".join(_encodable(text).split())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"


_BLOCK: Final = 12


def without_echo(text: str, private: str) -> str:
    """Blank out in `text` what it repeats of `private`; no run of 23 characters of it is left.

    Some servers echo the input in their error messages: whole, cut or escaped. A run of 23
    characters holds a whole block of 12 that begins at a multiple of 12 in `private`; looking up
    all these blocks takes milliseconds for megabytes.
    """
    places: dict[str, list[int]] = {}
    for at in range(len(text) - _BLOCK + 1):
        places.setdefault(text[at : at + _BLOCK], []).append(at)
    echoed = bytearray(len(text))
    for begin in range(0, len(private) - _BLOCK + 1, _BLOCK):
        for at in places.pop(private[begin : begin + _BLOCK], ()):
            echoed[at : at + _BLOCK] = b"x" * _BLOCK
    kept: list[str] = []
    for hidden, run in itertools.groupby(zip(echoed, text, strict=True), key=lambda pair: pair[0]):
        kept.append("[...]" if hidden else "".join(char for _, char in run))
    return "".join(kept)
