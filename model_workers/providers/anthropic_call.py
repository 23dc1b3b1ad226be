"""The body of a call of Anthropic's Messages API. The table of parameters is in `anthropic`."""

import re
from collections.abc import Mapping
from typing import Any, Final

from model_workers.providers.betas import read_betas
from model_workers.providers.blocks import Block, Words, is_thoughtless, write_turns
from model_workers.providers.opaque import author, blocks
from model_workers.providers.params import EFFORTS, Params, put, write_json
from model_workers.providers.tools import Choice, Function, read_choice, read_tools
from model_workers.providers.turns import Bytes, Turn, system_texts, turns
from modelyard.catalog import Model
from modelyard.messages import Request

PROVIDER: Final = "Anthropic"

NATIVE: Final = (
    "cache_control",
    "container",
    "diagnostics",
    "inference_geo",
    "metadata",
    "output_config",
    "speed",
    "stop_sequences",
    "thinking",
    "top_k",
)
"""Parameters of the Messages API that are passed on as they are."""

NO_SAMPLING: Final = "2026-10-21"
"""The first version of the API that refuses `temperature`, `top_p` and `top_k`, whatever they are:
https://platform.claude.com/docs/en/api/migration-2026-10-21"""
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

THOUGHTS: Final = "thinking"
"""Under which key the thoughts before a call are kept with it (`providers.opaque`)."""
THINKING: Final = ("thinking", "redacted_thinking")
"""Types of blocks that are thoughts."""

_TIERS: Final[Mapping[str, str]] = {
    "auto": "auto",
    "default": "standard_only",
    "standard_only": "standard_only",
}
_ADVICE: Final[Mapping[str, str]] = {
    "system": "give it as a system turn",
    "anthropic_version": "give the endpoint an api_version",
    "prompt_cache_key": "use cache_control",
}


def encode_call(model: Model, request: Request, *, version: str = "") -> bytes:
    """Return the body of a call in a `version` of the API.

    Raises `Unsupported`, and `TypeError` or `ValueError` for what JSON can't hold.
    """
    params = Params(PROVIDER, request.params)
    _refuse_sampling(params, version)
    found = turns(PROVIDER, request.messages)
    body: dict[str, Any] = {
        "model": model.provider_model,
        "max_tokens": params.output_limit() or model.max_output_tokens,
        **params.native(*NATIVE),
    }
    if system := system_texts(PROVIDER, request.messages):
        body["system"] = [{"type": "text", "text": text} for text in system]
    put(params, body, ("temperature",), params.number("temperature", 0, 1), "temperature")
    put(params, body, ("top_p",), params.number("top_p", 0, 1), "top_p")
    put(params, body, ("stop_sequences",), params.stop() or None, "stop")
    _put_user(params, body)
    _put_schema(params, body)
    _put_effort(params, body)
    _put_tier(params, body)
    _put_tools(params, body)
    _put_messages(body, found, author(model))
    read_betas(params)  # They are in a header.
    params.end(_ADVICE)
    if model.stream:
        body["stream"] = True
    return write_json(body).encode()


def _refuse_sampling(params: Params, version: str) -> None:
    if not _DATE.fullmatch(version) or version < NO_SAMPLING:
        return
    for name in ("temperature", "top_p", "top_k"):
        if name in params:
            raise params.wrong(
                name, f"API version {version} has none: leave it out, or call an earlier version"
            )


def _image(found: Bytes | str) -> Block:
    source: Block = {"type": "url", "url": found}
    if isinstance(found, Bytes):
        source = {"type": "base64", "media_type": f"image/{found.format}", "data": found.data}
    return {"type": "image", "source": source}


def _result(id: str, content: list[Block]) -> Block:
    result: Block = {"type": "tool_result", "tool_use_id": id}
    return {**result, "content": content} if content else result


def _thoughts(kept: Mapping[str, Any]) -> list[Block]:
    return [block for block in blocks(kept, THOUGHTS) if block.get("type") in THINKING]


_WORDS: Final = Words(
    provider=PROVIDER,
    text=lambda text: {"type": "text", "text": text},
    image=_image,
    result=_result,
    use=lambda id, name, input: {"type": "tool_use", "id": id, "name": name, "input": input},
    thoughts=_thoughts,
)


def _put_messages(body: dict[str, Any], found: list[Turn], by: str) -> None:
    thinking = body.get("thinking")
    how = thinking.get("type") if isinstance(thinking, dict) else None
    if how == "enabled" and is_thoughtless(_WORDS, found, by):
        # Another model made the calls, or the thoughts were lost: it could not go on thinking.
        how = "disabled"
        body["thinking"] = {"type": how}
    # Without thinking it takes no thoughts either.
    body["messages"] = write_turns(_WORDS, found, "" if how == "disabled" else by)


def _put_user(params: Params, body: dict[str, Any]) -> None:
    about = body.get("metadata", {})
    if not isinstance(about, dict) or about.keys() - {"user_id"}:
        raise params.wrong(
            "metadata", "it holds a user_id only: keep what is yours in the request's metadata"
        )
    user, other = params.text("user"), params.text("safety_identifier")
    if user is not None and other is not None and user != other:
        raise params.wrong("user", "safety_identifier says otherwise: give one of them")
    put(params, body, ("metadata", "user_id"), user if user is not None else other, "user")


def _put_schema(params: Params, body: dict[str, Any]) -> None:
    asked = params.schema()
    if asked is None:
        return
    schema = dict(asked["schema"])
    if asked.get("description"):
        schema.setdefault("description", asked["description"])
    # Its `name` is a label that says nothing to the model, and `strict` it always is.
    format = {"type": "json_schema", "schema": schema}
    put(params, body, ("output_config", "format"), format, "response_format")


def _put_effort(params: Params, body: dict[str, Any]) -> None:
    effort = params.text("reasoning_effort")
    if effort == "none":
        put(params, body, ("thinking",), {"type": "disabled"}, "reasoning_effort")
    elif effort is not None and effort not in EFFORTS:
        raise params.wrong("reasoning_effort", f"{PROVIDER}'s are low, medium, high, xhigh and max")
    else:
        put(params, body, ("output_config", "effort"), effort, "reasoning_effort")


def _put_tier(params: Params, body: dict[str, Any]) -> None:
    tier = params.text("service_tier")
    if tier is not None and tier not in _TIERS:
        raise params.wrong("service_tier", f"{PROVIDER}'s are auto and standard_only")
    put(params, body, ("service_tier",), _TIERS.get(tier or ""), "service_tier")


def _is_native(tool: Mapping[str, Any]) -> bool:
    kind = tool.get("type")
    return "input_schema" in tool or (isinstance(kind, str) and kind not in ("function", "custom"))


def _put_tools(params: Params, body: dict[str, Any]) -> None:
    tools = read_tools(params, _is_native, frozenset({"cache_control"}))
    choice = read_choice(params, tools)
    parallel = params.flag("parallel_tool_calls")
    if not tools:
        return
    body["tools"] = [_tool(tool) if isinstance(tool, Function) else tool for tool in tools]
    said_so = dict(_choice(choice) if isinstance(choice, Choice) else choice or {})
    if parallel is False and said_so.get("type") != "none":
        said_so = {"type": "auto", **said_so}
        put(params, said_so, ("disable_parallel_tool_use",), True, "parallel_tool_calls")
    if said_so:
        body["tool_choice"] = said_so


def _tool(function: Function) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": function.name, "input_schema": function.schema}
    if function.description:
        tool["description"] = function.description
    if function.strict is not None:
        tool["strict"] = function.strict
    return {**tool, **function.more}


def _choice(choice: Choice) -> dict[str, Any]:
    if choice.kind == "named":
        return {"type": "tool", "name": choice.name}
    return {"type": "any" if choice.kind == "required" else choice.kind}
