"""The body of a call of Bedrock's Converse API. The table of parameters is in `bedrock`."""

import re
from collections.abc import Mapping
from typing import Any, Final

from model_workers.providers.base import Unsupported
from model_workers.providers.betas import PARAM, read_betas
from model_workers.providers.blocks import Block, Words, is_thoughtless, write_turns
from model_workers.providers.opaque import blocks
from model_workers.providers.params import EFFORTS, Params, put, write_json
from model_workers.providers.tools import Choice, Function, read_choice, read_tools
from model_workers.providers.turns import Bytes, Turn, system_texts, turns
from modelyard.messages import Request

PROVIDER: Final = "Bedrock"

NATIVE: Final = (
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "inferenceConfig",
    "outputConfig",
    "performanceConfig",
    "promptVariables",
    "requestMetadata",
    "serviceTier",
    "toolConfig",
)
"""Parameters of Converse that are passed on as they are."""

THOUGHTS: Final = "reasoningContent"
"""Under which key the thoughts before a call are kept with it (`providers.opaque`)."""

_OWN_TOOLS: Final = frozenset({"toolSpec", "systemTool", "cachePoint"})
_METADATA: Final = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}", re.ASCII)
_MOST_METADATA: Final = 16
_TIERS: Final = frozenset({"default", "flex", "priority", "reserved"})
_MORE: Final = "give it in additionalModelRequestFields, under the name that the model has for it"
_ADVICE: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("top_k", "thinking", "seed", "frequency_penalty", "presence_penalty", "logprobs"), _MORE
    ),
    "system": "give it as a system turn",
    "parallel_tool_calls": _MORE,
    "prompt_cache_key": "leave it out; its prompt cache needs none",
}


def encode_call(request: Request, *, by: str = "") -> bytes:
    """Return the body of a call; `by` is whose thoughts go back (`providers.opaque`).

    Raises `Unsupported`, and `TypeError` or `ValueError` for what JSON can't hold.
    """
    params = Params(PROVIDER, request.params)
    found = turns(PROVIDER, request.messages)
    if found[0].role != "user":
        raise Unsupported(
            f"{PROVIDER} needs a user turn before the first assistant turn: add one, or put that "
            "turn's text into the system turn"
        )
    body: dict[str, Any] = params.native(*NATIVE)
    if system := system_texts(PROVIDER, request.messages):
        body["system"] = [{"text": text} for text in system]
    for name, key, value in (
        ("max_tokens", "maxTokens", params.output_limit()),
        ("temperature", "temperature", params.number("temperature", 0, 1)),
        ("top_p", "topP", params.number("top_p", 0, 1)),
        ("stop", "stopSequences", params.stop() or None),
    ):
        put(params, body, ("inferenceConfig", key), value, name)
    _put_metadata(params, body)
    _put_schema(params, body)
    effort = params.text("reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        raise params.wrong("reasoning_effort", f"{PROVIDER}'s are low, medium, high, xhigh and max")
    put(params, body, ("outputConfig", "effort"), effort, "reasoning_effort")
    tier = params.text("service_tier")
    if tier not in (None, "auto"):
        if tier not in _TIERS:
            raise params.wrong("service_tier", f"{PROVIDER}'s are {', '.join(sorted(_TIERS))}")
        put(params, body, ("serviceTier",), {"type": tier}, "service_tier")
    _put_tools(params, body, found)
    betas = read_betas(params) or None
    put(params, body, ("additionalModelRequestFields", PARAM), betas, PARAM)
    _put_messages(body, found, by)
    params.end(_ADVICE)
    return write_json(body).encode()


def _image(found: Bytes | str) -> Block:
    if isinstance(found, str):
        raise Unsupported(
            f"{PROVIDER} fetches no image from an address: send it as data:image/...;base64,"
        )
    return {"image": {"format": found.format, "source": {"bytes": found.data}}}


_WORDS: Final = Words(
    provider=PROVIDER,
    text=lambda text: {"text": text},
    image=_image,
    result=lambda id, content: {"toolResult": {"toolUseId": id, "content": content}},
    use=lambda id, name, input: {"toolUse": {"toolUseId": id, "name": name, "input": input}},
    thoughts=lambda kept: [{THOUGHTS: block} for block in blocks(kept, THOUGHTS)],
)


def _put_messages(body: dict[str, Any], found: list[Turn], by: str) -> None:
    more = body.get("additionalModelRequestFields")
    thinking = more.get("thinking") if isinstance(more, dict) else None
    how = thinking.get("type") if isinstance(thinking, dict) else None
    if more and how == "enabled" and is_thoughtless(_WORDS, found, by):
        # As with Anthropic: nobody goes on with thoughts that are not there.
        how = "disabled"
        body["additionalModelRequestFields"] = {**more, "thinking": {"type": how}}
    body["messages"] = write_turns(_WORDS, found, "" if how == "disabled" else by)


def _put_metadata(params: Params, body: dict[str, Any]) -> None:
    pairs = params.strings("metadata")
    for name in ("user", "safety_identifier"):
        value = params.text(name)
        if value is not None and pairs.setdefault(name, value) != value:
            raise params.wrong(name, f"metadata.{name} says otherwise: give one of them")
    for name, value in pairs.items():
        if not (name and _METADATA.fullmatch(name) and _METADATA.fullmatch(value)):
            raise params.wrong(
                "metadata", f"{name!r} or its value is too long, or has letters that it does not"
            )
    if len(pairs) > _MOST_METADATA:
        raise params.wrong("metadata", f"it takes {_MOST_METADATA} pairs at most")
    put(params, body, ("requestMetadata",), pairs or None, "metadata")


def _put_schema(params: Params, body: dict[str, Any]) -> None:
    asked = params.schema()
    if asked is None:
        return
    told = {key: asked[key] for key in ("name", "description") if asked.get(key)}
    # The schema is JSON within JSON there. `strict` it always is.
    schema = {"schema": write_json(asked["schema"]), **told}
    format = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    put(params, body, ("outputConfig", "textFormat"), format, "response_format")


def _put_tools(params: Params, body: dict[str, Any], found: list[Turn]) -> None:
    tools = read_tools(
        params, lambda tool: len(tool) == 1 and tool.keys() <= _OWN_TOOLS, frozenset()
    )
    choice = read_choice(params, tools)
    if params.flag("parallel_tool_calls") is False and (tools or "toolConfig" in body):
        raise params.wrong("parallel_tool_calls", _MORE)
    used = any(each.tool_calls for turn in found for each in turn.messages)
    if not tools:
        if used and "toolConfig" not in body:
            raise params.wrong("messages", "they hold tool calls, so give the tools, too")
        return
    if isinstance(choice, Choice) and choice.kind == "none":
        if used:
            raise params.wrong(
                "tool_choice", "it has no 'none', and the tools that were called have to be told"
            )
        return  # A tool that it does not know of can't be called.
    told = [{"toolSpec": _tool(tool)} if isinstance(tool, Function) else tool for tool in tools]
    put(params, body, ("toolConfig", "tools"), told, "tools")
    told_choice = _choice(choice) if isinstance(choice, Choice) else choice
    put(params, body, ("toolConfig", "toolChoice"), told_choice, "tool_choice")


def _tool(function: Function) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": function.name, "inputSchema": {"json": function.schema}}
    if function.description:
        tool["description"] = function.description
    if function.strict is not None:
        tool["strict"] = function.strict
    return tool


def _choice(choice: Choice) -> dict[str, Any]:
    if choice.kind == "named":
        return {"tool": {"name": choice.name}}
    return {"any" if choice.kind == "required" else "auto": {}}
