"""What becomes of an answer of Bedrock's that comes in pieces."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from zlib import crc32

import httpx
import pytest
from fakes.bedrock_api import answer, problem
from fakes.bedrock_stream import CONTENT_TYPE, event, exception, frame, frames_of
from fakes.requests import broken
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.base import Completion, Failure
from model_workers.providers.bedrock import Bedrock, BedrockDialect, read_response
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, ToolCall, Usage

NOVA = "us.amazon.nova-lite-v1:0"
BASE = httpx.URL("https://bedrock-runtime.us-east-1.amazonaws.com")
FRAMES = {"content-type": CONTENT_TYPE}
NOW = 1_800_000_000.0
SIGNED = {"reasoningContent": {"reasoningText": {"text": "Bern, so", "signature": "EqQBCg"}}}
HIDDEN = {"reasoningContent": {"redactedContent": base64.b64encode(b"EqQ hidden").decode()}}
USE = {"toolUse": {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Bern 🌍"}}}
USE_BEGUN = {"toolUse": {"toolUseId": "tooluse_1", "name": "weather"}}
HALF_AN_INPUT = {"toolUse": {"input": '{"city": "Be'}}
USAGE = {
    "inputTokens": 3,
    "outputTokens": 9,
    "totalTokens": 132,
    "cacheReadInputTokens": 100,
    "cacheWriteInputTokens": 20,
}
WHOLE = answer(
    SIGNED,
    {"text": "Let me see: Grüße."},
    USE,
    HIDDEN,
    {"toolUse": {"toolUseId": "t2", "name": "now", "input": {}}},
    stopReason="tool_use",
    usage=USAGE,
    trace={"promptRouter": {"invokedModelId": "arn:aws:bedrock:us-east-1::anthropic.claude-3"}},
)


def read(body: bytes, headers: dict[str, str] | None = None) -> Completion | Failure:
    return read_response(200, headers or FRAMES, body, NOVA, NOW, by="me")


def streamed(whole: dict[str, Any]) -> Completion | Failure:
    return read(b"".join(frames_of(whole)))


def at_once(whole: dict[str, Any]) -> Completion | Failure:
    return read(json.dumps(whole).encode(), {"content-type": "application/json"})


def failed(body: bytes, headers: dict[str, str] | None = None) -> Failure:
    outcome = read(body, headers)
    assert isinstance(outcome, Failure)
    return outcome


class TestWhole:
    def test_it_says_what_it_would_have_said_at_once(self) -> None:
        completion = streamed(WHOLE)
        assert completion == at_once(WHOLE)
        assert isinstance(completion, Completion)
        assert completion.text == "Let me see: Grüße."
        assert completion.provider_model == "arn:aws:bedrock:us-east-1::anthropic.claude-3"
        assert completion.finish_reason == "tool_calls"
        assert completion.usage == Usage(
            input_tokens=123, output_tokens=9, cached_input_tokens=100, cache_write_tokens=20
        )
        assert completion.tool_calls == (
            ToolCall.of(
                "tooluse_1",
                "weather",
                '{"city": "Bern 🌍"}',
                {"me": {"reasoningContent": [SIGNED["reasoningContent"]]}},
            ),
            ToolCall.of(
                "t2", "now", "{}", {"me": {"reasoningContent": [HIDDEN["reasoningContent"]]}}
            ),
        )

    @pytest.mark.parametrize(
        "whole",
        [
            answer({"text": "Salve"}),
            answer({"text": "Sal"}, {"text": "ve"}, stopReason="max_tokens"),
            answer({"text": "Sorry."}, stopReason="guardrail_intervened"),
            answer(stopReason="model_context_window_exceeded"),
            answer(stopReason="malformed_tool_use"),
            answer(stopReason="max_tokens"),
            answer(SIGNED, stopReason="end_turn"),
            answer({"toolUse": {**USE["toolUse"], "type": "server_tool_use"}}, {"text": "So"}),
        ],
    )
    def test_whatever_it_says_means_the_same(self, whole: dict[str, Any]) -> None:
        assert streamed(whole) == at_once(whole)

    def test_a_server_that_answers_at_once_is_understood(self) -> None:
        assert isinstance(at_once(answer({"text": "Salve"})), Completion)

    def test_without_a_count_at_its_end_it_is_an_answer(self) -> None:
        completion = read(b"".join(frames_of(answer({"text": "Salve"}))[:-1]))
        assert isinstance(completion, Completion)
        assert (completion.text, completion.usage) == ("Salve", Usage())

    def test_what_is_new_one_day_changes_nothing(self) -> None:
        begin, *rest = frames_of(answer({"text": "Salve"}))
        new = event("ofTomorrow", {"x": 1}), frame({":event-type": "initial-response"}, b"{}")
        assert read(b"".join([begin, *new, *rest])) == streamed(answer({"text": "Salve"}))

    @pytest.mark.parametrize("torn", ["é", "A", "=A=="])
    def test_a_secret_that_can_not_be_read_is_left_out_whole(self, torn: str) -> None:
        hidden = HIDDEN["reasoningContent"]["redactedContent"]
        pieces = [
            event(
                "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": each}}
            )
            for each in ({"redactedContent": said} for said in (hidden, torn, hidden))
        ]
        use = {"contentBlockIndex": 1, "start": USE_BEGUN}
        end = event("messageStop", {"stopReason": "tool_use"})
        completion = read(b"".join([*pieces, event("contentBlockStart", use), end]))
        assert isinstance(completion, Completion)
        assert [call.opaque for call in completion.tool_calls] == [None]


class TestCutUp:
    BODY = b"".join(frames_of(WHOLE))

    @given(st.lists(st.integers(0, len(BODY)), max_size=12))
    def test_any_split_of_the_bytes_gives_the_same_answer(self, cuts: list[int]) -> None:
        places = [0, *sorted(cuts), len(self.BODY)]
        pieces = [self.BODY[a:b] for a, b in itertools.pairwise(places)]

        async def arriving() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        assert asyncio.run(call(arriving)) == asyncio.run(call(lambda: self.BODY))

    @given(st.integers(0, len(BODY) - 1))
    def test_half_a_stream_is_no_answer(self, cut: int) -> None:
        last = len(frames_of(WHOLE)[-1])
        outcome = read(self.BODY[:cut])
        if cut == len(self.BODY) - last:
            assert isinstance(outcome, Completion), "only the count is missing"
        else:
            assert isinstance(outcome, Failure)
            assert outcome.kind is FailureKind.RETRYABLE
            assert "half an answer" in outcome.message

    @given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
    def test_a_byte_that_was_changed_is_no_answer(self, at: int, by: int) -> None:
        changed = self.BODY[:at] + bytes([self.BODY[at] ^ by]) + self.BODY[at + 1 :]
        assert failed(changed).kind is FailureKind.RETRYABLE


async def call(content: Any) -> Completion:
    """One call over httpx, whose response has this content."""

    def respond(asked: httpx.Request) -> httpx.Response:
        assert problem(json.loads(asked.content)) is None
        return httpx.Response(200, headers=FRAMES, content=content())

    endpoint = Endpoint(base_url=str(BASE), api_key="bedrock-api-key-1")
    model = Model(name="nova", provider="bedrock", model=NOVA, endpoints=(endpoint,), stream=True)
    client = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    provider = Bedrock(model, endpoint, client)
    try:
        return await provider.complete(Request.of("Salve"))
    finally:
        await provider.aclose()


class TestThrown:
    @pytest.mark.parametrize(
        ("kind", "said", "status", "means"),
        [
            ("throttlingException", "Too many requests", 429, "limited"),
            ("modelStreamErrorException", "Broken", 424, "retryable"),
            ("internalServerException", "Oops", 500, "retryable"),
            ("serviceUnavailableException", "Later", 503, "retryable"),
            ("modelTimeoutException", "Slow", 408, "retryable"),
            ("validationException", "Input is too long for requested model.", 400, "too_long"),
            ("validationException", "A conversation must alternate", 400, "permanent"),
            ("ofTomorrowException", "No", 500, "retryable"),
        ],
    )
    @pytest.mark.parametrize("frames", [0, 4])
    def test_an_exception_is_the_outcome(
        self, kind: str, said: str, status: int, means: str, frames: int
    ) -> None:
        begun = b"".join(frames_of(WHOLE)[:frames])
        failure = failed(begun + exception(kind, said))
        assert (failure.kind, failure.status) == (means, status)
        name = kind[0].upper() + kind[1:]
        assert failure.message == f"error {status} in the middle of the answer: {name}: {said}"

    def test_the_models_own_words_are_passed_on(self) -> None:
        body = exception("modelStreamErrorException", "Failed", originalMessage="CUDA")
        assert failed(body).message.endswith("ModelStreamErrorException: Failed: CUDA")

    def test_an_error_without_a_model_has_its_words_in_headers(self) -> None:
        headers = {
            ":message-type": "error",
            ":error-code": "internalServerException",
            ":error-message": "Oops",
        }
        failure = failed(frame(headers, b""))
        assert failure.kind is FailureKind.RETRYABLE
        assert failure.message.endswith("InternalServerException: Oops")

    def test_it_is_told_though_the_rest_is_broken(self) -> None:
        body = exception("throttlingException", "Slower") + b"\0\0"
        assert failed(body).kind is FailureKind.LIMITED

    def test_the_wait_is_that_of_the_headers(self) -> None:
        headers = {**FRAMES, "retry-after": "7"}
        assert failed(exception("throttlingException", "Slower"), headers).retry_after_s == 7


class TestBroken:
    def test_a_frame_larger_than_any_may_be_is_not_asked_for_again(self) -> None:
        prelude = b"\xff\xff\xff\xff\0\0\0\0"
        failure = failed(prelude + crc32(prelude).to_bytes(4, "big"))
        assert (failure.kind, "too large" in failure.message) == (FailureKind.PERMANENT, True)

    @pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b"\xff"])
    def test_an_event_that_is_no_json_is_none(self, payload: bytes) -> None:
        failure = failed(frame({":message-type": "event", ":event-type": "metadata"}, payload))
        assert failure.kind is FailureKind.RETRYABLE
        assert "not JSON" in failure.message

    def test_the_input_of_a_tool_may_end_too_early(self) -> None:
        body = b"".join(
            [
                event("contentBlockStart", {"contentBlockIndex": 0, "start": USE_BEGUN}),
                event("contentBlockDelta", {"contentBlockIndex": 0, "delta": HALF_AN_INPUT}),
                event("messageStop", {"stopReason": "tool_use"}),
            ]
        )
        assert failed(body).kind is FailureKind.RETRYABLE
        spent = body.replace(event("messageStop", {"stopReason": "tool_use"}), b"")
        spent += event("messageStop", {"stopReason": "max_tokens"})
        assert failed(spent).kind is FailureKind.PERMANENT

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["contentBlockStart", "contentBlockDelta", "messageStop", "metadata", ""]
                ),
                broken(
                    {
                        "contentBlockIndex": 0,
                        "start": {"toolUse": {"toolUseId": "a", "name": "b"}},
                        "delta": {
                            "text": "a",
                            "toolUse": {"input": "{}"},
                            "reasoningContent": {
                                "text": "a",
                                "signature": "b",
                                "redactedContent": "?",
                            },
                        },
                        "stopReason": "end_turn",
                        "usage": {"inputTokens": 1},
                        "trace": {"promptRouter": {"invokedModelId": "m"}},
                    }
                ),
            ),
            max_size=5,
        )
    )
    def test_events_of_any_shape_have_an_outcome(self, events: list[tuple[str, Any]]) -> None:
        told = [(kind, data) for kind, data in events if isinstance(data, dict)]
        body = b"".join(event(kind, data) for kind, data in told)
        assert isinstance(read(body), Completion | Failure)


def test_it_is_asked_for_at_another_address() -> None:
    endpoint = Endpoint(base_url=str(BASE), api_key="bedrock-api-key-1")
    model = Model(name="nova", provider="bedrock", model=NOVA, endpoints=(endpoint,), stream=True)
    dialect = BedrockDialect(model, endpoint)
    assert dialect.address(BASE).raw_path == f"/model/{NOVA}/converse-stream".encode()
    assert dialect.headers(BASE) == {
        "accept": CONTENT_TYPE,
        "authorization": "Bearer bedrock-api-key-1",
    }


async def test_a_body_without_end_is_given_up() -> None:
    endpoint = Endpoint(base_url=str(BASE), api_key="bedrock-api-key-1")
    model = Model(name="nova", provider="bedrock", model=NOVA, endpoints=(endpoint,), stream=True)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield event("contentBlockDelta", {"delta": {"text": "more " * 1_000}})

    client = httpx.AsyncClient(
        transport=httpx.MockTransport(
            lambda _: httpx.Response(200, headers=FRAMES, content=endless())
        )
    )
    provider = Bedrock(model, endpoint, client, max_answer_bytes=100_000)
    with pytest.raises(ProviderError, match="too large") as caught:
        await provider.complete(Request.of("Salve"))
    assert caught.value.kind is FailureKind.PERMANENT
    await provider.aclose()
