"""Requests of each kind that a provider is asked, one of each, by what they are."""

from collections.abc import Mapping
from typing import Any

from fakes.dialects import asked
from fakes.requests import PNG
from modelyard.messages import Request

URL = "https://images.example/a.png"
SCHEMA = {
    "type": "object",
    "properties": {"city_name": {"type": "string"}},
    "required": ["city_name"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says the weather.",
        "parameters": SCHEMA,
        "strict": True,
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS = [WEATHER, TIME]


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": parts[0] if parts and type(parts[0]) is str else list(parts)}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def calling(*ids: str, **more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city_name": "Bern"}'}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "tool_calls": calls, **more}


def told(id: str, said: Any = "sunny") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": said}


ROUNDS = (
    user("Weather?"),
    calling("call_1", "functions.weather:2", content="Let me see."),
    told("call_1"),
    told("functions.weather:2", [words("rain"), words("later")]),
    calling("call_3"),
    told("call_3", ""),
    {"role": "assistant", "content": "It is sunny."},
    user("And now?"),
)
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "city", "description": "A city.", "strict": True, "schema": SCHEMA},
}

COMMON: Mapping[str, Request] = {
    "plain": asked(),
    "system": asked(
        {"role": "system", "content": "Be short."},
        {"role": "developer", "content": [words("In Latin.")]},
        user("Hello"),
    ),
    "turns": asked(user("One"), user("Two"), {"role": "assistant", "content": "A"}, user("Three")),
    "parts": asked(user(words("Here"), words("there"))),
    "image data": asked(user(words("What is it?"), image(PNG))),
    "image of high detail": asked(user(image(PNG, detail="high"))),
    "tools": asked(tools=TOOLS),
    "tool choice auto": asked(tools=TOOLS, tool_choice="auto"),
    "tool choice required": asked(tools=TOOLS, tool_choice="required"),
    "tool choice none": asked(tools=TOOLS, tool_choice="none"),
    "tool choice named": asked(
        tools=TOOLS, tool_choice={"type": "function", "function": {"name": "time"}}
    ),
    "tool rounds": asked(*ROUNDS, tools=TOOLS),
    "schema": asked(response_format=FORMAT),
    "text": asked(response_format={"type": "text"}),
    "stop": asked(stop="END"),
    "stops": asked(stop=["END", "stop"]),
    "sampling": asked(temperature=0.3, top_p=0.9),
    "limit": asked(max_completion_tokens=300),
    "older limit": asked(max_tokens=300),
    "effort low": asked(reasoning_effort="low"),
    "effort medium": asked(reasoning_effort="medium"),
    "effort high": asked(reasoning_effort="high"),
    "asks for nothing": asked(n=1, logprobs=False, presence_penalty=0, seed=None),
}
"""What all of them can be asked."""
