"""The OpenAI provider over a transport of which a test says what it answers."""

import json
from typing import Any

import httpx
import pytest

from model_workers.providers.base import Completion, Failure
from model_workers.providers.openai import OpenAI, read_response
from modelyard.catalog import Endpoint, Model
from modelyard.errors import ProviderError
from modelyard.messages import Request

NOW = 1_800_000_000.0
KEY = "sk-verysecret-0123456789"
HELLO = Request.model_validate({"text": "Please greet the whole world in Latin."})
Handler = Any


def provider(handler: Handler, **changes: Any) -> OpenAI:
    endpoint = Endpoint(
        base_url=changes.pop("base_url", "https://models.example/v1"),
        api_key=changes.pop("api_key", KEY),
    )
    silence_s = changes.pop("silence_s", 5.0)
    client = httpx.AsyncClient(
        transport=httpx.MockTransport(handler), timeout=httpx.Timeout(5.0, read=silence_s)
    )
    model = Model(
        name="small", provider="openai", model="vendor/small-1", endpoints=(endpoint,), **changes
    )
    return OpenAI(model, endpoint, client, clock=lambda: NOW)


def answering(status: int, body: Any = b"", headers: dict[str, str] | None = None) -> OpenAI:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider(lambda _: httpx.Response(status, content=content, headers=headers))


def completion(**message: Any) -> dict[str, Any]:
    finish_reason = message.pop("finish_reason", "stop")
    return {
        "model": "vendor/small-1-2026",
        "choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def error(code: str | None = None, message: str = "no", type: str = "invalid_request_error") -> Any:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


async def failure(provider: OpenAI, request: Request = HELLO) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(request)
    return caught.value


def wanted(name: Any = "get_weather", arguments: Any = '{"city": "Rome"}', **call: Any) -> Any:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **call}


EVENTS = {"content-type": "text/event-stream"}


def chunk(delta: Any = None, *, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish_reason}
    choice.update(fields.pop("choice", {}))
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": 1694268190,
        "model": "vendor/small-1-2026",
        "choices": [choice],
        "usage": None,
        **fields,
    }


def events(*chunks: Any, done: bool = True) -> bytes:
    parts = [each if isinstance(each, str) else json.dumps(each) for each in chunks]
    return "".join(f"data: {part}\n\n" for part in [*parts, *["[DONE]"] * done]).encode()


END = chunk(finish_reason="stop")


def streamed(*chunks: Any, done: bool = True) -> Completion | Failure:
    return read_response(200, EVENTS, events(*chunks, done=done), "small", NOW)
