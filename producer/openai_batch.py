"""The OpenAI Batch file format: a line in, a request out; an outcome in, a line out.

https://platform.openai.com/docs/guides/batch and, for the body of a response,
https://platform.openai.com/docs/api-reference/chat/object
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from modelyard.catalog import Catalog, UnknownName
from modelyard.messages import Answer, Lane, Request, Usage, problems

METHOD: Final = "POST"
URL: Final = "/v1/chat/completions"
AUTO: Final = "auto"
ROUTE_PREFIX: Final = "route:"
"""`model: route:NAME` lets the rules of that route decide, `model: auto` those of the default."""

DIGEST: Final = "request_sha256"
"""The key of what a line was asked: a run that resumes knows the question by it."""

ID_PREFIX: Final = "batch_req_"
_LINE_ID: Final = re.compile(r"batch_req_line_([0-9]+)")

_CARRIED_EMPTY: Final = frozenset({"refusal", "audio", "function_call", "annotations"})
"""Keys of a message that say nothing when they are null or empty, as copies of responses have."""


_SPOKEN: Final = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
"""Keys of a message that a request has."""

_UNANSWERABLE: Final[Mapping[str, Sequence[Any]]] = {
    "functions": (),
    "function_call": ("none",),
    "modalities": (["text"],),
    "audio": (),
    "logprobs": (),
    "top_logprobs": (),
    "stream": (),
    "stream_options": (),
    "n": (1,),
}
"""Keys of a body that ask for what an answer can't carry, and with which values they don't."""


class BadLine(Exception):
    """A line of the input is no request. `code` is for programs; the message says what to do."""

    def __init__(self, code: str, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.custom_id = custom_id


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input: its name and its request."""

    custom_id: str
    request: Request


def read_line(raw: bytes, number: int, catalog: Catalog, default_route: str) -> Line:
    """Return what line `number` of the input asks. Raises `BadLine`."""
    data = parse(raw, number)
    custom_id = data.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id.strip():
        what = "is missing" if custom_id is None else "must be text, and not empty"
        raise BadLine("invalid_custom_id", f"line {number}: custom_id {what}")
    try:
        _check_envelope(data)
        # Half of a surrogate pair can be written in JSON, and is no text.
        json.dumps(data, ensure_ascii=False).encode()
        request = _request(data.get("body"), catalog, default_route, custom_id)
    except BadLine as error:
        raise BadLine(error.code, f"line {number}: {error}", custom_id) from error
    except UnicodeEncodeError as error:
        message = f"line {number}: it holds half of a surrogate pair (\\ud800 to \\udfff)"
        raise BadLine("invalid_encoding", message, custom_id) from error
    return Line(custom_id, request)


def parse(raw: bytes, number: int) -> dict[str, Any]:
    """Return the JSON object on a line. Raises `BadLine`."""
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BadLine(
            "invalid_encoding",
            f"line {number}: it is not UTF-8 (byte {error.start + 1}): convert the file",
        ) from error
    try:
        # Without its end: a mistake there would be in a line of its own.
        data = json.loads(text.rstrip("\r\n"), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadLine(
            "invalid_json", f"line {number}: it is not JSON: {error.msg} at column {error.colno}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadLine("invalid_json", f"line {number}: it is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadLine(
            "invalid_json", f"line {number}: it must be an object with custom_id, method, url, body"
        )
    return data


def answer_line(custom_id: str, answer: Answer, digest: str) -> dict[str, Any]:
    """Return the line of an answered request; `digest` is that of the request.

    What the format has no place for is under `modelyard` in the body; its `model` is the
    catalog's name.
    """
    usage = answer.usage
    decision = answer.decision
    return {
        "id": request_line_id(answer.id),
        "custom_id": custom_id,
        "response": {
            "status_code": 200,
            "request_id": answer.id,
            "body": {
                "id": f"chatcmpl-{answer.id}",
                "object": "chat.completion",
                "created": int(decision.decided_at),
                "model": answer.model,
                "choices": [
                    {
                        "index": 0,
                        "message": _answered(answer),
                        "logprobs": None,
                        "finish_reason": answer.finish_reason,
                    }
                ],
                "usage": _usage(usage),
                "modelyard": {
                    DIGEST: digest,
                    "provider_model": answer.provider_model,
                    "intent": decision.intent,
                    "why": decision.why,
                    "cost_usd": answer.cost_usd,
                    "extractive": answer.extractive,
                    "attempts": len(answer.attempts),
                    "timings_ms": {
                        name.removesuffix("_ms"): took
                        for name, took in answer.timings.model_dump().items()
                    },
                },
            },
        },
        "error": None,
    }


def _answered(answer: Answer) -> dict[str, Any]:
    calls = [call.encode() for call in answer.tool_calls]
    # As the API has it: no text beside calls is null.
    text = answer.text or (None if calls else "")
    said = {"role": "assistant", "content": text, "refusal": None}
    return {**said, "tool_calls": calls} if calls else said


def _usage(usage: Usage) -> dict[str, Any]:
    told: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_input_tokens:
        told["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.reasoning_tokens:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return told


def error_line(
    id: str, custom_id: str | None, code: str, message: str, digest: str
) -> dict[str, Any]:
    """Return the line of a request that failed, for the error file.

    `digest` is that of the request, or of the input line if that is no request.
    """
    return {
        "id": id,
        "custom_id": custom_id,
        "response": None,
        "error": {"code": code, "message": message, DIGEST: digest},
    }


def asked_digest(record: Mapping[str, Any]) -> str | None:
    """Return the digest of what an output or error line is the outcome of."""
    holder: Any = record
    keys = ("error",) if record["response"] is None else ("response", "body", "modelyard")
    for key in (*keys, DIGEST):
        holder = holder.get(key) if isinstance(holder, dict) else None
    return holder if isinstance(holder, str) else None


def request_line_id(id: str) -> str:
    """Return the `id` of the output line of the request `id`."""
    return ID_PREFIX + id.replace("-", "")


def bad_line_id(number: int) -> str:
    """Return the `id` of the error line of an input line that never became a request.

    Lines count from 1; 0 stands for the file as a whole.
    """
    return f"{ID_PREFIX}line_{number}"


def bad_line_number(record: Mapping[str, Any]) -> int | None:
    """Return which input line this error line is about, if that never became a request."""
    match = _LINE_ID.fullmatch(str(record.get("id")))
    return int(match[1]) if match else None


def is_output(record: Mapping[str, Any]) -> bool:
    """Return whether a record has the shape of an output or error line."""
    if not {"id", "custom_id", "response", "error"} <= record.keys():
        return False
    error = record["error"]
    return isinstance(record["response"], dict) or (isinstance(error, dict) and "code" in error)


def pinned(model: str, catalog: Catalog) -> tuple[str, ...]:
    """Return the catalog's models that a body's `model` means: a name, or a provider's name.

    A file that was written for a provider has the provider's names.
    """
    names = [known.name for known in catalog.models if known.name == model]
    return tuple(names or (each.name for each in catalog.models if model in each.provider_models))


def target(model: Any, catalog: Catalog, default_route: str) -> tuple[str, tuple[str, ...]]:
    """Return the route and the pinned models that a body's `model` means. Raises `BadLine`."""
    if model is None or model in ("", AUTO):
        return default_route, ()
    if not isinstance(model, str):
        raise BadLine("model_not_found", "body.model must be text")
    if model.startswith(ROUTE_PREFIX):
        route = model.removeprefix(ROUTE_PREFIX)
        try:
            catalog.route(route)
        except UnknownName as error:
            raise BadLine("model_not_found", f"body.model: {error}") from error
        return route, ()
    names = pinned(model, catalog)
    if not names:
        known = ", ".join(known.name for known in catalog.models)
        raise BadLine(
            "model_not_found",
            f"body.model: the catalog has no model {model[:80]!r}: use one of {known}, or 'auto' "
            "to let the router decide",
        )
    return default_route, names


def _check_envelope(data: Mapping[str, Any]) -> None:
    if data.get("method") != METHOD:
        raise BadLine("invalid_method", f"method must be {METHOD}")
    if data.get("url") != URL:
        raise BadLine("invalid_url", f"url must be {URL}: only chat completions are supported")


def _request(body: Any, catalog: Catalog, default_route: str, custom_id: str) -> Request:
    if not isinstance(body, dict):
        raise BadLine("invalid_request", "body must be an object")
    for key, harmless in _UNANSWERABLE.items():
        value = body.get(key)
        if value and value not in harmless:
            raise BadLine(
                "invalid_request",
                f"body.{key} is not supported, leave it out: an answer is one text or tool calls, "
                "without audio and log probabilities, and is never streamed",
            )
    route, models = target(body.get("model"), catalog, default_route)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadLine("invalid_request", "body.messages must be a list, and not empty")
    beside = {"model", "messages", *_UNANSWERABLE}
    # Without tools there is nothing to choose.
    beside |= {key for key in ("tools", "tool_choice") if not body.get("tools")}
    try:
        return Request.model_validate(
            {
                "messages": [_message(message, at) for at, message in enumerate(messages)],
                "route": route,
                "models": models,
                "lane": Lane.BATCH,
                "params": {key: value for key, value in body.items() if key not in beside},
                "metadata": {"custom_id": custom_id},
            }
        )
    except ValidationError as error:
        raise BadLine("invalid_request", f"body: {problems(error)}") from error


def _message(message: Any, at: int) -> dict[str, Any]:
    where = f"body.messages[{at}]"
    if not isinstance(message, dict):
        raise BadLine("invalid_request", f"{where} must be an object with role and content")
    for key, value in message.items():
        if key not in _SPOKEN and not (key in _CARRIED_EMPTY and not value):
            raise BadLine("invalid_request", f"{where}.{key} is not supported")
    said = {key: message[key] for key in _SPOKEN if message.get(key)}
    content = message.get("content")
    if content is None and said.get("tool_calls"):
        content = ""
    return {**said, "role": message.get("role"), "content": _content(content, where)}


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Return what a message says; parts that are all text become one."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise BadLine(
            "invalid_request", f"{where}.content must be text, or a list of text and image parts"
        )
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in {"text", "image_url"}:
            what = f"a part of type {kind!r}" if isinstance(kind, str) else "what is no part"
            raise BadLine(
                "invalid_request",
                f"{where}.content has {what}: only text and image_url parts are supported",
            )
        if kind == "text" and not isinstance(part.get("text"), str):
            raise BadLine("invalid_request", f"{where}.content has a text part without text")
    if any(part["type"] == "image_url" for part in content):
        return content
    return "\n".join(part["text"] for part in content)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
