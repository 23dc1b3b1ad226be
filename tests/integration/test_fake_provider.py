"""The OpenAI and Azure providers against the fake one, over sockets; and the fake by itself."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from model_workers.providers.azure import Azure
from model_workers.providers.base import Allowance
from model_workers.providers.http import make_client
from model_workers.providers.openai import OpenAI
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, ToolCall, Usage
from modelyard.testing import ANY, FakeProvider, Gate, Reply, text_digest

K = FailureKind
HELLO = Request.model_validate({"text": "Hello there"})
CALLS = (
    ToolCall.of("call_1", "get_weather", '{"city": "Rome"}'),
    ToolCall.of("call_2", "get_time", "{}"),
)
TOKEN = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ5YXJkIn0.c2lnbmF0dXJl"


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


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


class TestProvider:
    async def test_a_call_is_answered_and_counted(self, fake: FakeProvider) -> None:
        async with calling(fake.base_url) as provider:
            first = await provider.complete(HELLO, request_id="r-1")
            second = await provider.complete(HELLO)
        assert first == second, "the default reply is a function of the question"
        assert first.text == "small answers: Hello there"
        assert first.usage == Usage(input_tokens=3, output_tokens=7)
        one, two = fake.calls
        assert (one.request_id, two.request_id) == ("r-1", None)
        assert (one.model, one.outcome, one.status) == ("small", "answered", 200)
        assert one.digest == text_digest(HELLO.text)

    async def test_long_text_in_any_script_arrives_whole(self, fake: FakeProvider) -> None:
        text = "Grüße 世界 🌍\n" * 100_000
        fake.always(ANY, lambda body: Reply(text=body["messages"][0]["content"][::-1]))
        async with calling(fake.base_url, max_answer_bytes=1 << 25) as provider:
            answer = await provider.complete(Request.model_validate({"text": text}))
        assert answer.text == text[::-1]
        assert fake.calls[0].digest == text_digest(text)

    async def test_many_calls_share_the_connections(self, fake: FakeProvider) -> None:
        gate = Gate()
        fake.always("small", Reply(gate=gate))
        async with calling(fake.base_url, concurrency=8) as provider:
            calls = [asyncio.create_task(provider.complete(HELLO)) for _ in range(20)]
            await asyncio.to_thread(fake.wait_until, lambda p: p.in_flight == 8)
            gate.open()
            await asyncio.gather(*calls)
        assert len(fake.calls) == 20
        assert fake.max_in_flight == 8

    @pytest.mark.parametrize(
        ("reply", "kind", "words"),
        [
            (Reply(status=429), K.LIMITED, "HTTP 429 rate_limit_exceeded"),
            (Reply(status=429, code="insufficient_quota"), K.DENIED, "insufficient_quota"),
            (Reply(status=400, code="context_length_exceeded"), K.TOO_LONG, "context_length"),
            (Reply(status=500), K.RETRYABLE, "The server had an error"),
            (Reply(status=503, message="asleep"), K.RETRYABLE, "asleep"),
            (Reply(status=307, headers={"location": "/elsewhere"}), K.DENIED, "/elsewhere"),
            (Reply(refusal="I'd rather not."), K.REFUSED, "I'd rather not."),
            (Reply(close="before"), K.RETRYABLE, "connection"),
            (Reply(close="half"), K.RETRYABLE, "in the middle of the answer"),
            (Reply(body=b'{"choices": [{'), K.RETRYABLE, "not JSON"),
            (Reply(body=b"<html>", status=502), K.RETRYABLE, "<html>"),
        ],
        ids=str,
    )
    async def test_every_failure_is_told_apart_and_the_next_call_is_answered(
        self, fake: FakeProvider, reply: Reply, kind: FailureKind, words: str
    ) -> None:
        fake.script("small", [reply])
        async with calling(fake.base_url) as provider:
            caught = await failure(provider)
            assert caught.kind is kind
            assert words in str(caught)
            assert (await provider.complete(HELLO)).text == "small answers: Hello there"

    @pytest.mark.parametrize(
        ("headers", "wait_s"),
        [
            ({"retry-after": formatdate(1_800_000_042, usegmt=True)}, 42.0),
            ({"retry-after": "5"}, 5.0),
            ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ],
    )
    async def test_the_wait_that_a_limit_asks_for(
        self, fake: FakeProvider, headers: dict[str, str], wait_s: float
    ) -> None:
        fake.script("small", [Reply(status=429, headers=headers)])
        async with calling(fake.base_url, clock=lambda: 1_800_000_000.0) as provider:
            assert (await failure(provider)).retry_after_s == wait_s

    async def test_a_slow_answer_is_waited_for(self, fake: FakeProvider) -> None:
        fake.script("small", [Reply(text="at last", delay_s=0.3)])
        async with calling(fake.base_url) as provider:
            assert (await provider.complete(HELLO)).text == "at last"

    async def test_a_silent_provider_times_out_and_its_call_is_given_up(
        self, fake: FakeProvider
    ) -> None:
        fake.script("small", [Reply(hang=True)])
        async with calling(fake.base_url, timeout_s=0.3) as provider:
            caught = await failure(provider)
            assert caught.kind is K.RETRYABLE
            assert "timeout" in str(caught)
            await asyncio.to_thread(fake.wait_until, lambda p: p.in_flight == 0)
            assert [call.outcome for call in fake.calls] == ["abandoned"]

    async def test_an_answer_that_trickles_is_bounded_as_a_whole(self) -> None:
        async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)

        async with serving(trickle) as url, calling(url, timeout_s=0.5) as provider:
            caught = await failure(provider)
        assert caught.kind is K.RETRYABLE
        assert "no whole answer within 0.5 s" in str(caught)

    @pytest.mark.parametrize("announced", [True, False])
    async def test_an_endless_answer_is_given_up(self, announced: bool) -> None:
        sent = 0

        async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            length = b"content-length: 99999999999\r\n" if announced else b""
            writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
            while not writer.is_closing():
                writer.write(b" " * 65536)
                await writer.drain()
                sent += 65536

        async with serving(flood) as url, calling(url, max_answer_bytes=1 << 20) as provider:
            caught = await failure(provider)
        assert caught.kind is K.PERMANENT
        assert "answer too large: more than 1048576 bytes" in str(caught)
        assert sent < 1 << 25, "it was read no further than socket buffers reach"

    async def test_what_is_not_http_may_be_right_next_time(self) -> None:
        async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 smtp.example ESMTP\r\n\r\n")
            await writer.drain()

        async with serving(babble) as url, calling(url) as provider:
            assert (await failure(provider)).kind is K.RETRYABLE

    async def test_a_server_that_hangs_up_on_a_long_body(self) -> None:
        async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")

        long = Request.model_validate({"text": "long " * 1_000_000})
        async with serving(hang_up) as url, calling(f"{url}?key=hidden") as provider:
            with pytest.raises(ProviderError, match="the connection was lost") as caught:
                await provider.complete(long)
        assert caught.value.kind is K.RETRYABLE
        assert "hidden" not in str(caught.value)

    async def test_nobody_listens(self) -> None:
        async with calling(f"http://127.0.0.1:{free_port()}/v1") as provider:
            caught = await failure(provider)
        assert caught.kind is K.RETRYABLE
        assert "no connection" in str(caught)

    async def test_tls_to_a_server_without_tls(self, fake: FakeProvider) -> None:
        async with calling(fake.base_url.replace("http://", "https://")) as provider:
            caught = await failure(provider)
        assert caught.kind is K.RETRYABLE
        assert "no connection" in str(caught)

    async def test_an_outage_and_its_end(self, fake: FakeProvider) -> None:
        async with calling(fake.base_url) as provider:
            await provider.complete(HELLO)
            await asyncio.to_thread(fake.stop)
            assert (await failure(provider)).kind is K.RETRYABLE
            fake.start()
            assert (await provider.complete(HELLO)).text

    async def test_cancelling_a_call_ends_it_at_the_provider_too(self, fake: FakeProvider) -> None:
        fake.script("small", [Reply(hang=True)])
        async with calling(fake.base_url) as provider:
            call = asyncio.create_task(provider.complete(HELLO))
            await asyncio.to_thread(fake.wait_until, lambda p: p.in_flight == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.to_thread(fake.wait_until, lambda p: p.in_flight == 0)

    async def test_the_key_is_sent_and_never_told(self) -> None:
        with FakeProvider(api_key="sk-right-0123456789") as fake:
            async with calling(fake.base_url, api_key="sk-right-0123456789") as provider:
                assert (await provider.complete(HELLO)).text
            async with calling(fake.base_url, api_key="sk-wrong-0123456789") as provider:
                caught = await failure(provider)
            async with calling(fake.base_url) as provider:
                assert (await failure(provider)).status == 401
        assert (caught.kind, caught.status) == (K.DENIED, 401)
        assert "sk-wrong" not in str(caught)

    async def test_cookies_are_not_kept(self) -> None:
        seen: list[bytes] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                seen.append(head.lower())
                body = b'{"choices": [{"message": {"content": "hi"}}]}'
                size = str(len(body)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nset-cookie: who=you\r\ncontent-length: ")
                writer.write(size + b"\r\n\r\n" + body)
                await writer.drain()

        async with serving(handle) as url, calling(url) as provider:
            await provider.complete(HELLO)
            await provider.complete(HELLO)
        assert len(seen) == 2, "both came through one connection"
        assert b"cookie" not in seen[1]

    async def test_a_proxy_from_the_environment_is_used(
        self, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", fake.base_url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with calling("http://models.invalid/v1") as provider:
            assert (await provider.complete(HELLO)).text == "small answers: Hello there"


class TestWholeAndStreamed:
    """What is the same whether an answer comes in a piece or in many."""

    @pytest.fixture(params=[False, True], ids=["whole", "streamed"])
    def stream(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    async def test_text_usage_and_limits(self, fake: FakeProvider, stream: bool) -> None:
        usage = Usage(input_tokens=20, output_tokens=9, cached_input_tokens=12, reasoning_tokens=5)
        headers = {
            "x-ratelimit-limit-tokens": "1000",
            "x-ratelimit-remaining-tokens": "980",
            "x-ratelimit-reset-tokens": "1.2s",
        }
        text = "Salve, munde! 🌍\n" * 20
        fake.script("small", [Reply(text=text, usage=usage, headers=headers, model="small-2026")])
        async with calling(fake.base_url, stream=stream) as provider:
            answer = await provider.complete(HELLO)
        assert (answer.text, answer.usage, answer.finish_reason) == (text, usage, "stop")
        assert answer.provider_model == "small-2026"
        assert answer.allowance == Allowance(None, None, None, 1000, 980, 1.2)

    @pytest.mark.parametrize("text", [None, "Let me look."])
    async def test_tool_calls_and_their_results(
        self, fake: FakeProvider, stream: bool, text: str | None
    ) -> None:
        fake.script("small", [Reply(text=text, tool_calls=CALLS), Reply(text="22 degrees.")])
        tools = [{"type": "function", "function": {"name": call.function.name}} for call in CALLS]
        async with calling(fake.base_url, stream=stream) as provider:
            asked = HELLO.model_copy(update={"params": {"tools": tools}})
            first = await provider.complete(asked)
            assert (first.text, first.tool_calls) == (text or "", CALLS)
            assert first.finish_reason == "tool_calls"
            turns = [
                {"role": "user", "content": "Hello there"},
                {"role": "assistant", "content": first.text, "tool_calls": first.tool_calls},
                {"role": "tool", "content": "22", "tool_call_id": "call_1"},
                {"role": "tool", "content": "noon", "tool_call_id": "call_2"},
            ]
            then = Request.model_validate({"messages": turns, "params": {"tools": tools}})
            assert (await provider.complete(then)).text == "22 degrees."

    async def test_a_refusal(self, fake: FakeProvider, stream: bool) -> None:
        fake.script("small", [Reply(refusal="I'd rather not.")])
        async with calling(fake.base_url, stream=stream) as provider:
            caught = await failure(provider)
        assert caught.kind is K.REFUSED
        assert "I'd rather not." in str(caught)

    async def test_a_connection_lost_halfway(self, fake: FakeProvider, stream: bool) -> None:
        fake.script("small", [Reply(close="half")])
        async with calling(fake.base_url, stream=stream) as provider:
            assert (await failure(provider)).kind is K.RETRYABLE

    async def test_an_image(self, fake: FakeProvider, stream: bool) -> None:
        parts = [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ]
        request = Request.model_validate({"messages": [{"role": "user", "content": parts}]})
        async with calling(fake.base_url, stream=stream) as provider:
            answer = await provider.complete(request)
        assert answer.text == "small answers: What is this?"
        assert fake.calls[0].digest == text_digest(request.text)

    @pytest.mark.parametrize(
        ("path", "api_version"),
        [("", "2024-10-21"), ("", None), ("/openai/v1", "preview"), ("/openai", "2024-10-21")],
    )
    @pytest.mark.parametrize("key", ["0123456789abcdef", TOKEN])
    async def test_azure(self, stream: bool, path: str, api_version: str | None, key: str) -> None:
        with FakeProvider(models=["small"], api_key=key) as fake:
            fake.script("small", [Reply(text="Salve", model="gpt-4o")])
            options = {"kind": Azure, "api_version": api_version, "api_key": key}
            async with calling(fake.azure_url + path, stream=stream, **options) as provider:
                answer = await provider.complete(HELLO)
        assert (answer.text, answer.provider_model) == ("Salve", "gpt-4o")
        assert [(call.model, call.outcome) for call in fake.calls] == [("small", "answered")]


class TestStream:
    async def test_the_first_piece_comes_before_the_rest(self, fake: FakeProvider) -> None:
        gate = Gate()
        fake.script("small", [Reply(text="Salve", rest_gate=gate)])
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{fake.base_url}/chat/completions", json=body) as answer,
        ):
            first = await answer.content.readuntil(b"\n\n")
            assert json.loads(first.removeprefix(b"data: "))["choices"][0]["delta"] == {
                "role": "assistant",
                "content": "",
                "refusal": None,
            }
            assert fake.in_flight == 1
            gate.open()
            rest = await answer.content.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"usage"' not in rest, "nobody asked for it"

    async def test_the_time_of_the_first_piece_is_told(self, fake: FakeProvider) -> None:
        async with calling(fake.base_url, stream=True) as provider:
            streamed = await provider.complete(HELLO)
        async with calling(fake.base_url) as provider:
            whole = await provider.complete(HELLO)
        assert streamed == whole
        assert streamed.first_token_s is not None
        assert whole.first_token_s is None

    async def test_an_error_in_the_middle_is_told_apart(self, fake: FakeProvider) -> None:
        body = (
            b'data: {"choices": [{"index": 0, "delta": {"content": "Sal"}}]}\n\n'
            b'data: {"error": {"message": "no more", "type": "server_error", "code": null}}\n\n'
        )
        headers = {"content-type": "text/event-stream"}
        fake.script("small", [Reply(body=body, headers=headers)])
        async with calling(fake.base_url, stream=True) as provider:
            caught = await failure(provider)
        assert caught.kind is K.RETRYABLE
        assert "no more" in str(caught)


class TestFakeAzure:
    """What Azure OpenAI turns down, with its own words."""

    @pytest.mark.parametrize(
        ("path", "headers", "status", "code"),
        [
            ("/openai/deployments/small/chat/completions", {}, 404, "404"),
            ("/openai/deployments/small/chat/completions?api-version=1", {}, 400, "BadRequest"),
            ("/openai/v1/chat/completions?api-version=2024-10-21", {}, 400, "BadRequest"),
            ("/openai/deployments/small/completions?api-version=2024-10-21", {}, 404, "404"),
            (
                "/openai/deployments/big/chat/completions?api-version=2024-10-21",
                {"api-key": "right"},
                404,
                "DeploymentNotFound",
            ),
            ("/openai/v1/chat/completions", {}, 401, "401"),
            ("/openai/v1/chat/completions", {"api-key": "wrong"}, 401, "401"),
            (
                "/openai/deployments/small/chat/completions?api-version=2024-10-21",
                {"authorization": "Bearer right"},
                401,
                "401",
            ),
        ],
    )
    def test_addresses_and_keys(
        self, path: str, headers: dict[str, str], status: int, code: str
    ) -> None:
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
        with (
            FakeProvider(models=["small"], api_key="right") as fake,
            httpx.Client(base_url=fake.azure_url, trust_env=False) as http,
        ):
            answer = http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)

    def test_a_token_is_no_key(self) -> None:
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
        with (
            FakeProvider(api_key=TOKEN) as fake,
            httpx.Client(base_url=fake.azure_url, trust_env=False) as http,
        ):
            answer = http.post("/openai/v1/chat/completions", json=body, headers={"api-key": TOKEN})
        assert answer.status_code == 401

    @pytest.mark.parametrize("version", ["2024-10-21", None])
    @pytest.mark.parametrize("key", ["right", "wrong"])
    async def test_its_errors_mean_what_they_mean_to_the_provider(
        self, key: str, version: str | None
    ) -> None:
        with FakeProvider(models=["other"], api_key="right") as fake:
            options: dict[str, Any] = {"kind": Azure, "api_key": key, "api_version": version}
            async with calling(fake.azure_url, **options) as provider:
                caught = await failure(provider)
        assert (caught.kind, caught.status) == (K.DENIED, 404 if key == "right" else 401)


class TestFake:
    """What the fake promises to those who test with it."""

    @pytest.fixture
    def http(self, fake: FakeProvider) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=fake.base_url, trust_env=False) as client:
            yield client

    def ask(self, http: httpx.Client, **body: Any) -> httpx.Response:
        full = {"model": "small", "messages": [{"role": "user", "content": "hi"}], **body}
        return http.post("/chat/completions", json=full)

    def test_a_script_is_played_once_in_order(self, fake: FakeProvider, http: httpx.Client) -> None:
        fake.script("small", [Reply(status=503), Reply(text="b")])
        fake.script(ANY, [Reply(text="c")])
        fake.always("small", Reply(text="d"))
        fake.always(ANY, Reply(text="e"))
        answers = [self.ask(http) for _ in range(4)] + [self.ask(http, model="other")]
        assert answers[0].status_code == 503
        texts = [a.json()["choices"][0]["message"]["content"] for a in answers[1:]]
        assert texts == ["b", "c", "d", "e"]
        fake.reset()
        assert self.ask(http).json()["choices"][0]["message"]["content"] == "small answers: hi"
        assert len(fake.calls) == 1

    @pytest.mark.parametrize(
        ("body", "code", "param"),
        [
            ({"messages": None}, "missing_required_parameter", "messages"),
            ({"messages": []}, "empty_array", "messages"),
            ({"messages": "hi"}, "invalid_type", "messages"),
            ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
            ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
            (
                {"messages": [{"content": "hi"}]},
                "missing_required_parameter",
                "messages[0].role",
            ),
            (
                {"messages": [{"role": "bot", "content": "hi"}]},
                "invalid_value",
                "messages[0].role",
            ),
            (
                {"messages": [{"role": "user", "content": 7}]},
                "invalid_type",
                "messages[0].content",
            ),
            (
                {"messages": [{"role": "tool", "content": "7"}]},
                "missing_required_parameter",
                "messages[0].tool_call_id",
            ),
            (
                {"messages": [{"role": "user", "content": "hi", "mood": "good"}]},
                "unknown_parameter",
                "messages[0].mood",
            ),
            ({"model": 7}, "invalid_type", "model"),
            ({"model": None}, None, None),
            ({"top_k": 5}, None, None),
            ({"temperature": "hot"}, "invalid_type", "temperature"),
            ({"temperature": 3}, "decimal_above_max_value", "temperature"),
            ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
            ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
            ({"n": True}, "invalid_type", "n"),
            ({"stop": 7}, "invalid_type", "stop"),
            ({"stream_options": {"include_usage": True}}, None, "stream_options"),
            (
                {"stream": True, "stream_options": {"usage": True}},
                "unknown_parameter",
                "stream_options.usage",
            ),
            (
                {"stream": True, "stream_options": {"include_usage": 1}},
                "invalid_type",
                "stream_options.include_usage",
            ),
            ({"messages": parts()}, "empty_array", "messages[0].content"),
            ({"messages": parts("hi")}, "invalid_type", "messages[0].content[0]"),
            ({"messages": parts({})}, "missing_required_parameter", "messages[0].content[0].type"),
            ({"messages": parts({"type": "pic"})}, "invalid_value", "messages[0].content[0].type"),
            (
                {"messages": parts({"type": "text"})},
                "missing_required_parameter",
                "messages[0].content[0].text",
            ),
            (
                {"messages": parts({"type": "image_url", "image_url": "https://h/a.png"})},
                "invalid_type",
                "messages[0].content[0].image_url",
            ),
            (
                {"messages": parts(image("file:///a.png"))},
                "invalid_value",
                "messages[0].content[0].image_url.url",
            ),
            (
                {"messages": parts(image("https://h/a.png", detail="best"))},
                "invalid_value",
                "messages[0].content[0].image_url.detail",
            ),
            (
                {"messages": parts(image("https://h/a.png"), role="system")},
                "invalid_value",
                "messages[0].content[0]",
            ),
            ({"messages": [ASKS]}, None, "messages[1].role"),
            ({"messages": [ASKS, {"role": "user", "content": "?"}]}, None, "messages[1].role"),
            (
                {"messages": [{"role": "tool", "content": "7", "tool_call_id": "call_1"}]},
                None,
                "messages[0].role",
            ),
            (
                {"messages": [{"role": "assistant", "tool_calls": []}]},
                "empty_array",
                "messages[0].tool_calls",
            ),
            (
                {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
                "missing_required_parameter",
                "messages[0].tool_calls[0].type",
            ),
            (
                {"tools": [{"type": "function", "function": {"name": "no spaces"}}]},
                "invalid_value",
                "tools[0].function.name",
            ),
            (
                {"tools": [{"type": "function", "name": "flat"}]},
                "missing_required_parameter",
                "tools[0].function",
            ),
            ({"tool_choice": "auto"}, None, "tool_choice"),
        ],
        ids=str,
    )
    def test_what_the_real_api_refuses_is_refused(
        self,
        fake: FakeProvider,
        http: httpx.Client,
        body: dict[str, Any],
        code: str | None,
        param: str | None,
    ) -> None:
        answer = self.ask(http, **body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == (code, param)
        assert error["type"] == "invalid_request_error"
        assert [call.outcome for call in fake.calls] == ["rejected"]

    def test_what_the_real_api_takes_is_taken(self, http: httpx.Client) -> None:
        messages = [
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            ASKS,
            {"role": "tool", "content": "7", "tool_call_id": "call_1"},
            {"role": "user", "content": [image("https://h/a.png"), {"type": "text", "text": "hi"}]},
        ]
        params = {"temperature": 0, "max_tokens": 5, "stop": ["x"], "user": "u", "seed": None}
        answer = self.ask(http, messages=messages, **params)
        assert answer.status_code == 200
        usage = answer.json()["usage"]
        assert usage == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}

    def test_names_of_users_and_results_of_functions_are_taken(self, http: httpx.Client) -> None:
        messages = [
            {"role": "user", "content": "hi", "name": "ann"},
            {"role": "assistant", "content": None, "function_call": {"name": "f"}},
        ]
        assert self.ask(http, messages=messages).status_code == 200

    def test_broken_json_and_unknown_addresses(self, http: httpx.Client) -> None:
        assert http.post("/chat/completions", content=b"{").status_code == 400
        assert http.post("/completions", json={}).status_code == 404
        assert http.get("/chat/completions").status_code == 404

    def test_knows_only_its_models(self) -> None:
        with (
            FakeProvider(models=["small"]) as fake,
            httpx.Client(base_url=fake.base_url, trust_env=False) as http,
        ):
            assert [m["id"] for m in http.get("/models").json()["data"]] == ["small"]
            assert self.ask(http).status_code == 200
            answer = self.ask(http, model="big")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")

    def test_a_gate_holds_calls_until_it_opens(
        self, fake: FakeProvider, http: httpx.Client
    ) -> None:
        gate = Gate()
        fake.script("small", [Reply(text="held", gate=gate)])
        answers: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: answers.append(self.ask(http)))
        caller.start()
        fake.wait_until(lambda p: p.in_flight == 1)
        assert not answers
        gate.open()
        caller.join(10)
        assert answers[0].json()["choices"][0]["message"]["content"] == "held"

    def test_waiting_in_vain_says_what_is(self, fake: FakeProvider) -> None:
        with pytest.raises(TimeoutError, match="0 calls ended, 0 in flight"):
            fake.wait_until(lambda p: p.in_flight == 1, timeout_s=0.01)

    def test_stopping_ends_calls_in_flight(self, tmp_path: Path) -> None:
        log = tmp_path / "calls.jsonl"
        with FakeProvider(default=Reply(hang=True), log=log) as fake:
            url = f"{fake.base_url}/chat/completions"

            async def call_and_stop() -> None:
                async with aiohttp.ClientSession() as session:
                    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
                    call = asyncio.create_task(session.post(url, json=body))
                    await asyncio.to_thread(fake.wait_until, lambda p: p.in_flight == 1)
                    await asyncio.to_thread(fake.stop)
                    with pytest.raises(aiohttp.ClientConnectionError):
                        await call

            asyncio.run(call_and_stop())
            assert [call.outcome for call in fake.calls] == ["abandoned"]
        assert json.loads(log.read_text())["outcome"] == "abandoned"

    def test_a_taken_port_is_an_error(self, fake: FakeProvider) -> None:
        second = FakeProvider(port=int(fake.base_url.split(":")[2].split("/")[0]))
        with pytest.raises(OSError, match="in use"):
            second.start()

    def test_the_digest_is_the_begin_of_a_sha256(self) -> None:
        assert text_digest("a\nb") == hashlib.sha256(b"a\nb").hexdigest()[:16]

    def test_as_a_process_it_takes_cues_over_http_and_logs(self, tmp_path: Path) -> None:
        log = tmp_path / "calls.jsonl"
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard.testing", "--log", str(log)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            with httpx.Client(base_url=base_url, trust_env=False) as http:
                cues = {
                    "model": "small",
                    "replies": [
                        {"status": 429, "headers": {"retry-after": "2"}},
                        {"tool_calls": [call.encode() for call in CALLS]},
                    ],
                    "always": {"text": "hello", "usage": {"input_tokens": 5, "output_tokens": 6}},
                }
                control = base_url.removesuffix("/v1") + "/_fake"
                assert http.post(f"{control}/script", json=cues).status_code == 200
                assert http.post(f"{control}/script", json={"model": 1, "always": {"x": 1}})
                limited, called = self.ask(http), self.ask(http)
                answered = self.ask(http, metadata={"request_id": "r-9"})
                report = http.get(f"{control}/calls").json()
            assert limited.headers["retry-after"] == "2"
            assert called.json()["choices"][0]["finish_reason"] == "tool_calls"
            assert answered.json()["usage"]["completion_tokens"] == 6
            assert [call["status"] for call in report["calls"]] == [429, 200, 200]
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            assert lines == report["calls"]
            assert lines[2]["request_id"] == "r-9"
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
