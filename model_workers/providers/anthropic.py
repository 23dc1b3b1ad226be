"""Claude behind Anthropic's Messages API: `POST {base_url}/v1/messages`.

What becomes of a request. What is not in this table is refused, and never quietly left out.

| request | Messages API |
| --- | --- |
| system and developer turns | `system`, wherever they stand |
| turns of one side in a row | one turn; one that says nothing is left out |
| tool turns, `tool_calls` | `tool_result` first in a user turn, `tool_use` |
| images | by https address, or base64; `detail` auto and high are how it looks at them |
| `max_completion_tokens`, `max_tokens` | `max_tokens`; or the model's `max_output_tokens` |
| `temperature`, `top_p`, `top_k` | the same, the first two from 0 to 1; above is refused |
| the same, from version 2026-10-21 of the API on | refused |
| `stop` | `stop_sequences` |
| `tools` of type function | `tools` with `input_schema`; Anthropic's own stay as they are |
| `tool_choice` auto, required, none, a function | auto, any, none, tool |
| `parallel_tool_calls` false | `tool_choice.disable_parallel_tool_use` |
| `response_format` json_schema | `output_config.format`; json_object is refused |
| `reasoning_effort` low to max; none | `output_config.effort`; `thinking` disabled |
| `user`, `safety_identifier` | `metadata.user_id` |
| `service_tier` auto, default | auto, standard_only |
| `cache_control`, `container`, `diagnostics`, `inference_geo`, `metadata.user_id`, | |
| `output_config`, `speed`, `stop_sequences`, `thinking` | as they are |
| `anthropic_beta`, a list of names | the header `anthropic-beta` |
| `seed`, `logprobs`, `n` above 1, penalties, `logit_bias`, `name` of a turn, ... | refused |

A last turn of the assistant's is continued by Claude, and not answered.

The `thinking` and `redacted_thinking` blocks before a call of a tool are kept with it and go back
before it (`providers.opaque`), unless `thinking` is disabled. With `thinking` of type enabled
Claude refuses a turn of calls that does not begin with its thoughts; where another model made them,
thinking is disabled for that call, which is what Claude's own error asks for. Adaptive thinking has
no such demand. Thoughts that no call follows are not kept: they need not come back.

What a failed call means, where it differs from `providers.openai`:

| what came | kind |
| --- | --- |
| 400 that speaks of a prompt or context that is too long; 413 | TOO_LONG |
| 400 "Output blocked by content filtering policy" | REFUSED |
| 400 of a credit balance or a usage limit; 401, 402, 403, 404 | DENIED |
| an `error_code` of a spent limit, a closed account or a key that is locked | DENIED |
| 400 otherwise | PERMANENT |
| 409, 5xx, 529 `overloaded_error` | RETRYABLE |
| 429 | LIMITED |
| an error in the middle of a stream | as its type's status |
| 200 with `stop_reason` refusal and no text | REFUSED |
| 200 with model_context_window_exceeded and no text | TOO_LONG |

Formats: https://platform.claude.com/docs/en/api/messages and, for errors,
https://platform.claude.com/docs/en/api/errors
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import httpx

from model_workers.providers.allowance import read_allowance
from model_workers.providers.anthropic_call import PROVIDER, THINKING, THOUGHTS, encode_call
from model_workers.providers.anthropic_events import join_events
from model_workers.providers.base import Allowance, Completion, Failure
from model_workers.providers.betas import read_betas
from model_workers.providers.clean import encodable
from model_workers.providers.complaint import load
from model_workers.providers.events import is_event_stream
from model_workers.providers.http import retry_after_s
from model_workers.providers.opaque import author, seal
from model_workers.providers.over_http import Dialect, OverHttp
from model_workers.providers.params import Params
from model_workers.providers.reading import count, no_answer, read_call, read_object, redirected
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind
from modelyard.messages import Request, ToolCall, Usage

VERSION: Final = "2023-06-01"
"""The version of the API that is spoken: the last one that takes `temperature`."""

_STATUS: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TOO_LONG: Final = re.compile(
    r"(prompt|input|request) is too long|context (limit|length|window)", re.IGNORECASE
)
_UNPAID: Final = re.compile(r"credit balance is too low|API usage limits", re.IGNORECASE)
_DENIED_CODES: Final = frozenset(
    {
        "cmek_key_disabled",
        "cmek_key_network_blocked",
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "organization_on_hold",
    }
)
"""What `error.details.error_code` says if a person has to act, whatever the status."""
_FILTERED: Final = re.compile(r"blocked by content filtering policy", re.IGNORECASE)

_FINISH: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicDialect(Dialect):
    """Messages of one model. Implements `model_workers.providers.over_http.Dialect`."""

    def __init__(self, model: Model, endpoint: Endpoint) -> None:
        self._model = model
        self._version = endpoint.api_version or VERSION
        self._key = endpoint.api_key.get_secret_value() if endpoint.api_key else ""

    def address(self, base: httpx.URL) -> httpx.URL:
        path = base.path.rstrip("/").removesuffix("/v1")
        return base.copy_with(path=path + "/v1/messages")

    def headers(self, base: httpx.URL) -> Mapping[str, str]:
        headers = {"anthropic-version": self._version}
        return {**headers, "x-api-key": self._key} if self._key else headers

    def encode(self, request: Request) -> bytes:
        return encode_call(self._model, request, version=self._version)

    def headers_of(self, request: Request) -> Mapping[str, str]:
        betas = read_betas(Params(PROVIDER, request.params))
        return {"anthropic-beta": ",".join(betas)} if betas else {}

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Completion | Failure:
        model = self._model
        by = author(model)
        return read_response(status, headers, body, model.provider_model, now, by=by)


class Anthropic(OverHttp):
    """Calls one Claude at one endpoint: `OverHttp` in `AnthropicDialect`."""

    dialect = AnthropicDialect


def read_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    model: str,
    now: float,
    *,
    by: str = "",
) -> Completion | Failure:
    """Return what a whole response means; `model` stands in if it names none.

    `by` is under whose name thoughts are kept with tool calls (`providers.opaque`).
    """
    if status // 100 == 3:
        return redirected(status, headers)
    if status // 100 != 2:
        data = load(body)
        text = body.decode("utf-8", "replace")
        return _failure(status, data, text, retry_after_s(headers, now))
    streamed = is_event_stream(headers)
    message = join_events(body, status) if streamed else read_object(status, body)
    if isinstance(message, Failure):
        return message
    if message.get("type") == "error":
        return _failure(None, message, "", retry_after_s(headers, now))
    return read_message(status, message, model, read_allowance(headers, now), by=by)


def _failure(status: int | None, data: Any, text: str, wait_s: float | None) -> Failure:
    """Return what an error means; one in the middle of a stream has no status of its own."""
    error = data.get("error") if isinstance(data, dict) else None
    error = error if isinstance(error, dict) else {}
    kind, message = _text(error.get("type")), _text(error.get("message")) or text
    said = f"HTTP {status}" if status is not None else "error in the middle of the answer"
    status = status if status is not None else _STATUS.get(kind, 500)
    details = error.get("details")
    code = _text(details.get("error_code")) if isinstance(details, dict) else ""
    means = classify(status, message, code)
    words = ": ".join(part for part in (kind, message) if part)
    waits = means in (FailureKind.LIMITED, FailureKind.RETRYABLE)
    return Failure(means, f"{said} {words}".rstrip(), status, wait_s if waits else None)


def classify(status: int, message: str, code: str = "") -> FailureKind:
    """Return what an error means, by the table above; `code` is `error.details.error_code`."""
    kind = FailureKind.PERMANENT
    if code in _DENIED_CODES:
        kind = FailureKind.DENIED
    elif status == 429:
        kind = FailureKind.LIMITED
    elif status in (408, 409, 425) or status >= 500:
        kind = FailureKind.RETRYABLE
    elif status == 413:
        kind = FailureKind.TOO_LONG
    elif status in (401, 402, 403, 404):
        kind = FailureKind.DENIED
    elif status == 400:
        if _TOO_LONG.search(message):
            kind = FailureKind.TOO_LONG
        elif _UNPAID.search(message):
            kind = FailureKind.DENIED
        elif _FILTERED.search(message):
            kind = FailureKind.REFUSED
    return kind


def read_message(
    status: int,
    data: Mapping[str, Any],
    model: str,
    allowance: Allowance | None = None,
    *,
    by: str = "",
) -> Completion | Failure:
    """Return what a whole message says."""
    content = data.get("content")
    if not isinstance(content, list):
        return Failure(FailureKind.RETRYABLE, "the answer has no content", status)
    blocks = [block for block in content if isinstance(block, dict)]
    text = "".join(_text(block.get("text")) for block in blocks if block.get("type") == "text")
    calls = _calls(blocks, by)
    stopped = encodable(_text(data.get("stop_reason"))) or "end_turn"
    if not text and not calls and stopped == "refusal":
        return Failure(FailureKind.REFUSED, _refusal(data.get("stop_details")), status)
    if not text and not calls and stopped == "model_context_window_exceeded":
        problem = "the model's context window was full before any text"
        return Failure(FailureKind.TOO_LONG, problem, status)
    finish_reason = _FINISH.get(stopped, stopped)
    if failure := no_answer(text, calls, finish_reason, status):
        return failure
    return Completion(
        text=encodable(text),
        provider_model=encodable(_text(data.get("model"))) or model,
        usage=read_usage(data.get("usage")),
        finish_reason=finish_reason,
        tool_calls=tuple(call for call in calls if call is not None),
        allowance=allowance,
    )


def _calls(blocks: list[dict[str, Any]], by: str) -> tuple[ToolCall | None, ...]:
    """Return the calls of tools, each with what was thought before it."""
    calls: list[ToolCall | None] = []
    thoughts: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        if block.get("type") in THINKING:
            thoughts.append(block)
        elif block.get("type") == "tool_use":
            opaque = seal(by, {THOUGHTS: thoughts})
            thoughts = []
            asked = block.get("id"), block.get("name"), block.get("input")
            calls.append(read_call(*asked, number, opaque))
    return tuple(calls)


def _refusal(details: object) -> str:
    said = _text(details.get("explanation")) if isinstance(details, dict) else ""
    category = _text(details.get("category")) if isinstance(details, dict) else ""
    return ": ".join(part for part in ("the model refused", category, said) if part)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def read_usage(data: object) -> Usage:
    """Return the tokens; those from and to the prompt cache are not among `input_tokens` there."""
    read, written = (
        count(data, "cache_read_input_tokens"),
        count(data, "cache_creation_input_tokens"),
    )
    details = data.get("output_tokens_details") if isinstance(data, dict) else None
    output = count(data, "output_tokens")
    return Usage(
        input_tokens=count(data, "input_tokens") + read + written,
        output_tokens=output,
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=min(count(details, "thinking_tokens"), output),
    )
