"""Gemini by the client that workers have, against a strict fake of it on loopback."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fakes.server import Canned
from fakes.vertex_api import VertexApi, answer, error, streamed

from model_workers.providers.http import make_client
from model_workers.providers.vertex import Vertex
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request

TOKEN = "ya29.a-token-of-somebody"
HELLO = Request.of("Hello", params={"max_tokens": 20, "temperature": 0.2})
FLASH = "gemini-2.5-flash"


@pytest.fixture
def api() -> Iterator[VertexApi]:
    with VertexApi(f"Bearer {TOKEN}", "AIza-key") as running:
        yield running


@contextlib.asynccontextmanager
async def vertex(api: VertexApi, path: str = "", **changes: Any) -> AsyncIterator[Vertex]:
    fields = {"api_key": TOKEN, "project": "p-1", "region": "europe-west4"} | changes
    stream = fields.pop("stream", False)
    at = Endpoint(base_url=api.base_url + path, **fields)
    model = Model(name="gemini", provider="vertex", model=FLASH, endpoints=(at,), stream=stream)
    client = make_client(at, timeout_s=model.timeout_s, concurrency=4)
    provider = Vertex(model, at, client)
    try:
        yield provider
    finally:
        await provider.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_answered(api: VertexApi, stream: bool) -> None:
    async with vertex(api, stream=stream) as provider:
        found = await provider.complete(HELLO, request_id="r-1")
    assert (found.text, found.provider_model) == ("you said: Hello", "gemini-2.5-flash-001")
    assert (found.usage.input_tokens, found.usage.output_tokens) == (9, 4)
    assert (found.first_token_s is not None) == stream
    (call,) = api.calls
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    resource = f"projects/p-1/locations/europe-west4/publishers/google/models/{FLASH}"
    assert call.path == f"/v1/{resource}:{method}"
    assert call.headers["x-request-id"] == "r-1"
    assert call.body["generationConfig"] == {"maxOutputTokens": 20, "temperature": 0.2}


async def test_a_key_is_enough(api: VertexApi) -> None:
    async with vertex(api, "/v1beta", api_key="AIza-key", project=None) as provider:
        assert (await provider.complete(HELLO)).text == "you said: Hello"
    assert api.calls[0].path == f"/v1beta/models/{FLASH}:generateContent"
    assert "authorization" not in api.calls[0].headers


async def test_a_tool_is_called_and_told_of(api: VertexApi) -> None:
    part = {"functionCall": {"name": "weather", "args": {"city": "Bern"}}}
    api.script(
        Canned(body=answer("", candidates=[{"content": {"parts": [part]}, "finishReason": "STOP"}]))
    )
    tools = [{"type": "function", "function": {"name": "weather"}}]
    async with vertex(api) as provider:
        first = await provider.complete(Request.of("Weather?", params={"tools": tools}))
        (asked,) = first.tool_calls
        second = Request.model_validate(
            {
                "messages": [
                    {"role": "user", "content": "Weather?"},
                    {"role": "assistant", "tool_calls": [asked.encode()]},
                    {"role": "tool", "tool_call_id": asked.id, "content": "rain"},
                    {"role": "user", "content": "So?"},
                ],
                "params": {"tools": tools},
            }
        )
        assert (await provider.complete(second)).text == "you said: So?"
    assert api.calls[1].body["contents"][1]["parts"] == [part]


async def test_a_stream_that_is_cut_is_half_an_answer(api: VertexApi) -> None:
    half = {"candidates": [{"content": {"parts": [{"text": "Sal"}]}}]}
    api.script(streamed(half))
    async with vertex(api, stream=True) as provider:
        with pytest.raises(ProviderError, match="half an answer") as caught:
            await provider.complete(HELLO)
    assert caught.value.kind is FailureKind.RETRYABLE


async def test_errors_are_told_without_the_token(api: VertexApi) -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}
    limited = error(429, "RESOURCE_EXHAUSTED", f"slow down, {TOKEN}", retry)
    api.script(Canned(429, limited))
    async with vertex(api) as provider:
        with pytest.raises(ProviderError, match="slow down") as caught:
            await provider.complete(HELLO)
    assert (caught.value.kind, caught.value.retry_after_s) == (FailureKind.LIMITED, 3.0)
    assert TOKEN not in str(caught.value)
    async with vertex(api, api_key="ya29.another") as provider:
        with pytest.raises(ProviderError, match="UNAUTHENTICATED") as caught:
            await provider.complete(HELLO)
    assert caught.value.kind is FailureKind.DENIED
