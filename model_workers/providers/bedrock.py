"""Models behind Amazon Bedrock's Converse API: `POST {base_url}/model/{modelId}/converse`, or
`converse-stream` for a model with `stream`.

The name at the provider is a model's id, an inference profile's, or an ARN, a prompt router's
among them. An endpoint with an `api_key` sends it as a bearer token (a Bedrock API key); without
one each call is signed with the AWS credentials that are found (`providers.sigv4`).

What becomes of a request. What is not in this table is refused, and never quietly left out.

| request | Converse |
| --- | --- |
| system and developer turns | `system`, wherever they stand |
| turns of one side in a row | one turn; one that says nothing is left out |
| tool turns, `tool_calls` | `toolResult` first in a user turn, `toolUse` |
| images | bytes only; one at an address is refused; `detail` auto and high are as it is |
| `max_completion_tokens`, `max_tokens` | `inferenceConfig.maxTokens` |
| `temperature`, `top_p` | `inferenceConfig`, from 0 to 1; above is refused |
| `stop` | `inferenceConfig.stopSequences` |
| `tools` of type function | `toolConfig.tools[].toolSpec`; Bedrock's own stay as they are |
| `tool_choice` auto, required, a function | auto, any, tool |
| `tool_choice` none | no tools are told; refused if the conversation holds calls |
| `response_format` json_schema | `outputConfig.textFormat`; json_object is refused |
| `reasoning_effort` low to max | `outputConfig.effort` |
| `metadata`, `user`, `safety_identifier` | `requestMetadata` |
| `service_tier` default, flex, priority, reserved | `serviceTier.type`; auto is left out |
| `additionalModelRequestFields`, `guardrailConfig` and the rest of `bedrock_call.NATIVE` | as is |
| `anthropic_beta`, a list of names | `additionalModelRequestFields.anthropic_beta` |
| `parallel_tool_calls` false with tools, `seed`, `logprobs`, `n` above 1, `name`, ... | refused |

A `reasoningContent` before a call of a tool that is signed or redacted is kept with it and goes
back before it (`providers.opaque`), unless `additionalModelRequestFields.thinking` is disabled.
Where that is enabled and another model made the calls, it is disabled for that call, as in
`providers.anthropic`.

What a failed call means; the first that fits counts.

| what came | kind |
| --- | --- |
| 400 ValidationException of an input that is too long, 413 | TOO_LONG |
| 400 ValidationException of a model's name, or one that is not served so | DENIED |
| ServiceQuotaExceededException of a rate | LIMITED |
| ServiceQuotaExceededException otherwise | DENIED |
| 429 ModelNotReadyException | RETRYABLE |
| 429, ThrottlingException | LIMITED |
| 401, 402, 403, 404 | DENIED |
| 408 ModelTimeoutException, 409, 424 ModelErrorException, 425, 5xx | RETRYABLE |
| other 4xx | PERMANENT |
| 200 with `stopReason` guardrail_intervened or content_filtered | REFUSED |
| 200 with malformed_model_output or malformed_tool_use | RETRYABLE |
| 200 with model_context_window_exceeded and no text | TOO_LONG |
| an exception in the middle of a stream | as its name's status |
| a stream that ends without messageStop, a frame with a wrong checksum | RETRYABLE |
| a frame that says it is longer than any may be | PERMANENT |

Formats: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and, for
errors, https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

from model_workers.providers.aws_frames import CONTENT_TYPE, is_frame_stream
from model_workers.providers.base import Completion, Failure
from model_workers.providers.bedrock_call import THOUGHTS, encode_call
from model_workers.providers.bedrock_events import Thrown, join_frames
from model_workers.providers.clean import encodable
from model_workers.providers.complaint import load
from model_workers.providers.http import retry_after_s
from model_workers.providers.opaque import author, seal
from model_workers.providers.over_http import Dialect, OverHttp, Signer
from model_workers.providers.reading import count, no_answer, read_call, read_object, redirected
from model_workers.providers.sigv4 import SigV4, region_of
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind
from modelyard.messages import Request, ToolCall, Usage

_TOO_LONG: Final = re.compile(
    r"(prompt|input|request) is too long|too many (input )?tokens|context (length|window|limit)"
    r"|input tokens? (count )?exceed|exceeds? the (maximum|max) (number of )?(input )?tokens"
    r"|maximum (input )?(tokens|length)|reduce the length",
    re.IGNORECASE,
)
_NO_SUCH_MODEL: Final = re.compile(
    r"model identifier is invalid|on-demand throughput isn|model ID .*isn.t supported"
    r"|end of its life",
    re.IGNORECASE,
)
_OF_A_RATE: Final = re.compile(
    r"\brate\b|too many|per (second|minute)|try again|retry|slow down", re.I
)

_FINISH: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


class BedrockDialect(Dialect):
    """Converse of one model. Implements `model_workers.providers.over_http.Dialect`."""

    def __init__(self, model: Model, endpoint: Endpoint) -> None:
        self._model = model
        self._key = endpoint.api_key.get_secret_value() if endpoint.api_key else ""

    def address(self, base: httpx.URL) -> httpx.URL:
        # A colon may stand in a path, and aiohttp would write it so whatever is asked for: another
        # path than the signed one would be refused.
        id = quote(self._model.provider_model, safe=":")
        what = "converse-stream" if self._model.stream else "converse"
        return base.copy_with(path=f"{base.path.rstrip('/')}/model/{id}/{what}")

    def headers(self, base: httpx.URL) -> Mapping[str, str]:
        headers = {"accept": CONTENT_TYPE} if self._model.stream else {}
        return {**headers, "authorization": f"Bearer {self._key}"} if self._key else headers

    def encode(self, request: Request) -> bytes:
        return encode_call(request, by=author(self._model))

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Completion | Failure:
        model = self._model
        by = author(model)
        return read_response(status, headers, body, model.provider_model, now, by=by)


class Bedrock(OverHttp):
    """Calls one model at one endpoint: `OverHttp` in `BedrockDialect`, signed without a key."""

    dialect = BedrockDialect

    @staticmethod
    def signer(endpoint: Endpoint) -> Signer | None:
        return None if endpoint.api_key else SigV4(region_of(endpoint))


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
        return _failure(status, headers, body, now)
    data: dict[str, Any] | Thrown | Failure
    data = join_frames(body, status) if is_frame_stream(headers) else read_object(status, body)
    if isinstance(data, Thrown):
        return _thrown(data, headers, now)
    return data if isinstance(data, Failure) else read_converse(status, data, model, by)


def _thrown(thrown: Thrown, headers: Mapping[str, str], now: float) -> Failure:
    means = classify(thrown.status, thrown.kind, thrown.message)
    words = ": ".join(part for part in (thrown.kind, thrown.message) if part)
    waits = means in (FailureKind.LIMITED, FailureKind.RETRYABLE)
    wait_s = retry_after_s(headers, now) if waits else None
    said = f"error {thrown.status} in the middle of the answer: {words}"
    return Failure(means, said, thrown.status, wait_s)


def _failure(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
    data = load(body)
    said = data if isinstance(data, dict) else {}
    # `ValidationException:http://...` in the header, `com.amazon...#ValidationException` inside.
    kind = headers.get("x-amzn-errortype", "").split(":", 1)[0]
    kind = kind or _text(said.get("__type")).rsplit("#", 1)[-1]
    message = _text(said.get("message")) or _text(said.get("Message"))
    if not said:
        message = body.decode("utf-8", "replace")
    # What follows repeats the headers that were signed, a session's token among them.
    message = message.split("The Canonical String", 1)[0].strip()
    means = classify(status, kind, message)
    words = ": ".join(part for part in (kind, message) if part)
    waits = means in (FailureKind.LIMITED, FailureKind.RETRYABLE)
    wait_s = retry_after_s(headers, now) if waits else None
    return Failure(means, f"HTTP {status} {words}".rstrip(), status, wait_s)


def classify(status: int, kind: str, message: str) -> FailureKind:
    """Return what an error means, by the table above; `kind` is the exception's name."""
    means = FailureKind.PERMANENT
    if status == 413 or (status == 400 and _TOO_LONG.search(message)):
        means = FailureKind.TOO_LONG
    elif kind == "ServiceQuotaExceededException":
        of_a_rate = _OF_A_RATE.search(message)
        means = FailureKind.LIMITED if of_a_rate else FailureKind.DENIED
    elif kind == "ModelNotReadyException":
        means = FailureKind.RETRYABLE
    elif status == 429 or kind == "ThrottlingException":
        means = FailureKind.LIMITED
    elif status in (401, 402, 403, 404) or (status == 400 and _NO_SUCH_MODEL.search(message)):
        means = FailureKind.DENIED
    elif status in (408, 409, 424, 425) or status >= 500:
        means = FailureKind.RETRYABLE
    return means


def read_converse(
    status: int, data: Mapping[str, Any], model: str, by: str = ""
) -> Completion | Failure:
    """Return what a whole answer of Converse says."""
    output = data.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    stopped = encodable(_text(data.get("stopReason"))) or "end_turn"
    if stopped in ("guardrail_intervened", "content_filtered"):
        return Failure(FailureKind.REFUSED, f"Bedrock held the answer back: {stopped}", status)
    if stopped in ("malformed_model_output", "malformed_tool_use"):
        return Failure(FailureKind.RETRYABLE, f"the model's output is broken: {stopped}", status)
    if not isinstance(content, list):
        return Failure(FailureKind.RETRYABLE, "the answer has no output.message.content", status)
    blocks = [block for block in content if isinstance(block, dict)]
    text = "".join(map(_said, blocks))
    calls = _calls(blocks, by)
    if not text and not calls and stopped == "model_context_window_exceeded":
        problem = "the model's context window was full before any text"
        return Failure(FailureKind.TOO_LONG, problem, status)
    finish_reason = _FINISH.get(stopped, stopped)
    if failure := no_answer(text, calls, finish_reason, status):
        return failure
    return Completion(
        text=encodable(text),
        provider_model=encodable(_invoked(data)) or model,
        usage=read_usage(data.get("usage")),
        finish_reason=finish_reason,
        tool_calls=tuple(call for call in calls if call is not None),
    )


def _calls(blocks: list[dict[str, Any]], by: str) -> tuple[ToolCall | None, ...]:
    """Return the calls of tools, each with what was thought before it."""
    calls: list[ToolCall | None] = []
    thoughts: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        asked, thought = block.get("toolUse"), block.get(THOUGHTS)
        if isinstance(thought, dict) and _is_closed(thought):
            thoughts.append(thought)
        # A tool of the server's own was called and answered by Bedrock.
        if isinstance(asked, dict) and asked.get("type") is None:
            opaque = seal(by, {THOUGHTS: thoughts})
            thoughts = []
            told = asked.get("toolUseId"), asked.get("name"), asked.get("input")
            calls.append(read_call(*told, number, opaque))
    return tuple(calls)


def _is_closed(thought: Mapping[str, Any]) -> bool:
    """Whether a thought is signed or redacted: only then some model asks for it."""
    shown = thought.get("reasoningText")
    signed = isinstance(shown, dict) and bool(shown.get("signature"))
    return signed or bool(thought.get("redactedContent"))


def _said(block: Mapping[str, Any]) -> str:
    """The text of a block: plain, or with citations."""
    cited = block.get("citationsContent")
    inner = cited.get("content") if isinstance(cited, dict) else None
    if isinstance(inner, list):
        return "".join(_text(each.get("text")) for each in inner if isinstance(each, dict))
    return _text(block.get("text"))


def _invoked(data: Mapping[str, Any]) -> str:
    """The model that a prompt router chose."""
    trace = data.get("trace")
    router = trace.get("promptRouter") if isinstance(trace, dict) else None
    return _text(router.get("invokedModelId")) if isinstance(router, dict) else ""


def read_usage(data: object) -> Usage:
    """Return the tokens; those from and to the prompt cache are not among `inputTokens` there.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    read, written = count(data, "cacheReadInputTokens"), count(data, "cacheWriteInputTokens")
    return Usage(
        input_tokens=count(data, "inputTokens") + read + written,
        output_tokens=count(data, "outputTokens"),
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
