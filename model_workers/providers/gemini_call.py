"""The body of a call of Gemini's generateContent. The table of parameters is in `vertex`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from model_workers.providers.base import Unsupported
from model_workers.providers.gemini_images import PROVIDER, image_part, resolution
from model_workers.providers.opaque import unseal
from model_workers.providers.params import Params, put, write_json
from model_workers.providers.tools import Choice, Function, read_choice, read_tools
from model_workers.providers.turns import Turn, said, system_texts, tool_input, turns
from modelyard.messages import Message, Request, ToolCall

NATIVE: Final = (
    "cachedContent",
    "generationConfig",
    "labels",
    "modelArmorConfig",
    "safetySettings",
    "toolConfig",
)
"""Parameters of generateContent that are passed on as they are."""

MOST_STOPS: Final = 5
MOST_CANDIDATES: Final = 8
MOST_LOGPROBS: Final = 20
MOST_INT32: Final = 2**31 - 1

PREFERENCES: Final[Mapping[str, str]] = {
    "quality": "PRIORITIZE_QUALITY",
    "balanced": "BALANCED",
    "cost": "PRIORITIZE_COST",
}
LEVELS: Final[Mapping[str, str]] = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
}
BUDGETS_TOKENS: Final[Mapping[str, int]] = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
}
"""What Google's own OpenAI-compatible door makes of `reasoning_effort` for Gemini 2.5:
https://ai.google.dev/gemini-api/docs/openai#thinking"""

SIGNATURE: Final = "thoughtSignature"

UNSIGNED: Final = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""Stands for the signature of a thought that is not known: `skip_thought_signature_validator`, as
base64. From Gemini 3 on, a call that the model did not make itself is refused without it:
https://ai.google.dev/gemini-api/docs/thought-signatures"""

_OWN_TOOLS: Final = frozenset(
    {"enterpriseWebSearch", "googleMaps", "googleSearch", "retrieval", "urlContext"}
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_GENERATION: Final = re.compile(r"gemini-(\d+)")
_LATEST: Final = re.compile(r"gemini-[a-z-]+-latest")
_ADVICE: Final[Mapping[str, str]] = {
    "user": "use labels",
    "safety_identifier": "use labels",
    "metadata": "use labels, or keep it in the request's metadata",
    "parallel_tool_calls": "leave it out; how many calls it makes at a time is its own decision",
    "logit_bias": "leave it out; its tokens are others",
    "service_tier": "leave it out; what was bought for the project counts",
    "thinking": "use reasoning_effort, or generationConfig.thinkingConfig",
    "system": "give it as a system turn",
    "seed": "leave it out",
}
_MODES: Final[Mapping[str, str]] = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_PENALTIES: Final = (
    ("frequency_penalty", "frequencyPenalty"),
    ("presence_penalty", "presencePenalty"),
)


def encode_call(model: str, request: Request, *, selects: bool = False, by: str = "") -> bytes:
    """Return the body of a call; `selects` says that `model` is a model optimizer.

    `by` is whose signatures go back with tool calls (`providers.opaque`).

    Raises `Unsupported`, and `TypeError` or `ValueError` for what JSON can't hold.
    """
    params = Params(PROVIDER, request.params)
    found = turns(PROVIDER, request.messages)
    newest = (generation(model) or 0) >= 3
    contents = _contents(found, by, signed=newest)
    body: dict[str, Any] = {"contents": contents, **params.native(*NATIVE)}
    if system := system_texts(PROVIDER, request.messages):
        body["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    for name, key, value in (
        ("max_tokens", "maxOutputTokens", _output_limit(params)),
        ("temperature", "temperature", params.number("temperature", 0, 2)),
        ("top_p", "topP", params.number("top_p", 0, 1)),
        ("top_k", "topK", _whole(params, "top_k", 1, MOST_INT32)),
        ("stop", "stopSequences", _stop(params)),
        ("seed", "seed", _whole(params, "seed", -(2**31), MOST_INT32)),
        ("n", "candidateCount", _whole(params, "n", 1, MOST_CANDIDATES)),
        ("messages", "mediaResolution", resolution(request.messages)),
        *((name, key, params.number(name, -2, 2)) for name, key in _PENALTIES),
    ):
        put(params, body, ("generationConfig", key), value, name)
    _put_logprobs(params, body)
    _put_format(params, body)
    _put_thinking(params, body, model)
    _put_selection(params, body, selects)
    _put_tools(params, body)
    params.end(_ADVICE)
    return _write(body)


def generation(model: str) -> int | None:
    """Return the first number of a Gemini's version, or None for a name that does not say it."""
    name = model.rsplit("/", 1)[-1].lower()
    if said := _GENERATION.match(name):
        return int(said[1][:4])
    return 3 if _LATEST.match(name) else None


def _write(body: Mapping[str, Any]) -> bytes:
    try:
        return write_json(body).encode()
    except RecursionError:
        raise Unsupported(
            f"{PROVIDER} can't take arguments of a tool call that are nested so deep"
        ) from None


# -- the conversation


def _contents(found: Sequence[Turn], by: str, *, signed: bool) -> list[dict[str, Any]]:
    if found[0].role == "assistant" and any(each.tool_calls for each in found[0].messages):
        raise Unsupported(f"{PROVIDER} needs a user turn before the first tool call: add one")
    contents: list[dict[str, Any]] = []
    asked: list[ToolCall] = []
    for turn in found:
        if turn.role == "assistant":
            parts = [part for each in turn.messages for part in _parts(each)]
            asked = [call for each in turn.messages for call in each.tool_calls]
            calls = [_signed(call, by) for call in asked]
            if signed and calls:
                # The first call of a turn carries the signature of what was thought before.
                calls[0] = {SIGNATURE: UNSIGNED, **calls[0]}
            contents.append({"role": "model", "parts": [*parts, *calls]})
            continue
        # A call is known by its name and place there, so results have to be in the calls' order.
        results = {each.tool_call_id: each for each in turn.messages if each.role == "tool"}
        if results:
            told = [_result(call, results[call.id]) for call in asked]
            contents.append({"role": "user", "parts": told})
        rest = [part for each in turn.messages if each.role != "tool" for part in _parts(each)]
        if rest:
            contents.append({"role": "user", "parts": rest})
        asked = []
    return contents


def _signed(call: ToolCall, by: str) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": _call(call)}
    signature = unseal(by, call).get(SIGNATURE)
    return {**part, SIGNATURE: signature} if isinstance(signature, str) else part


def _call(call: ToolCall) -> dict[str, Any]:
    args = tool_input(PROVIDER, call.function)
    try:
        _write(args)
    except ValueError as error:  # numbers that are none, halves of characters
        if isinstance(error, Unsupported):
            raise
        raise Unsupported(
            f"{PROVIDER} can't take the arguments of the call of {call.function.name!r}: {error}"
        ) from None
    return {"name": function_name(call.function.name), "args": args}


def _result(call: ToolCall, message: Message) -> dict[str, Any]:
    if message.images:
        raise Unsupported(
            f"{PROVIDER} takes no image in a tool turn: put it into the user turn after it"
        )
    response = {"output": "\n".join(said(message))}
    return {
        "functionResponse": {"name": function_name(call.function.name), "response": response},
    }


def _parts(message: Message) -> list[dict[str, Any]]:
    """Return texts and images in their order, without texts that are blank."""
    if isinstance(message.content, str):
        return [{"text": text} for text in said(message)]
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if part.type == "image_url":
            parts.append(image_part(part.image_url))
        elif part.text.strip():
            parts.append({"text": part.text})
    return parts


# -- what is asked for


def _output_limit(params: Params) -> int | None:
    limit = params.output_limit()
    if limit is not None and limit > MOST_INT32:
        raise params.wrong("max_tokens", f"it has to be {MOST_INT32} at most")
    return limit


def _whole(params: Params, name: str, low: int, high: int) -> int | None:
    value = params.take(name)
    if value is not None and (type(value) is not int or not low <= value <= high):
        raise params.wrong(name, f"it has to be a whole number from {low} to {high}")
    number: int | None = value
    return number


def _stop(params: Params) -> list[str] | None:
    stops = params.stop()
    if len(stops) > MOST_STOPS:
        raise params.wrong("stop", f"it takes {MOST_STOPS} stop sequences at most")
    return stops or None


def _put_logprobs(params: Params, body: dict[str, Any]) -> None:
    wanted, top = params.flag("logprobs"), _whole(params, "top_logprobs", 0, MOST_LOGPROBS)
    if not wanted:
        if top:
            raise params.wrong("top_logprobs", "logprobs has to be true with it")
        return
    put(params, body, ("generationConfig", "responseLogprobs"), True, "logprobs")
    put(params, body, ("generationConfig", "logprobs"), top or None, "top_logprobs")


def _put_format(params: Params, body: dict[str, Any]) -> None:
    asked = params.mapping("response_format")
    kind = asked.get("type") if asked else "text"
    if asked is None or kind == "text":
        return
    if kind not in ("json_object", "json_schema"):
        raise params.wrong("response_format", "it has to be text, json_object or a json_schema")
    where = ("generationConfig", "responseMimeType")
    put(params, body, where, "application/json", "response_format")
    if kind == "json_object":
        return
    inner = asked.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(schema, dict):
        raise params.wrong("response_format", "its json_schema has no schema")
    # The name is for the one who asks; whether it is strict is no question there: it always is.
    if about := inner.get("description"):
        if not isinstance(about, str):
            raise params.wrong("response_format", "the description of its schema has to be text")
        schema = {"description": about, **schema}
    put(params, body, ("generationConfig", "responseJsonSchema"), schema, "response_format")


def _put_thinking(params: Params, body: dict[str, Any], model: str) -> None:
    effort = params.text("reasoning_effort")
    if effort is None:
        return
    version = generation(model)
    if version is None:
        raise params.wrong(
            "reasoning_effort",
            f"the name {model!r} does not say which version of Gemini it is: "
            "give generationConfig.thinkingConfig",
        )
    key = "thinkingLevel" if version >= 3 else "thinkingBudget"
    known: Mapping[str, str | int] = LEVELS if version >= 3 else BUDGETS_TOKENS
    if effort not in known:
        raise params.wrong("reasoning_effort", f"{model} knows {', '.join(known)}")
    where = ("generationConfig", "thinkingConfig", key)
    put(params, body, where, known[effort], "reasoning_effort")


def _put_selection(params: Params, body: dict[str, Any], selects: bool) -> None:
    asked = params.text("model_selection")
    if asked is None:
        return
    if asked not in PREFERENCES:
        raise params.wrong("model_selection", f"it has to be one of {', '.join(PREFERENCES)}")
    if not selects:
        raise params.wrong(
            "model_selection", "only a model optimizer selects: leave it out, or name one as model"
        )
    where = ("generationConfig", "modelConfig", "featureSelectionPreference")
    put(params, body, where, PREFERENCES[asked], "model_selection")


# -- tools


def function_name(name: str) -> str:
    """Return the name of a function. Raises `Unsupported` if it can't be one there."""
    if not _NAME.fullmatch(name):
        raise Unsupported(
            f"{PROVIDER} takes names of functions that begin with a letter or _ and have 1 to 128 "
            f"letters, digits, _, ., : and -, and not {name!r}"
        )
    return name


def _put_tools(params: Params, body: dict[str, Any]) -> None:
    tools = read_tools(
        params, lambda tool: len(tool) == 1 and tool.keys() <= _OWN_TOOLS, frozenset()
    )
    choice = read_choice(params, tools)
    if params.flag("parallel_tool_calls") is False and tools:
        raise params.wrong("parallel_tool_calls", _ADVICE["parallel_tool_calls"])
    functions = [tool for tool in tools if isinstance(tool, Function)]
    told: list[Mapping[str, Any]] = [tool for tool in tools if not isinstance(tool, Function)]
    if functions:
        declarations = [_declaration(function) for function in functions]
        told.insert(0, {"functionDeclarations": declarations})
    put(params, body, ("tools",), told or None, "tools")
    config = _calling(params, choice, functions)
    put(params, body, ("toolConfig", "functionCallingConfig"), config, "tool_choice")


def _declaration(function: Function) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": function_name(function.name)}
    if function.description:
        declaration["description"] = function.description
    if function.schema.get("properties") or function.schema.keys() - {"type", "properties"}:
        # Without any parameters it is left out there.
        declaration["parametersJsonSchema"] = function.schema
    return declaration


def _calling(
    params: Params, choice: Choice | Mapping[str, Any] | None, functions: Sequence[Function]
) -> dict[str, Any] | None:
    if choice is not None and not isinstance(choice, Choice):
        raise params.wrong("tool_choice", "it has to be auto, required, none or a function's name")
    kind = choice.kind if choice else "auto"
    if not functions:
        if kind == "required":
            raise params.wrong("tool_choice", "there are no functions to choose from")
        return None
    if choice is not None and kind == "named":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    if kind == "auto" and any(function.strict for function in functions):
        return {"mode": "VALIDATED"}  # Calls keep to their schema, or text is the answer.
    return {"mode": _MODES[kind]} if choice else None
