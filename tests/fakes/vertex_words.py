"""Requests and answers of Gemini, in few words, for tests of its dialect."""

import json
from typing import Any

import httpx
import pytest

from fakes.vertex_api import answer, check_call
from model_workers.providers.base import Unsupported
from model_workers.providers.gemini_answer import read_response
from model_workers.providers.gemini_call import encode_call
from model_workers.providers.vertex import VertexDialect
from modelyard.catalog import Endpoint, Model
from modelyard.messages import Request

NOW = 1_800_000_000.0
FLASH = "gemini-2.5-flash"
NEWER = "gemini-3-pro-preview"
HELLO = Request.of("Hello")
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "47.5s"}
VERTEX = "https://europe-west4-aiplatform.googleapis.com"
HERE = "projects/p-1/locations/europe-west4"
MODEL = f"publishers/google/models/{FLASH}"
UNUSUAL = ("reasoning_effort", "service_tier", "user")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def request(*messages: dict[str, Any], **params: Any) -> Request:
    said = messages or ({"role": "user", "content": "Hello"},)
    return Request.model_validate({"messages": list(said), "params": params})


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def calls(*asked: tuple[str, str, str]) -> dict[str, Any]:
    listed = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in asked
    ]
    return {"role": "assistant", "tool_calls": listed}


def told(id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def encoded(given: Request, model: str = FLASH) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_call(model, given, selects="optimizer" in model))
    check_call(body, model)
    return body


def config(model: str = FLASH, **params: Any) -> Any:
    return encoded(request(**params), model)["generationConfig"]


def refused(given: Request, model: str = FLASH) -> str:
    with pytest.raises(Unsupported) as caught:
        encode_call(model, given)
    return str(caught.value)


def read(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_response(status, headers or {}, raw, FLASH, NOW)


def ended(reason: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return answer("", candidates=[{"content": {"parts": list(parts)}, "finishReason": reason}])


def endpoint(base_url: str = VERTEX, **more: Any) -> Endpoint:
    return Endpoint(base_url=base_url, **more)


def dialect(at: Endpoint, name: str = FLASH, **more: Any) -> VertexDialect:
    return VertexDialect(
        Model(name="gemini", provider="vertex", model=name, endpoints=(at,), **more), at
    )


def address(at: Endpoint, name: str = FLASH, **more: Any) -> str:
    return str(dialect(at, name, **more).address(httpx.URL(at.base_url)))
