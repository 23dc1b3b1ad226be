"""The chat completion API as the fake provider speaks it: checks, answers and errors, all pure.

Checks and error texts follow https://platform.openai.com/docs/api-reference/chat/create, so that
a request which passes here passes there.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelyard.messages import ToolCall, Usage
from modelyard.testing_messages import (
    JSON_NAME,
    ApiError,
    check_messages,
    check_tools,
    unknown_param,
    wrong_type,
)

_NUMBERS: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_INTEGERS: Final[Mapping[str, tuple[int, int]]] = {
    "max_tokens": (1, 1 << 31),
    "max_completion_tokens": (1, 1 << 31),
    "n": (1, 128),
    "top_logprobs": (0, 20),
    "seed": (-(1 << 63), (1 << 63) - 1),
}
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "stop": (str, list),
    "user": (str,),
    "logprobs": (bool,),
    "stream": (bool,),
    "store": (bool,),
    "parallel_tool_calls": (bool,),
    "logit_bias": (dict,),
    "metadata": (dict,),
    "modalities": (list,),
    "audio": (dict,),
    "prediction": (dict,),
    "response_format": (dict,),
    "stream_options": (dict,),
    "web_search_options": (dict,),
    "tools": (list,),
    "functions": (list,),
    "tool_choice": (str, dict),
    "function_call": (str, dict),
    "reasoning_effort": (str,),
    "service_tier": (str,),
    "verbosity": (str,),
    "prompt_cache_key": (str,),
    "prompt_cache_options": (dict,),
    "prompt_cache_retention": (str,),
    "moderation": (dict,),
    "safety_identifier": (str,),
}
KNOWN: Final = frozenset({"model", "messages", *_NUMBERS, *_INTEGERS, *_TYPES})
"""The parameters of a call; any other one is refused."""

NO_KEY: Final = ApiError(401, "You didn't provide an API key.")
WRONG_KEY: Final = ApiError(401, "Incorrect API key provided.", "invalid_api_key")

_SCRIPTED: Final[Mapping[int, tuple[str, str, str | None]]] = {
    400: ("The request is refused.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("You have no access to this model.", "invalid_request_error", "permission_denied"),
    404: ("The model does not exist.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    503: ("The engine is currently overloaded, please try again later.", "server_error", None),
}


def scripted_error(status: int, code: str | None, message: str | None) -> ApiError:
    """Return the error for a status, with the code and message that are usual for it."""
    usual = ("The server had an error while processing your request.", "server_error", None)
    usual_message, kind, usual_code = _SCRIPTED.get(status, usual)
    return ApiError(status, message or usual_message, code or usual_code, None, kind)


def unknown_model(model: str) -> ApiError:
    """Return the error for a model that the provider does not have."""
    text = f"The model `{model}` does not exist or you do not have access to it."
    return ApiError(404, text, "model_not_found")


def read_call(raw: bytes, deployment: str | None = None) -> dict[str, Any] | ApiError:
    """Return the body of a chat completion call, or the error that the API answers it with.

    `deployment` is the model where the address names it.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return ApiError(400, "We could not parse the JSON body of your request.")
    if not isinstance(body, dict):
        return wrong_type("body", "an object", body)
    if deployment is not None:
        body["model"] = deployment
    return (
        _check_model(body)
        or check_messages(body)
        or _check_params(body)
        or check_tools(body)
        or _check_stream(body)
        or body
    )


def _check_model(body: Mapping[str, Any]) -> ApiError | None:
    model = body.get("model")
    if model is None or model == "":
        return ApiError(400, "you must provide a model parameter")
    return None if isinstance(model, str) else wrong_type("model", "a string", model)


def _check_stream(body: Mapping[str, Any]) -> ApiError | None:
    options = body.get("stream_options")
    if options is None:
        return None
    if not body.get("stream"):
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        return ApiError(400, text, None, "stream_options")
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation"):
            return unknown_param(f"stream_options.{name}")
        if not isinstance(value, bool):
            return wrong_type(f"stream_options.{name}", "a boolean", value)
    return None


def _check_params(body: Mapping[str, Any]) -> ApiError | None:
    if unknown := body.keys() - KNOWN:
        return ApiError(400, f"Unrecognized request argument supplied: {min(unknown)}")
    for name, value in body.items():
        if value is None or name in ("model", "messages"):
            continue
        if name in _TYPES:
            if not isinstance(value, _TYPES[name]):
                wanted = " or ".join(JSON_NAME[kind] for kind in _TYPES[name])
                return wrong_type(name, wanted, value)
            continue
        whole = name in _INTEGERS
        low, high = _INTEGERS[name] if whole else _NUMBERS[name]
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return wrong_type(name, "an integer" if whole else "a decimal", value)
        if not low <= value <= high:
            kind = "integer" if whole else "decimal"
            side, sign, bound = ("above", "<=", high) if value > high else ("below", ">=", low)
            extreme = "maximum" if value > high else "minimum"
            text = (
                f"Invalid '{name}': {kind} {side} {extreme} value. "
                f"Expected a value {sign} {bound}, but got {value} instead."
            )
            return ApiError(400, text, f"{kind}_{side}_{extreme[:3]}_value", name)
    return None


def message_texts(body: Mapping[str, Any]) -> list[str]:
    """Return the text of each message; of a list of parts, the text parts."""
    texts: list[str] = []
    for message in body["messages"]:
        content = message.get("content") or ""
        if not isinstance(content, str):
            parts = (part.get("text") for part in content if isinstance(part, dict))
            content = "".join(part for part in parts if isinstance(part, str))
        texts.append(content)
    return texts


def count_tokens(text: str) -> int:
    """Return the fake's tokens of a text: one per four characters begun."""
    return (len(text) + 3) // 4


def compose_completion(
    number: int,
    created: float,
    model: str,
    text: str | None,
    refusal: str | None,
    finish_reason: str,
    usage: Usage,
    tool_calls: Sequence[ToolCall] = (),
) -> dict[str, Any]:
    """Return a chat completion with one choice."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": refusal}
    if tool_calls:
        message["tool_calls"] = [call.encode() for call in tool_calls]
    counted: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_input_tokens:
        counted["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.reasoning_tokens:
        counted["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return {
        "id": f"chatcmpl-fake-{number}",
        "object": "chat.completion",
        "created": int(created),
        "model": model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        ],
        "usage": counted,
    }


def encode_completion(whole: Mapping[str, Any]) -> bytes:
    """Return the body that holds a completion; lone surrogates stay what they are."""
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def encode_models(names: list[str]) -> bytes:
    """Return the body of the list of models."""
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "modelyard"} for name in names
    ]
    return json.dumps({"object": "list", "data": models}).encode()
