"""Checks of messages and tools as the chat completion API makes them: all pure.

Error texts follow https://platform.openai.com/docs/api-reference/chat/create.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ROLES: Final = ("system", "assistant", "user", "function", "tool", "developer")

_MESSAGE_KEYS: Final = frozenset(
    {"role", "content", "name", "refusal", "audio", "tool_calls", "tool_call_id", "function_call"}
)
_PARTS: Final = ("text", "image_url", "input_audio", "refusal", "file")
_DETAILS: Final = ("auto", "low", "high")
_IMAGE: Final = re.compile(r"https?://[^\s/]|data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

JSON_NAME: Final[Mapping[type, str]] = {
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


def check_messages(body: Mapping[str, Any]) -> ApiError | None:
    """Return what is wrong with the messages of a call, or None."""
    messages = body.get("messages")
    if messages is None:
        return missing("messages")
    if not isinstance(messages, list):
        return wrong_type("messages", "an array", messages)
    if not messages:
        text = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        return ApiError(400, text, "empty_array", "messages")
    for index, message in enumerate(messages):
        if error := _check_message(f"messages[{index}]", message):
            return error
    return _check_order(messages)


def _check_message(where: str, message: object) -> ApiError | None:
    if not isinstance(message, dict):
        return wrong_type(where, "an object", message)
    error = None
    role, content = message.get("role"), message.get("content")
    calls = message.get("tool_calls")
    if unknown := message.keys() - _MESSAGE_KEYS:
        error = unknown_param(f"{where}.{min(unknown)}")
    elif role is None:
        error = missing(f"{where}.role")
    elif not isinstance(role, str):
        error = wrong_type(f"{where}.role", "a string", role)
    elif role not in ROLES:
        error = unknown_value(f"{where}.role", role, ROLES)
    elif role == "tool" and not isinstance(message.get("tool_call_id"), str):
        error = _check_string(where, "tool_call_id", message)
    elif calls is not None and role == "assistant":
        error = _check_calls(f"{where}.tool_calls", calls)
    elif content is None and not (role == "assistant" and message.get("function_call")):
        error = missing(f"{where}.content")
    return error or _check_content(f"{where}.content", role, content)


def _check_calls(where: str, calls: object) -> ApiError | None:
    if not isinstance(calls, list):
        return wrong_type(where, "an array", calls)
    if not calls:
        text = f"Invalid '{where}': empty array. Expected an array with minimum length 1."
        return ApiError(400, text, "empty_array", where)
    for index, call in enumerate(calls):
        if error := _check_call(f"{where}[{index}]", call):
            return error
    return None


def _check_call(where: str, call: object) -> ApiError | None:
    if not isinstance(call, dict):
        return wrong_type(where, "an object", call)
    for key in ("id", "type"):
        if error := _check_string(where, key, call):
            return error
    if call["type"] != "function":
        return unknown_value(f"{where}.type", call["type"], ("function",))
    function = call.get("function")
    if not isinstance(function, dict):
        named = f"{where}.function"
        return missing(named) if function is None else wrong_type(named, "an object", function)
    return _check_string(f"{where}.function", "name", function) or _check_string(
        f"{where}.function", "arguments", function
    )


def _check_string(where: str, key: str, owner: Mapping[str, Any]) -> ApiError | None:
    value = owner.get(key)
    if value is None:
        return missing(f"{where}.{key}")
    return None if isinstance(value, str) else wrong_type(f"{where}.{key}", "a string", value)


def _check_content(where: str, role: object, content: object) -> ApiError | None:
    if content is None or isinstance(content, str):
        return None
    if not isinstance(content, list):
        return wrong_type(where, "a string or an array", content)
    if not content:
        text = f"Invalid '{where}': empty array. Expected an array with minimum length 1."
        return ApiError(400, text, "empty_array", where)
    for index, part in enumerate(content):
        if error := _check_part(f"{where}[{index}]", role, part):
            return error
    return None


def _check_part(where: str, role: object, part: object) -> ApiError | None:
    if not isinstance(part, dict):
        return wrong_type(where, "an object", part)
    if error := _check_string(where, "type", part):
        return error
    kind = part["type"]
    if kind not in _PARTS:
        return unknown_value(f"{where}.type", kind, _PARTS)
    if kind == "text":
        return _check_string(where, "text", part)
    if kind == "image_url":
        return _check_image(where, role, part.get("image_url"))
    return None


def _check_image(where: str, role: object, image: object) -> ApiError | None:
    if role != "user":
        text = (
            f"Invalid '{where}'. Image URLs are only allowed for messages with role 'user', but "
            f"this message with role '{role}' contains an image URL."
        )
        return ApiError(400, text, "invalid_value", where)
    where = f"{where}.image_url"
    if not isinstance(image, dict):
        return missing(where) if image is None else wrong_type(where, "an object", image)
    if unknown := image.keys() - {"url", "detail"}:
        return unknown_param(f"{where}.{min(unknown)}")
    if error := _check_string(where, "url", image):
        return error
    if not _IMAGE.match(image["url"]):
        text = f"Invalid '{where}.url'. Expected a URL or base64-encoded image data."
        return ApiError(400, text, "invalid_value", f"{where}.url")
    detail = image.get("detail", "auto")
    if detail not in _DETAILS:
        return unknown_value(f"{where}.detail", str(detail), _DETAILS)
    return None


def _check_order(messages: list[dict[str, Any]]) -> ApiError | None:
    """Each call of a tool is answered by the messages right after it, and nothing else is."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}].role"
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                text = (
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceeding message with 'tool_calls'."
                )
                return ApiError(400, text, None, where)
            open_calls.discard(message["tool_call_id"])
        elif open_calls:
            return _unanswered(open_calls, where)
        elif message["role"] == "assistant":
            open_calls = {call["id"] for call in message.get("tool_calls") or ()}
    return _unanswered(open_calls, f"messages[{len(messages)}].role") if open_calls else None


def _unanswered(calls: set[str], where: str) -> ApiError:
    text = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to "
        "each 'tool_call_id'. The following tool_call_ids did not have response messages: "
        + ", ".join(sorted(calls))
    )
    return ApiError(400, text, None, where)


def check_tools(body: Mapping[str, Any]) -> ApiError | None:
    """Return what is wrong with the tools of a call and the choice among them, or None."""
    tools = body.get("tools")
    for index, tool in enumerate(tools or ()):
        if error := _check_tool(f"tools[{index}]", tool):
            return error
    for param in ("tool_choice", "parallel_tool_calls"):
        if not tools and body.get(param) not in (None, "none"):
            text = f"Invalid value for '{param}': '{param}' is only allowed when 'tools' are set."
            return ApiError(400, text, None, param)
    return None


def _check_tool(where: str, tool: object) -> ApiError | None:
    if not isinstance(tool, dict):
        return wrong_type(where, "an object", tool)
    if error := _check_string(where, "type", tool):
        return error
    if tool["type"] == "custom":
        return None
    if tool["type"] != "function":
        return unknown_value(f"{where}.type", tool["type"], ("function", "custom"))
    return _check_function(f"{where}.function", tool.get("function"))


def _check_function(where: str, function: object) -> ApiError | None:
    if not isinstance(function, dict):
        return missing(where) if function is None else wrong_type(where, "an object", function)
    if error := _check_string(where, "name", function):
        return error
    if not _NAME.fullmatch(function["name"]):
        text = (
            f"Invalid '{where}.name': string does not match pattern. Expected a string that "
            "matches the pattern '^[a-zA-Z0-9_-]+$'."
        )
        return ApiError(400, text, "invalid_value", f"{where}.name")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        return wrong_type(f"{where}.parameters", "an object", parameters)
    return None


def missing(param: str) -> ApiError:
    """Return the error for a parameter that is not there."""
    text = f"Missing required parameter: '{param}'."
    return ApiError(400, text, "missing_required_parameter", param)


def unknown_param(param: str) -> ApiError:
    """Return the error for a parameter that the API does not have."""
    return ApiError(400, f"Unknown parameter: '{param}'.", "unknown_parameter", param)


def unknown_value(param: str, value: str, values: tuple[str, ...]) -> ApiError:
    """Return the error for a value that is none of those that a parameter can have."""
    known = ", ".join(f"'{each}'" for each in values)
    text = f"Invalid value: '{value}'. Supported values are: {known}."
    return ApiError(400, text, "invalid_value", param)


def wrong_type(param: str, wanted: str, value: object) -> ApiError:
    """Return the error for a value of another type than `wanted`."""
    got = JSON_NAME.get(type(value), "something else")
    text = f"Invalid type for '{param}': expected {wanted}, but got {got} instead."
    return ApiError(400, text, "invalid_type", param)
