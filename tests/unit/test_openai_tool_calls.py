"""Calls of tools in answers of the OpenAI provider, and what is counted beside them."""

import json
from typing import Any

import pytest
from fakes.openai_http import HELLO, answering, completion, failure, wanted

from model_workers.providers.base import Allowance
from modelyard.errors import FailureKind
from modelyard.messages import ToolCall, Usage


class TestToolCalls:
    ROME = ToolCall.of("call_1", "get_weather", '{"city": "Rome"}')

    @pytest.mark.parametrize("content", [None, "", "Let me look."])
    async def test_they_are_an_answer_with_or_without_text(self, content: str | None) -> None:
        body = completion(content=content, tool_calls=[wanted()], finish_reason="tool_calls")
        answer = await answering(200, body).complete(HELLO)
        assert (answer.text, answer.tool_calls) == (content or "", (self.ROME,))
        assert answer.finish_reason == "tool_calls"

    async def test_a_call_that_was_asked_for_by_name_is_one_too(self) -> None:
        body = completion(content=None, tool_calls=[wanted()], finish_reason="stop")
        assert (await answering(200, body).complete(HELLO)).finish_reason == "tool_calls"

    async def test_whole_calls_of_an_answer_that_was_cut_are_kept_and_it_says_so(self) -> None:
        body = completion(content=None, tool_calls=[wanted()], finish_reason="length")
        answer = await answering(200, body).complete(HELLO)
        assert (answer.tool_calls, answer.finish_reason) == ((self.ROME,), "length")

    @pytest.mark.parametrize(
        ("sent", "read"),
        [
            (wanted(arguments=""), ToolCall.of("call_1", "get_weather", "{}")),
            (wanted(arguments=None), ToolCall.of("call_1", "get_weather", "{}")),
            (wanted(arguments={"city": "Rome"}), ROME),
            (wanted(type=None), ROME),
            (wanted(id=""), ToolCall.of("call_0", "get_weather", '{"city": "Rome"}')),
        ],
    )
    async def test_what_lean_servers_leave_out(self, sent: Any, read: ToolCall) -> None:
        body = completion(content=None, tool_calls=[sent])
        assert (await answering(200, body).complete(HELLO)).tool_calls == (read,)

    @pytest.mark.parametrize(
        "calls",
        [
            [{}],
            [None],
            "calls",
            {"id": "call_1"},
            [wanted(), {"id": "call_2", "type": "function"}],
            [wanted(name="")],
            [wanted(name=None)],
            [wanted(arguments='{"city": "Ro')],
            [wanted(arguments="[]")],
            [wanted(arguments=7)],
        ],
        ids=str,
    )
    async def test_what_no_program_can_read_may_be_right_next_time(self, calls: Any) -> None:
        caught = await failure(answering(200, completion(content="hm", tool_calls=calls)))
        assert caught.kind is FailureKind.RETRYABLE
        assert "tool_calls" in str(caught)

    async def test_a_call_that_the_output_limit_cut_would_be_cut_again(self) -> None:
        calls = [wanted(arguments='{"city": "Ro')]
        body = completion(content=None, tool_calls=calls, finish_reason="length")
        caught = await failure(answering(200, body))
        assert caught.kind is FailureKind.PERMANENT
        assert "max_tokens" in str(caught)

    async def test_calls_of_custom_tools_are_not_carried(self) -> None:
        call = {"id": "call_1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
        caught = await failure(answering(200, completion(content=None, tool_calls=[call])))
        assert caught.kind is FailureKind.PERMANENT
        assert "custom" in str(caught)

    async def test_lone_surrogates_do_not_travel(self) -> None:
        body = completion(content=None, tool_calls=[wanted(arguments='{"a": "@@"}')])
        raw = json.dumps(body).replace("@@", r"\ud83d").encode()
        (call,) = (await answering(200, raw).complete(HELLO)).tool_calls
        assert json.loads(call.function.arguments) == {"a": "\N{REPLACEMENT CHARACTER}"}


USAGE_OF = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 256, "accepted_prediction_tokens": 0},
}


class TestUsage:
    @pytest.mark.parametrize(
        ("usage", "expected"),
        [
            (
                USAGE_OF,
                Usage(
                    input_tokens=2006,
                    output_tokens=300,
                    cached_input_tokens=1920,
                    reasoning_tokens=256,
                ),
            ),
            (
                {**USAGE_OF, "prompt_tokens_details": None, "completion_tokens_details": []},
                Usage(input_tokens=2006, output_tokens=300),
            ),
            (
                {
                    **USAGE_OF,
                    "prompt_tokens_details": {"cached_tokens": "many"},
                    "completion_tokens_details": {"reasoning_tokens": -5.5},
                },
                Usage(input_tokens=2006, output_tokens=300),
            ),
            (
                {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}},
                Usage(input_tokens=5, cached_input_tokens=5),
            ),
            (
                # xAI: reasoning is beside the completion, not in it.
                {
                    "prompt_tokens": 31,
                    "completion_tokens": 9,
                    "total_tokens": 370,
                    "completion_tokens_details": {"reasoning_tokens": 330},
                },
                Usage(input_tokens=31, output_tokens=339, reasoning_tokens=330),
            ),
        ],
    )
    async def test_its_parts_are_within_the_whole(self, usage: Any, expected: Usage) -> None:
        body = {**completion(content="hi"), "usage": usage}
        assert (await answering(200, body).complete(HELLO)).usage == expected


class TestAllowance:
    async def test_an_answer_carries_what_is_left(self) -> None:
        headers = {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
        }
        answer = await answering(200, completion(content="hi"), headers).complete(HELLO)
        assert answer.allowance == Allowance(60, 59, 1.0)

    async def test_without_the_headers_there_is_none(self) -> None:
        assert (await answering(200, completion(content="hi")).complete(HELLO)).allowance is None
