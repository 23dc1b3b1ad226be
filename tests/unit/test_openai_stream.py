"""Answers of the OpenAI provider that come in pieces."""

import json
from itertools import pairwise
from typing import Any

import httpx
import pytest
from fakes.openai_http import (
    END,
    EVENTS,
    HELLO,
    NOW,
    chunk,
    completion,
    error,
    events,
    failure,
    provider,
    streamed,
    wanted,
)
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.base import Allowance, Completion, Failure
from model_workers.providers.openai import read_response
from modelyard.errors import FailureKind
from modelyard.messages import ToolCall, Usage

COUNTED = chunk(choices=[], usage={"prompt_tokens": 11, "completion_tokens": 7})


class TestStream:
    async def test_it_is_asked_for_where_the_catalog_says_so(self) -> None:
        def handler(call: httpx.Request) -> httpx.Response:
            body = json.loads(call.content)
            assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
            whole = events(chunk({"role": "assistant", "content": "Salve"}), END, COUNTED)
            return httpx.Response(200, content=whole, headers=EVENTS)

        params = {"stream": False, "stream_options": {"include_usage": False}}
        request = HELLO.model_copy(update={"params": params})
        answer = await provider(handler, stream=True).complete(request)
        assert (answer.text, answer.finish_reason) == ("Salve", "stop")
        assert answer.usage == Usage(input_tokens=11, output_tokens=7)
        assert answer.provider_model == "vendor/small-1-2026"
        assert answer.first_token_s is not None

    async def test_a_server_that_answers_in_a_piece_is_understood(self) -> None:
        calls = provider(lambda _: httpx.Response(200, json=completion(content="ok")), stream=True)
        assert (await calls.complete(HELLO)).text == "ok"

    async def test_an_error_before_the_stream_is_one_as_ever(self) -> None:
        calls = provider(lambda _: httpx.Response(429, json=error("slow")), stream=True)
        assert (await failure(calls)).kind is FailureKind.LIMITED

    def test_allowance_and_confidence_come_along(self) -> None:
        half = {"content": [{"token": "a", "logprob": -0.6931471805599453}]}
        body = events(
            chunk({"content": "a"}, choice={"logprobs": half}),
            chunk({"content": "b"}, choice={"logprobs": {"content": [{"logprob": 0}]}}),
            END,
        )
        headers = {**EVENTS, "x-ratelimit-remaining-tokens": "5"}
        answer = read_response(200, headers, body, "small", NOW)
        assert isinstance(answer, Completion)
        assert answer.allowance == Allowance(remaining_tokens=5)
        assert answer.confidence == pytest.approx(0.5**0.5)

    def test_tool_calls_are_joined_by_their_index(self) -> None:
        def piece(index: int, arguments: str, **fields: Any) -> Any:
            function = {"arguments": arguments, **fields.pop("function", {})}
            return chunk({"tool_calls": [{"index": index, "function": function, **fields}]})

        answer = streamed(
            chunk({"role": "assistant", "content": None}),
            piece(0, "", id="call_a", type="function", function={"name": "get_weather"}),
            piece(0, '{"city":'),
            piece(1, "", id="call_b", type="function", function={"name": "get_time"}),
            piece(1, '{"zone": '),
            piece(0, ' "Rome"}'),
            piece(1, '"CET"}'),
            chunk(finish_reason="tool_calls"),
            COUNTED,
        )
        assert isinstance(answer, Completion)
        assert answer.tool_calls == (
            ToolCall.of("call_a", "get_weather", '{"city": "Rome"}'),
            ToolCall.of("call_b", "get_time", '{"zone": "CET"}'),
        )
        assert (answer.text, answer.finish_reason) == ("", "tool_calls")

    @pytest.mark.parametrize("place", [{}, {"index": 0}], ids=["no index", "always 0"])
    def test_calls_that_are_not_numbered_are_told_by_their_ids(self, place: Any) -> None:
        calls = [{**wanted(id=id), **place} for id in ("call_a", "call_b")]
        answer = streamed(chunk({"tool_calls": calls}), END)
        assert isinstance(answer, Completion)
        assert [call.id for call in answer.tool_calls] == ["call_a", "call_b"]
        assert {call.function.arguments for call in answer.tool_calls} == {'{"city": "Rome"}'}

    @pytest.mark.parametrize(
        ("chunks", "kind", "words"),
        [
            ([], FailureKind.RETRYABLE, "half an answer"),
            ([chunk({"content": "Sal"})], FailureKind.RETRYABLE, "half an answer"),
            ([chunk({"content": "Sal"}), "<html>"], FailureKind.RETRYABLE, "no chunk"),
            ([chunk({"content": "Sal"}), "[1]"], FailureKind.RETRYABLE, "no chunk"),
            ([chunk({"content": "Sal"}), "[" * 10_000], FailureKind.RETRYABLE, "no chunk"),
            (
                [chunk({"refusal": "I "}), chunk({"refusal": "can't"}), END],
                FailureKind.REFUSED,
                "I can't",
            ),
            ([chunk(finish_reason="content_filter")], FailureKind.REFUSED, "filtered"),
            ([chunk(finish_reason="stop")], FailureKind.RETRYABLE, "no text"),
            (
                [chunk({"function_call": {"name": "f", "arguments": ""}}), END],
                FailureKind.PERMANENT,
                "send tools",
            ),
            ([chunk({"tool_calls": [None]}), END], FailureKind.RETRYABLE, "tool_calls[0]"),
        ],
    )
    @pytest.mark.parametrize("done", [True, False])
    def test_streams_without_an_answer(
        self, chunks: list[Any], kind: FailureKind, words: str, done: bool
    ) -> None:
        outcome = streamed(*chunks, done=done)
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.status) == (kind, 200)
        assert words in outcome.message

    @pytest.mark.parametrize(
        ("sent", "kind", "status"),
        [
            (error(None, "The server had an error", "server_error"), FailureKind.RETRYABLE, 502),
            (error("rate_limit_exceeded", type="tokens"), FailureKind.LIMITED, 429),
            (error("insufficient_quota"), FailureKind.DENIED, 429),
            (error("context_length_exceeded"), FailureKind.TOO_LONG, 400),
            (error("content_filter", type=""), FailureKind.REFUSED, 400),
            ({"error": {"message": "no", "code": 503}}, FailureKind.RETRYABLE, 503),
            ({"error": {"message": "no", "code": "429"}}, FailureKind.LIMITED, 429),
            ({"error": "upstream"}, FailureKind.RETRYABLE, 502),
            ({"object": "error", "message": "no", "code": 400}, FailureKind.PERMANENT, 400),
            ({**chunk(finish_reason="error"), **error("x")}, FailureKind.PERMANENT, 400),
        ],
    )
    def test_an_error_in_the_middle_counts_as_its_code(
        self, sent: Any, kind: FailureKind, status: int
    ) -> None:
        outcome = streamed(chunk({"content": "Sal"}), sent)
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.status) == (kind, status)
        assert "in the middle of the answer" in outcome.message

    @pytest.mark.parametrize(
        "data", ['{"message": "The tank is empty."}', "The tank is empty.", '"The tank is empty."']
    )
    def test_an_event_named_error_is_one_whatever_it_holds(self, data: str) -> None:
        body = events(chunk({"content": "Sal"}), done=False)
        body += f"event: error\ndata: {data}\n\n".encode() + events(END)
        outcome = read_response(200, EVENTS, body, "small", NOW)
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.RETRYABLE
        assert "The tank is empty." in outcome.message

    def test_other_choices_and_null_errors_are_passed_over(self) -> None:
        answer = streamed(
            chunk({"content": "Sal"}, error=None),
            chunk({"content": "Ave"}, choice={"index": 1}),
            chunk({"content": "ve"}, choice={"finish_reason": ""}),
            END,
        )
        assert isinstance(answer, Completion)
        assert answer.text == "Salve"

    @given(st.text(min_size=1), st.lists(st.integers(0, 40)), st.booleans())
    def test_how_it_is_cut_up_does_not_change_an_answer(
        self, text: str, cuts: list[int], done: bool
    ) -> None:
        places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
        pieces = [chunk({"content": text[a:b]}) for a, b in pairwise(places)]
        whole = json.dumps({**completion(content=text), "usage": COUNTED["usage"]}).encode()
        assert streamed(*pieces, END, COUNTED, done=done) == read_response(
            200, {}, whole, "small", NOW
        )


@pytest.mark.parametrize("begun", [["x"], 5, {"a": 1}, True])
def test_a_thought_whose_text_is_none_breaks_nothing(begun: Any) -> None:
    def detail(text: Any) -> dict[str, Any]:
        return {"reasoning_details": [{"type": "reasoning.text", "text": text}]}

    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    answer = streamed(chunk(detail(begun)), chunk(detail("so")), chunk({"tool_calls": [call]}), END)
    assert isinstance(answer, Completion)
    assert [call.function.name for call in answer.tool_calls] == ["f"]
