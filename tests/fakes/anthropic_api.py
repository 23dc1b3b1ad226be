"""Anthropic's Messages API, as strict as it is: https://platform.claude.com/docs/en/api/messages"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator

from fakes.server import Asked, Canned, FakeServer, closed

_TEXT: Final = {"type": "string", "pattern": r"\S"}
_NAME: Final = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_ID: Final = {"type": "string", "pattern": "^[a-zA-Z0-9_-]+$"}
_FLAG: Final = {"type": "boolean"}
_CACHE: Final = closed("type", type={"const": "ephemeral"}, ttl={"enum": ["5m", "1h"]})
_SAID: Final = closed("type text", type={"const": "text"}, text=_TEXT, cache_control=_CACHE)
_BASE64: Final = closed(
    "type media_type data",
    type={"const": "base64"},
    media_type={"enum": ["image/jpeg", "image/png", "image/gif", "image/webp"]},
    data={"type": "string", "pattern": "^[A-Za-z0-9+/]+={0,2}$"},
)
_URL: Final = closed(
    "type url", type={"const": "url"}, url={"type": "string", "pattern": "^https://"}
)
_IMAGE: Final = closed("type source", type={"const": "image"}, source={"anyOf": [_BASE64, _URL]})
_USE: Final = closed(
    "type id name input", type={"const": "tool_use"}, id=_ID, name=_NAME, input={"type": "object"}
)
_THINKING: Final = closed(
    "type thinking signature",
    type={"const": "thinking"},
    thinking={"type": "string"},
    signature={"type": "string", "pattern": "^EqQ"},
)
_REDACTED: Final = closed(
    "type data",
    type={"const": "redacted_thinking"},
    data={"type": "string", "pattern": "^EmwK"},
)
_DISPLAY: Final = {"enum": ["summarized", "omitted"]}
VERSIONS: Final = ("2023-06-01", "2026-10-21")
"""What the header `anthropic-version` may say. The later ones take no sampling parameters."""
_SAMPLING: Final = ("temperature", "top_p", "top_k")
BETAS: Final = frozenset({"interleaved-thinking-2025-05-14", "context-1m-2025-08-07"})
"""Names that the header `anthropic-beta` may have."""
_RESULT: Final = closed(
    "type tool_use_id",
    type={"const": "tool_result"},
    tool_use_id=_ID,
    content={"anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": [_SAID, _IMAGE]}}]},
    is_error=_FLAG,
)


def _turn(role: str, *blocks: Any) -> dict[str, Any]:
    content = {"type": "array", "minItems": 1, "items": {"anyOf": list(blocks)}}
    return closed("role content", role={"const": role}, content={"anyOf": [_TEXT, content]})


_CUSTOM: Final = closed(
    "name input_schema",
    type={"const": "custom"},
    name=_NAME,
    description={"type": "string", "minLength": 1},
    input_schema={
        "type": "object",
        "properties": {"type": {"const": "object"}},
        "required": ["type"],
    },
    strict=_FLAG,
    cache_control=_CACHE,
)
_SERVER_TOOL: Final = {
    "type": "object",
    "properties": {"type": {"type": "string", "pattern": r"_\d{8}$"}, "name": _NAME},
    "required": ["type", "name"],
}
_BODY: Final = closed(
    "model max_tokens messages",
    model={"type": "string", "minLength": 1},
    max_tokens={"type": "integer", "minimum": 1},
    messages={
        "type": "array",
        "minItems": 1,
        "items": {
            "anyOf": [
                _turn("user", _SAID, _IMAGE, _RESULT),
                _turn("assistant", _SAID, _USE, _THINKING, _REDACTED),
            ]
        },
    },
    system={"anyOf": [{"type": "string"}, {"type": "array", "items": _SAID}]},
    temperature={"type": "number", "minimum": 0, "maximum": 1},
    top_p={"type": "number", "minimum": 0, "maximum": 1},
    top_k={"type": "integer", "minimum": 0},
    stop_sequences={"type": "array", "items": _TEXT},
    stream=_FLAG,
    metadata=closed(user_id={"type": "string"}),
    service_tier={"enum": ["auto", "standard_only"]},
    container={"type": "string"},
    inference_geo={"type": "string"},
    cache_control=_CACHE,
    diagnostics=closed(previous_message_id={"type": ["string", "null"]}),
    speed={"enum": ["standard", "fast"]},
    thinking={
        "anyOf": [
            closed(
                "type budget_tokens",
                type={"const": "enabled"},
                budget_tokens={"type": "integer", "minimum": 1024},
                display=_DISPLAY,
            ),
            closed("type", type={"const": "adaptive"}, display=_DISPLAY),
            closed("type", type={"enum": ["disabled", "between_tools"]}),
        ]
    },
    output_config=closed(
        effort={"enum": ["low", "medium", "high", "xhigh", "max"]},
        format=closed("type schema", type={"const": "json_schema"}, schema={"type": "object"}),
    ),
    tools={"type": "array", "items": {"anyOf": [_CUSTOM, _SERVER_TOOL]}},
    tool_choice={
        "anyOf": [
            closed("type", type={"enum": ["auto", "any"]}, disable_parallel_tool_use=_FLAG),
            closed(
                "type name", type={"const": "tool"}, name=_NAME, disable_parallel_tool_use=_FLAG
            ),
            closed("type", type={"const": "none"}),
        ]
    },
)
_CHECK: Final = Draft202012Validator(_BODY)


def problem(body: Any, version: str = VERSIONS[0]) -> str | None:
    """Return what is wrong with the body of a call, or None."""
    for name in _SAMPLING:
        if version != VERSIONS[0] and name in body:
            return f"{name}: Extra inputs are not permitted"
    for error in _CHECK.iter_errors(body):
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    return (
        _problem_of_tools(body)
        or _problem_of_results(body)
        or _problem_of_thoughts(body)
        or _problem_of_end(body)
    )


def _problem_of_thoughts(body: Mapping[str, Any]) -> str | None:
    """A turn is all from the user's last words on: it is thought about, or it is not."""
    how = body.get("thinking", {}).get("type", "adaptive")
    messages = body["messages"]
    own = {
        number: [block["type"] for block in _blocks(message)]
        for number, message in enumerate(messages)
        if message["role"] == "assistant"
    }
    spoke = [
        number
        for number, message in enumerate(messages)
        if message["role"] == "user"
        and any(block["type"] != "tool_result" for block in _blocks(message))
    ]
    turn = [kinds for number, kinds in own.items() if number > max(spoke, default=-1)]
    begins = bool(turn) and turn[0][0].endswith("thinking")
    if how == "enabled" and turn and not begins:
        return "Expected `thinking` or `redacted_thinking`, but found `tool_use`."
    if how == "disabled" and any(kind.endswith("thinking") for kinds in turn for kind in kinds):
        return "When thinking is disabled, an `assistant` message cannot contain `thinking`."
    return None


def _problem_of_tools(body: Mapping[str, Any]) -> str | None:
    names = [tool["name"] for tool in body.get("tools", ())]
    choice = body.get("tool_choice")
    if len(set(names)) < len(names):
        return "tools: Tool names must be unique."
    if choice and not names:
        return "tool_choice may only be specified while providing tools."
    if choice and choice["type"] == "tool" and choice["name"] not in names:
        return f"Tool '{choice['name']}' not found in provided tools"
    return None


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _problem_of_results(body: Mapping[str, Any]) -> str | None:
    known: set[str] = set()
    asked: list[str] = []
    for number, message in enumerate([*body["messages"], {"role": "user", "content": []}]):
        kinds = [block["type"] for block in _blocks(message)]
        results = [each["tool_use_id"] for each in _blocks(message) if "tool_use_id" in each]
        if sorted(results) != sorted(asked):
            return (
                f"messages.{number}: `tool_use` ids were found without `tool_result` blocks "
                "immediately after, or the other way round"
            )
        if kinds[: len(results)] != ["tool_result"] * len(results):
            return f"messages.{number}: tool_result blocks must come first"
        asked = [block["id"] for block in _blocks(message) if block["type"] == "tool_use"]
        if known.intersection(asked) or len(set(asked)) < len(asked):
            return "messages: `tool_use` ids must be unique"
        known.update(asked)
    return None


def _problem_of_end(body: Mapping[str, Any]) -> str | None:
    last = body["messages"][-1]
    said = _blocks(last)[-1].get("text", "")
    if last["role"] == "assistant" and said != said.rstrip():
        return "messages: final assistant content cannot end with trailing whitespace"
    budget = body.get("thinking", {}).get("budget_tokens", 0)
    return None if budget < body["max_tokens"] else "`max_tokens` must be greater than the budget"


def error(kind: str, message: str, **more: Any) -> dict[str, Any]:
    """Return the body of an error."""
    inner = {"type": kind, "message": message, **more}
    return {"type": "error", "error": inner, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def message(*content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the body of an answer."""
    return {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(content),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
        **more,
    }


def text(said: str) -> dict[str, Any]:
    """Return a block of text."""
    return {"type": "text", "text": said}


def events(*data: Mapping[str, Any]) -> bytes:
    """Return a stream of events, each named by its type."""
    lines = (f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in data)
    return "".join(lines).encode()


def stream_of(said: str) -> bytes:
    """Return the stream of an answer in words."""
    return stream_of_message(message(text(said)))


def stream_of_message(whole: Mapping[str, Any]) -> bytes:
    """Return the events in which a message comes."""
    usage = {**whole["usage"], "output_tokens": 1}
    start = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    start.pop("stop_details", None)
    end = {key: whole[key] for key in _LAST if key in whole}
    told = {"output_tokens": whole["usage"]["output_tokens"]}
    return events(
        {"type": "message_start", "message": start},
        {"type": "ping"},
        *(
            event
            for index, block in enumerate(whole["content"])
            for event in _events_of(index, block)
        ),
        {"type": "message_delta", "delta": end, "usage": told},
        {"type": "message_stop"},
    )


_LAST: Final = ("stop_reason", "stop_sequence", "stop_details")


def _events_of(index: int, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    start, deltas = dict(block), []
    if block["type"] == "text":
        start["text"] = ""
        deltas = [("text_delta", "text", piece) for piece in block["text"].split(" ")]
        deltas = [(*kind, piece + " ") for *kind, piece in deltas[:-1]] + deltas[-1:]
    elif block["type"] == "tool_use":
        start["input"] = {}
        said = json.dumps(block["input"])
        deltas = [("input_json_delta", "partial_json", piece) for piece in ("", said[:4], said[4:])]
    elif block["type"] == "thinking":
        start |= {"thinking": "", "signature": ""}
        deltas = [
            ("thinking_delta", "thinking", block["thinking"]),
            ("signature_delta", "signature", block["signature"]),
        ]
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for kind, key, piece in deltas:
        delta = {"type": kind, key: piece}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


class AnthropicApi(FakeServer):
    """The API with one key. It answers with the number of turns that it was sent."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def refusal(self, asked: Asked) -> Canned | None:
        if asked.path != "/v1/messages":
            return Canned(404, error("not_found_error", "Not Found"))
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key not in (asked.headers.get("x-api-key"), bearer):
            return Canned(401, error("authentication_error", "invalid x-api-key"))
        version = asked.headers.get("anthropic-version", "")
        if version not in VERSIONS:
            wanted = "anthropic-version: header is required"
            return Canned(400, error("invalid_request_error", wanted))
        betas = asked.headers.get("anthropic-beta", "")
        if betas and not set(betas.split(",")) <= BETAS:
            unknown = f"Unexpected value(s) `{betas}` for the `anthropic-beta` header."
            return Canned(400, error("invalid_request_error", unknown))
        wrong = problem(asked.body, version)
        return Canned(400, error("invalid_request_error", wrong)) if wrong else None

    def default(self, asked: Asked) -> Canned:
        body = asked.body
        said = f"{body['model']} read {len(body['messages'])} turns"
        if body.get("stream"):
            return Canned(200, stream_of(said), {"content-type": "text/event-stream"})
        return Canned(200, message(text(said), model=body["model"]))
