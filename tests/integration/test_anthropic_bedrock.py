"""Anthropic and Bedrock over real HTTP, with the client that workers use."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from fakes.anthropic_api import AnthropicApi, error
from fakes.bedrock_api import BedrockApi, answer, failed
from fakes.bedrock_stream import exception, frames_of
from fakes.requests import PNG, WEATHER
from fakes.server import Canned

from model_workers.providers.anthropic import Anthropic
from model_workers.providers.bedrock import Bedrock
from model_workers.providers.http import make_client
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request

KEY = "sk-very-secret-0123456789"
ROUTER = "arn:aws:bedrock:eu-west-1:123456789012:default-prompt-router/anthropic.claude:1"
TALK = Request.model_validate(
    {
        "messages": [
            {"role": "system", "content": "Be short."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Where is this, and is it sunny there? Grüße 🌍"},
                    {"type": "image_url", "image_url": {"url": PNG}},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "call:1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call:1", "content": "Sunny"},
        ],
        "params": {"tools": [WEATHER], "tool_choice": "auto", "temperature": 0.5, "stop": ["END"]},
    }
)


@pytest.fixture
def claude() -> Iterator[AnthropicApi]:
    with AnthropicApi(KEY) as api:
        yield api


def anthropic(api: AnthropicApi, key: str = KEY, **changes: Any) -> Anthropic:
    endpoint = Endpoint(base_url=api.base_url, api_key=key, name="claude")
    model = Model(
        name="claude", provider="anthropic", model="claude-x", endpoints=(endpoint,), **changes
    )
    return Anthropic(model, endpoint, make_client(endpoint, timeout_s=30, concurrency=4))


def bedrock(
    url: str, key: str | None, model: str = ROUTER, stream: bool = False, **changes: Any
) -> Bedrock:
    endpoint = Endpoint(base_url=url, api_key=key, region="eu-west-1", name="aws")
    catalog = Model(
        name="nova",
        provider="bedrock",
        model=model,
        endpoints=(endpoint,),
        stream=stream,
        **changes,
    )
    return Bedrock(catalog, endpoint, make_client(endpoint, timeout_s=30, concurrency=4))


async def failure(provider: Anthropic | Bedrock, request: Request = TALK) -> ProviderError:
    async with aclosing(provider):
        with pytest.raises(ProviderError) as caught:
            await provider.complete(request)
    return caught.value


class TestAnthropic:
    async def test_answers_a_talk_with_tools_and_an_image(self, claude: AnthropicApi) -> None:
        async with aclosing(anthropic(claude)) as provider:
            completion = await provider.complete(TALK, request_id="r-1")
        assert (completion.text, completion.provider_model) == (
            "claude-x read 3 turns",
            "claude-x",
        )
        assert completion.first_token_s is None
        (asked,) = claude.calls
        assert asked.headers["x-request-id"] == "r-1"

    async def test_answers_in_pieces(self, claude: AnthropicApi) -> None:
        async with aclosing(anthropic(claude, stream=True)) as provider:
            completion = await provider.complete(TALK)
        assert completion.text == "claude-x read 3 turns"
        assert completion.first_token_s is not None

    async def test_a_wrong_key_is_not_repeated_in_the_error(self, claude: AnthropicApi) -> None:
        claude_error = await failure(anthropic(claude, key="sk-wrong-0123456789"))
        assert (claude_error.kind, claude_error.status) == (FailureKind.DENIED, 401)
        assert "sk-wrong" not in str(claude_error)

    async def test_a_limit_is_told_with_its_wait(self, claude: AnthropicApi) -> None:
        claude.script(Canned(429, error("rate_limit_error", "Slower"), {"retry-after": "7"}))
        limited = await failure(anthropic(claude))
        assert (limited.kind, limited.retry_after_s) == (FailureKind.LIMITED, 7)

    async def test_betas_go_along_with_their_call_only(self, claude: AnthropicApi) -> None:
        beta = "interleaved-thinking-2025-05-14"
        asked = TALK.model_copy(update={"params": {**TALK.params, "anthropic_beta": [beta]}})
        unknown = TALK.model_copy(update={"params": {**TALK.params, "anthropic_beta": ["x"]}})
        async with aclosing(anthropic(claude)) as provider:
            await provider.complete(asked)
            await provider.complete(TALK)
        why = await failure(anthropic(claude), unknown)
        told = [each.headers.get("anthropic-beta") for each in claude.calls]
        assert told == [beta, None, "x"]
        assert why.kind == FailureKind.PERMANENT

    async def test_what_it_lacks_is_refused_before_a_call(self, claude: AnthropicApi) -> None:
        why = await failure(anthropic(claude), Request.of("Salve", params={"seed": 1}))
        assert (why.kind, claude.calls) == (FailureKind.PERMANENT, [])
        assert "'seed'" in str(why)


@pytest.mark.parametrize("stream", [False, True])
class TestBedrock:
    async def test_answers_with_a_bearer_key(self, stream: bool) -> None:
        with BedrockApi(KEY) as api:
            async with aclosing(bedrock(api.base_url, KEY, stream=stream)) as provider:
                completion = await provider.complete(TALK)
        path = "/model/" + ROUTER.replace("/", "%2F") + "/converse" + "-stream" * stream
        assert completion.text == f"{path} was asked"
        assert completion.provider_model == ROUTER
        assert (completion.usage.input_tokens, completion.usage.output_tokens) == (10, 5)
        assert (completion.first_token_s is not None) is stream

    async def test_a_wrong_key_is_denied(self, stream: bool) -> None:
        with BedrockApi(KEY) as api:
            why = await failure(bedrock(api.base_url, "bedrock-api-key-wrong", stream=stream))
        assert (why.kind, why.status) == (FailureKind.DENIED, 403)

    async def test_a_throttled_call_is_limited(self, stream: bool) -> None:
        with BedrockApi(KEY) as api:
            api.script(failed(429, "ThrottlingException", "Too many requests"))
            why = await failure(bedrock(api.base_url, KEY, stream=stream))
        assert why.kind == FailureKind.LIMITED

    @pytest.mark.parametrize("model", [ROUTER, "us.amazon.nova-lite-v1:0"])
    async def test_answers_a_signed_call(
        self, monkeypatch: pytest.MonkeyPatch, model: str, stream: bool
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "IQoJtoken")
        with BedrockApi(key_id="AKIDEXAMPLE", secret="wJalrXUtnFEMI", region="eu-west-1") as api:
            async with aclosing(bedrock(api.base_url, None, model, stream)) as provider:
                completion = await provider.complete(TALK)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
            why = await failure(bedrock(api.base_url, None, model, stream))
        assert completion.text.endswith("was asked")
        assert why.kind == FailureKind.DENIED
        assert "IQoJtoken" not in str(why)


@contextlib.asynccontextmanager
async def beginning(begun: asyncio.Event, closed: asyncio.Event) -> AsyncIterator[str]:
    """A server that streams the begin of an answer and no more, until the call is given up."""

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"/converse-stream HTTP/1.1" in head
        said = b"".join(frames_of(answer({"text": "Salve munde"}))[:2])
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n"
            b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (len(said), said)
        )
        await writer.drain()
        begun.set()
        while await reader.read(65_536):
            pass
        closed.set()
        writer.close()

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class TestBedrockStream:
    async def test_an_exception_in_the_middle_is_the_outcome(self) -> None:
        begun = b"".join(frames_of(answer({"text": "Salve"}))[:3])
        thrown = begun + exception("throttlingException", "Too many tokens")
        headers = {"content-type": "application/vnd.amazon.eventstream"}
        with BedrockApi(KEY) as api:
            api.script(Canned(200, thrown, headers), Canned(200, begun, headers))
            limited = await failure(bedrock(api.base_url, KEY, stream=True))
            half = await failure(bedrock(api.base_url, KEY, stream=True))
        assert (limited.kind, limited.status) == (FailureKind.LIMITED, 429)
        assert (half.kind, "half an answer" in str(half)) == (FailureKind.RETRYABLE, True)

    async def test_a_call_that_takes_too_long_ends_at_the_provider_too(self) -> None:
        begun, closed = asyncio.Event(), asyncio.Event()
        async with (
            asyncio.timeout(30),
            beginning(begun, closed) as url,
            aclosing(bedrock(url, KEY, stream=True, timeout_s=0.2)) as provider,
        ):
            with pytest.raises(ProviderError, match="no whole answer"):
                await provider.complete(TALK)
            await closed.wait()

    async def test_a_call_that_is_cancelled_ends_at_the_provider_too(self) -> None:
        begun, closed = asyncio.Event(), asyncio.Event()
        async with (
            asyncio.timeout(30),
            beginning(begun, closed) as url,
            aclosing(bedrock(url, KEY, stream=True)) as provider,
        ):
            call = asyncio.create_task(provider.complete(TALK))
            await begun.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await closed.wait()
