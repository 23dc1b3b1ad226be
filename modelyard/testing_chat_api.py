"""The chat completion API as the fake provider speaks it: checks, answers and errors, all pure.

Checks and error texts follow https://platform.openai.com/docs/api-reference/chat/create, so that
a request which passes here passes there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.messages import Usage

ROLES: Final = ("system", "assistant", "user", "function", "tool", "developer")

_MESSAGE_KEYS: Final = frozenset(
    {"role", "content", "name", "refusal", "audio", "tool_calls", "tool_call_id", "function_call"}
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
    "safety_identifier": (str,),
}
_KNOWN: Final = frozenset({"model", "messages", *_NUMBERS, *_INTEGERS, *_TYPES})

_JSON_NAME: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error as the API words it."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    type: str = "invalid_request_error"

    def encode(self) -> bytes:
        """Return the body of the error response."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}, ensure_ascii=False).encode()


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


def read_call(raw: bytes) -> dict[str, Any] | ApiError:
    """Return the body of a chat completion call, or the error that the API answers it with."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return ApiError(400, "We could not parse the JSON body of your request.")
    if not isinstance(body, dict):
        return _wrong_type("body", "an object", body)
    return _check_model(body) or _check_messages(body) or _check_params(body) or body


def _check_model(body: Mapping[str, Any]) -> ApiError | None:
    model = body.get("model")
    if model is None or model == "":
        return ApiError(400, "you must provide a model parameter")
    return None if isinstance(model, str) else _wrong_type("model", "a string", model)


def _check_messages(body: Mapping[str, Any]) -> ApiError | None:
    messages = body.get("messages")
    if messages is None:
        return _missing("messages")
    if not isinstance(messages, list):
        return _wrong_type("messages", "an array", messages)
    if not messages:
        text = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        return ApiError(400, text, "empty_array", "messages")
    for index, message in enumerate(messages):
        if error := _check_message(f"messages[{index}]", message):
            return error
    return None


def _check_message(where: str, message: object) -> ApiError | None:
    if not isinstance(message, dict):
        return _wrong_type(where, "an object", message)
    error = None
    role, content = message.get("role"), message.get("content")
    if unknown := message.keys() - _MESSAGE_KEYS:
        error = _unknown(f"{where}.{min(unknown)}")
    elif role is None:
        error = _missing(f"{where}.role")
    elif not isinstance(role, str):
        error = _wrong_type(f"{where}.role", "a string", role)
    elif role not in ROLES:
        known = ", ".join(f"'{known}'" for known in ROLES)
        text = f"Invalid value: '{role}'. Supported values are: {known}."
        error = ApiError(400, text, "invalid_value", f"{where}.role")
    elif role == "tool" and "tool_call_id" not in message:
        error = _missing(f"{where}.tool_call_id")
    elif content is None:
        spoken = role == "assistant" and (message.get("tool_calls") or message.get("function_call"))
        error = None if spoken else _missing(f"{where}.content")
    elif not isinstance(content, str | list):
        error = _wrong_type(f"{where}.content", "a string or an array", content)
    return error


def _check_params(body: Mapping[str, Any]) -> ApiError | None:
    if unknown := body.keys() - _KNOWN:
        return ApiError(400, f"Unrecognized request argument supplied: {min(unknown)}")
    for name, value in body.items():
        if value is None or name in ("model", "messages"):
            continue
        if name in _TYPES:
            if not isinstance(value, _TYPES[name]):
                wanted = " or ".join(_JSON_NAME[kind] for kind in _TYPES[name])
                return _wrong_type(name, wanted, value)
            continue
        whole = name in _INTEGERS
        low, high = _INTEGERS[name] if whole else _NUMBERS[name]
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return _wrong_type(name, "an integer" if whole else "a decimal", value)
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


def _missing(param: str) -> ApiError:
    text = f"Missing required parameter: '{param}'."
    return ApiError(400, text, "missing_required_parameter", param)


def _unknown(param: str) -> ApiError:
    return ApiError(400, f"Unknown parameter: '{param}'.", "unknown_parameter", param)


def _wrong_type(param: str, wanted: str, value: object) -> ApiError:
    got = _JSON_NAME.get(type(value), "something else")
    text = f"Invalid type for '{param}': expected {wanted}, but got {got} instead."
    return ApiError(400, text, "invalid_type", param)


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


def encode_completion(
    number: int,
    created: float,
    model: str,
    text: str | None,
    refusal: str | None,
    finish_reason: str,
    usage: Usage,
) -> bytes:
    """Return the body of a chat completion with one choice."""
    return json.dumps(
        {
            "id": f"chatcmpl-fake-{number}",
            "object": "chat.completion",
            "created": int(created),
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": refusal},
                    "logprobs": None,
                    "finish_reason": finish_reason,
                }
            ],
            "usage": {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode("utf-8", "surrogatepass")


def encode_models(names: list[str]) -> bytes:
    """Return the body of the list of models."""
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "modelyard"} for name in names
    ]
    return json.dumps({"object": "list", "data": models}).encode()
