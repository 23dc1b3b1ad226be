"""The OpenAI provider with the client that workers use, and servers that misbehave."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from model_workers.providers.http import make_client
from model_workers.providers.openai import OpenAI
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, ToolCall

K = FailureKind
HELLO = Request.model_validate({"text": "Hello there"})
CALLS = (
    ToolCall.of("call_1", "get_weather", '{"city": "Rome"}'),
    ToolCall.of("call_2", "get_time", "{}"),
)
TOKEN = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ5YXJkIn0.c2lnbmF0dXJl"


@contextlib.asynccontextmanager
async def calling(base_url: str, **options: Any) -> AsyncIterator[OpenAI]:
    kind = options.pop("kind", OpenAI)
    endpoint = Endpoint(
        base_url=base_url,
        api_key=options.pop("api_key", None),
        api_version=options.pop("api_version", None),
    )
    clock = options.pop("clock", time.time)
    max_answer_bytes = options.pop("max_answer_bytes", 1 << 20)
    options = {"timeout_s": 20.0, "concurrency": 20, **options}
    model = Model(name="small", provider="openai", endpoints=(endpoint,), **options)
    client = make_client(endpoint, timeout_s=model.timeout_s, concurrency=model.concurrency)
    provider = kind(model, endpoint, client, clock=clock, max_answer_bytes=max_answer_bytes)
    try:
        yield provider
    finally:
        await provider.aclose()


async def failure(provider: OpenAI) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(HELLO)
    return caught.value


Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[str]:
    """Let `handle` answer connections until its callers are gone; yield the base_url."""
    running = 0
    idle = asyncio.Event()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running
        running += 1
        with contextlib.suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()
        running -= 1
        if not running:
            idle.set()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        await asyncio.wait_for(idle.wait(), 10)


ASKS: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    ],
}


def parts(*content: Any, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": list(content)}]


def image(url: str, **fields: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
