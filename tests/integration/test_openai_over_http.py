"""The OpenAI provider over sockets: answers, outages, and servers that misbehave."""

import asyncio
import json
from collections.abc import Iterator
from email.utils import formatdate

import aiohttp
import pytest
from fakes.over_sockets import CALLS, HELLO, TOKEN, K, calling, failure, free_port, serving

from model_workers.providers.azure import Azure
from model_workers.providers.base import Allowance
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage
from modelyard.testing import ANY, FakeProvider, Gate, Reply, text_digest


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


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
