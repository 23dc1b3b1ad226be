"""What the OpenAI provider sends, and what it makes of every kind of answer."""

import asyncio
import gzip
import json
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.base import Allowance, Completion, Failure
from model_workers.providers.clean import clean
from model_workers.providers.http import environment_proxy, make_client, retry_after_s
from model_workers.providers.openai import OpenAI, encode_call, read_response
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError, SettingsError
from modelyard.messages import Request, ToolCall, Usage

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


class TestCall:
    async def test_sends_model_messages_and_params(self) -> None:
        seen: list[httpx.Request] = []

        def handler(call: httpx.Request) -> httpx.Response:
            seen.append(call)
            return httpx.Response(200, json=completion(content="Salve"))

        request = Request.model_validate(
            {
                "messages": [
                    {"role": "system", "content": "Answer in Latin."},
                    {"role": "user", "content": "Grüße die Welt 🌍"},
                ],
                "params": {"temperature": 0.2, "max_tokens": 50},
            }
        )
        await provider(handler).complete(request, request_id="r-1")
        (call,) = seen
        assert (call.method, str(call.url)) == (
            "POST",
            "https://models.example/v1/chat/completions",
        )
        assert call.headers["authorization"] == f"Bearer {KEY}"
        assert call.headers["x-request-id"] == "r-1"
        assert json.loads(call.content) == {
            "model": "vendor/small-1",
            "messages": [
                {"role": "system", "content": "Answer in Latin."},
                {"role": "user", "content": "Grüße die Welt 🌍"},
            ],
            "temperature": 0.2,
            "max_tokens": 50,
        }

    async def test_params_cannot_change_what_is_called_or_how(self) -> None:
        def handler(call: httpx.Request) -> httpx.Response:
            body = json.loads(call.content)
            assert body.keys() == {"model", "messages", "top_p"}
            assert body["model"] == "vendor/small-1"
            assert body["messages"][0]["content"] == HELLO.text
            return httpx.Response(200, json=completion(content="Salve"))

        params = {
            "model": "huge",
            "messages": [],
            "stream": True,
            "stream_options": {"include_usage": True},
            "top_p": 1,
        }
        await provider(handler).complete(HELLO.model_copy(update={"params": params}))

    async def test_a_large_body_is_sent_in_pieces_but_with_its_length(self) -> None:
        text = "long " * 200_000

        async def handler(call: httpx.Request) -> httpx.Response:
            content = await call.aread()
            assert json.loads(content)["messages"][0]["content"] == text
            assert int(call.headers["content-length"]) == len(content)
            assert "transfer-encoding" not in call.headers
            return httpx.Response(200, json=completion(content="ok"))

        await provider(handler).complete(Request.model_validate({"text": text}))

    @pytest.mark.parametrize(
        ("base_url", "api_key", "url", "authorization"),
        [
            ("http://h:1/v1/", None, "http://h:1/v1/chat/completions", None),
            ("http://h:1/v1", "", "http://h:1/v1/chat/completions", None),
            ("http://h:1", "k", "http://h:1/chat/completions", "Bearer k"),
            ("http://h/v1?api-version=2", "k", "http://h/v1/chat/completions?api-version=2", None),
            ("http://me:pw@h/v1", None, "http://h/v1/chat/completions", "Basic bWU6cHc="),
            ("http://me:pw@h/v1", "k", "http://h/v1/chat/completions", "Bearer k"),
        ],
    )
    async def test_address_and_authorization(
        self, base_url: str, api_key: str | None, url: str, authorization: str | None
    ) -> None:
        def handler(call: httpx.Request) -> httpx.Response:
            assert str(call.url) == url
            assert "?" in url or call.headers.get("authorization") == authorization
            return httpx.Response(200, json=completion(content="ok"))

        await provider(handler, base_url=base_url, api_key=api_key).complete(HELLO)

    async def test_one_call_leaves_nothing_for_the_next(self) -> None:
        seen: list[httpx.Request] = []

        def handler(call: httpx.Request) -> httpx.Response:
            seen.append(call)
            return httpx.Response(200, json=completion(content="Salve"))

        calls = provider(handler)
        await calls.complete(Request.of("a long question"), request_id="r-1")
        await calls.complete(Request.of("short"))
        await calls.complete(Request.of("again"), request_id="r-3")
        assert [call.headers.get("x-request-id") for call in seen] == ["r-1", None, "r-3"]
        for call in seen:
            assert call.headers.get_list("content-length") == [str(len(call.content))]
            assert call.headers.get_list("host") == ["models.example"]

    @pytest.mark.parametrize(
        ("silence_s", "whole_s", "timer"),
        [(30.0, 30.0, None), (60.0, 30.0, None), (5.0, 30.0, 5.0), (None, 30.0, None)],
    )
    async def test_silences_are_timed_if_they_can_end_before_the_call(
        self, silence_s: float | None, whole_s: float, timer: float | None
    ) -> None:
        def handler(call: httpx.Request) -> httpx.Response:
            assert call.extensions["timeout"] == {
                "connect": 5.0,
                "read": timer,
                "write": 5.0,
                "pool": 5.0,
            }
            return httpx.Response(200, json=completion(content="Salve"))

        await provider(handler, silence_s=silence_s, timeout_s=whole_s).complete(HELLO)

    @pytest.mark.parametrize("id", ["a\r\nx: y", "ü", "", "a b", "x" * 513])
    async def test_an_id_that_is_no_header_value_is_not_sent(self, id: str) -> None:
        def handler(call: httpx.Request) -> httpx.Response:
            assert "x-request-id" not in call.headers
            return httpx.Response(200, json=completion(content="ok"))

        await provider(handler).complete(HELLO, request_id=id)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object()])
    async def test_params_that_json_cannot_hold_end_the_request(self, value: object) -> None:
        request = HELLO.model_copy(update={"params": {"temperature": value}})
        caught = await failure(answering(200, completion(content="ok")), request)
        assert caught.kind is FailureKind.INVALID
        assert "params" in str(caught)


class TestTurns:
    """What goes out is what https://platform.openai.com/docs/api-reference/chat/create shows."""

    @pytest.mark.parametrize(
        "turn",
        [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "hi", "name": "ann"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image_url",
                        "image_url": {"url": "https://pictures.example/yard.jpg", "detail": "low"},
                    },
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "call_abc123",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'},
                    }
                ],
            },
            {"role": "tool", "content": "22 °C", "tool_call_id": "call_abc123"},
            {"role": "tool", "content": "", "tool_call_id": "call_abc123"},
            {"role": "assistant", "content": ""},
            {"role": "assistant", "content": "22 degrees."},
        ],
    )
    def test_each_turn_goes_out_as_it_came(self, turn: dict[str, Any]) -> None:
        before = {"role": "user", "content": "How warm is it in Rome?"}
        request = Request.model_validate({"messages": [before, turn]})
        assert json.loads(encode_call("m", request))["messages"] == [before, turn]

    def test_tools_are_params(self) -> None:
        tool = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
        request = HELLO.model_copy(update={"params": {"tools": [tool], "tool_choice": "required"}})
        body = json.loads(encode_call("m", request))
        assert (body["tools"], body["tool_choice"]) == ([tool], "required")

    def test_no_parts_are_an_empty_text(self) -> None:
        turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": []}]
        sent = json.loads(encode_call("m", Request.model_validate({"messages": turns})))
        assert sent["messages"][1] == {"role": "assistant", "content": ""}


def wanted(name: Any = "get_weather", arguments: Any = '{"city": "Rome"}', **call: Any) -> Any:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **call}


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
COUNTED = chunk(choices=[], usage={"prompt_tokens": 11, "completion_tokens": 7})


def streamed(*chunks: Any, done: bool = True) -> Completion | Failure:
    return read_response(200, EVENTS, events(*chunks, done=done), "small", NOW)


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


class TestAnswer:
    async def test_text_usage_model_and_finish_reason(self) -> None:
        answer = await answering(200, completion(content="Salve", finish_reason="length")).complete(
            HELLO
        )
        assert answer.text == "Salve"
        assert answer.usage == Usage(input_tokens=11, output_tokens=7)
        assert answer.provider_model == "vendor/small-1-2026"
        assert answer.finish_reason == "length"
        assert not answer.extractive

    async def test_what_a_lean_server_leaves_out(self) -> None:
        answer = await answering(200, {"choices": [{"message": {"content": "hi"}}]}).complete(HELLO)
        assert answer.provider_model == "vendor/small-1"
        assert answer.usage == Usage()
        assert answer.finish_reason == "stop"

    @pytest.mark.parametrize("usage", [[], "7", {"prompt_tokens": -1, "completion_tokens": "x"}])
    async def test_usage_that_is_no_count_counts_as_zero(self, usage: object) -> None:
        body = {**completion(content="hi"), "usage": usage}
        assert (await answering(200, body).complete(HELLO)).usage == Usage()

    async def test_text_in_parts_is_joined(self) -> None:
        parts = [{"type": "text", "text": "Sal"}, {"type": "image"}, {"type": "text", "text": "ve"}]
        assert (await answering(200, completion(content=parts)).complete(HELLO)).text == "Salve"

    async def test_an_empty_text_is_an_answer(self) -> None:
        assert (await answering(200, completion(content="")).complete(HELLO)).text == ""

    async def test_half_a_surrogate_pair_is_replaced(self) -> None:
        body = json.dumps(completion(content="@@")).replace("@@", r"a\ud83d").encode()
        answer = await answering(200, body).complete(HELLO)
        assert answer.text == "a\N{REPLACEMENT CHARACTER}"

    @pytest.mark.parametrize(
        ("message", "kind", "words"),
        [
            ({"content": None, "refusal": "I can't."}, FailureKind.REFUSED, "I can't."),
            (
                {"content": None, "finish_reason": "content_filter"},
                FailureKind.REFUSED,
                "filtered",
            ),
            ({"content": "", "finish_reason": "length"}, FailureKind.PERMANENT, "max_tokens"),
            (
                {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
                FailureKind.PERMANENT,
                "send tools",
            ),
            (
                {"content": "Wait.", "function_call": {"name": "f", "arguments": "{}"}},
                FailureKind.PERMANENT,
                "send tools",
            ),
            (
                {"content": "", "tool_calls": [], "finish_reason": "tool_calls"},
                FailureKind.RETRYABLE,
                "has none",
            ),
            ({"content": None}, FailureKind.RETRYABLE, "no text"),
            ({}, FailureKind.RETRYABLE, "no text"),
        ],
    )
    async def test_messages_without_an_answer(
        self, message: dict[str, Any], kind: FailureKind, words: str
    ) -> None:
        caught = await failure(answering(200, completion(**message)))
        assert caught.kind is kind
        assert words in str(caught)

    async def test_a_packed_answer_is_unpacked_though_nobody_asked_for_it(self) -> None:
        packed = gzip.compress(json.dumps(completion(content="Salve")).encode())
        answer = await answering(200, packed, {"content-encoding": "gzip"}).complete(HELLO)
        assert answer.text == "Salve"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>busy</html>",
            b'{"choices": [',
            b"\xff\xfe",
            b"[" * 100_000,
            [],
            "text",
            None,
            {},
            {"choices": []},
            {"choices": {}},
            {"choices": [None]},
            {"choices": [{"message": "hi"}]},
            {"choices": [{"text": "hi"}]},
        ],
        ids=lambda body: repr(body)[:30],
    )
    async def test_another_shape_may_be_right_next_time(self, body: object) -> None:
        caught = await failure(answering(200, body))
        assert caught.kind is FailureKind.RETRYABLE
        assert "the answer" in str(caught)

    @pytest.mark.parametrize(
        ("code", "kind", "status"),
        [
            (429, FailureKind.LIMITED, 429),
            (401, FailureKind.DENIED, 401),
            (None, FailureKind.RETRYABLE, 502),
            ("odd", FailureKind.RETRYABLE, 502),
            (7, FailureKind.RETRYABLE, 502),
        ],
    )
    async def test_an_error_inside_a_200_counts_as_its_code(
        self, code: object, kind: FailureKind, status: int
    ) -> None:
        caught = await failure(answering(200, {"error": {"message": "upstream", "code": code}}))
        assert (caught.kind, caught.status) == (kind, status)


K = FailureKind


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (400, error("context_length_exceeded"), K.TOO_LONG),
            (400, error(message="This model's maximum context length is 8192"), K.TOO_LONG),
            (400, {"message": "prompt is too long: 9 > 8"}, K.TOO_LONG),
            (400, [error(None, "The input token count (9) exceeds the maximum")], K.TOO_LONG),
            (422, error("string_above_max_length"), K.TOO_LONG),
            (413, b"<html>Request Entity Too Large</html>", K.TOO_LONG),
            (400, error("content_filter"), K.REFUSED),
            (400, error("content_policy_violation"), K.REFUSED),
            (403, error("content_filter"), K.REFUSED),
            (400, error("invalid_type"), K.INVALID),
            (400, error("missing_required_parameter"), K.INVALID),
            (400, error("unsupported_parameter"), K.PERMANENT),
            (400, error("invalid_value"), K.PERMANENT),
            (400, error(None, "Unrecognized request argument supplied: top_k"), K.PERMANENT),
            (400, b"", K.PERMANENT),
            (422, {"detail": [{"loc": ["body", "seed"], "msg": "bad"}]}, K.PERMANENT),
            (401, error("invalid_api_key"), K.DENIED),
            (402, error(), K.DENIED),
            (403, error(), K.DENIED),
            (404, error("model_not_found"), K.DENIED),
            (405, b"", K.PERMANENT),
            (418, b"", K.PERMANENT),
            (408, b"", K.RETRYABLE),
            (409, b"", K.RETRYABLE),
            (425, b"", K.RETRYABLE),
            (429, error("rate_limit_exceeded", type="requests"), K.LIMITED),
            (429, b"", K.LIMITED),
            (429, error("insufficient_quota", type="insufficient_quota"), K.DENIED),
            (429, error(None, type="insufficient_quota"), K.DENIED),
            (429, error("rate_limit_exceeded", "Request too large for m on TPM"), K.TOO_LONG),
            (500, error("content_filter"), K.RETRYABLE),
            (502, b"<html>Bad Gateway</html>", K.RETRYABLE),
            (503, {"error": "loading model"}, K.RETRYABLE),
            (529, error(None, "Overloaded", "overloaded_error"), K.RETRYABLE),
            (302, b"", K.DENIED),
        ],
    )
    async def test_status_and_code_decide_the_kind(
        self, status: int, body: object, kind: FailureKind
    ) -> None:
        caught = await failure(answering(status, body))
        assert caught.kind is kind
        assert caught.status == status
        assert str(caught).startswith(f"models.example/v1: HTTP {status}")

    @pytest.mark.parametrize(
        "body",
        [
            error("c", "The tank is empty."),
            {"error": "The tank is empty."},
            {"object": "error", "message": "The tank is empty."},
            {"detail": "The tank is empty."},
            {"detail": [{"msg": "The tank is empty."}]},
            [error("c", "The tank is empty.")],
            b"The tank\n is empty.",
        ],
    )
    async def test_the_providers_own_words_are_passed_on(self, body: object) -> None:
        assert "The tank is empty." in str(await failure(answering(503, body)))

    async def test_a_redirect_is_not_followed_but_named_without_its_query(self) -> None:
        headers = {"location": "https://new.example/v1?token=abc"}
        caught = await failure(answering(307, b"", headers))
        assert "https://new.example/v1;" in str(caught)
        assert "abc" not in str(caught)

    async def test_a_long_message_is_cut(self) -> None:
        assert len(str(await failure(answering(500, error("c", "no " * 5000))))) < 400

    @pytest.mark.parametrize(
        ("raised", "kind", "words"),
        [
            (httpx.ConnectError("refused"), K.RETRYABLE, "no connection: refused"),
            (httpx.ConnectTimeout("x"), K.RETRYABLE, "timeout: no connection"),
            (httpx.ReadTimeout("x"), K.RETRYABLE, "fell silent"),
            (httpx.PoolTimeout("x"), K.RETRYABLE, "timeout"),
            (httpx.ReadError("x"), K.RETRYABLE, "middle of the answer"),
            (httpx.RemoteProtocolError("x"), K.RETRYABLE, "without an answer"),
            (httpx.DecodingError("bad gzip"), K.RETRYABLE, "bad gzip"),
            (httpx.UnsupportedProtocol("ftp"), K.DENIED, "base_url"),
            (aiohttp.ServerDisconnectedError(), K.RETRYABLE, "without an answer"),
            (ConnectionResetError("peer"), K.RETRYABLE, "peer"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
    )
    async def test_transport_errors(self, raised: Exception, kind: FailureKind, words: str) -> None:
        def handler(_: httpx.Request) -> httpx.Response:
            raise raised

        caught = await failure(provider(handler))
        assert (caught.kind, caught.status) == (kind, None)
        assert words in str(caught)

    async def test_cancelling_passes_through(self) -> None:
        async def handler(_: httpx.Request) -> httpx.Response:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await provider(handler).complete(HELLO)

    async def test_a_bug_is_not_taken_for_a_failed_call(self) -> None:
        def handler(_: httpx.Request) -> httpx.Response:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await provider(handler).complete(HELLO)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "7"}, 7.0),
            ({"retry-after": "0.25"}, 0.25),
            ({"retry-after": "-3"}, 0.0),
            ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
            ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0.0),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "inf"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "Mon, 99 Foo 2026 00:00:00 GMT"}, None),
            ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
            ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
            (
                {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30.5s"},
                90.5,
            ),
            ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
            ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, None),
            ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6 minutes"}, None),
        ],
    )
    def test_every_form(self, headers: dict[str, str], seconds: float | None) -> None:
        assert retry_after_s(headers, NOW) == (
            None if seconds is None else pytest.approx(seconds, abs=1e-6)
        )

    @given(st.text(), st.text(), st.text())
    def test_nonsense_is_no_wait_and_no_error(self, ms: str, after: str, reset: str) -> None:
        headers = {
            "retry-after-ms": ms,
            "retry-after": after,
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": reset,
        }
        wait = retry_after_s(headers, NOW)
        assert wait is None or wait >= 0

    @pytest.mark.parametrize(("status", "expected"), [(429, 3.0), (503, 3.0), (401, None)], ids=str)
    async def test_goes_along_where_calling_again_makes_sense(
        self, status: int, expected: float | None
    ) -> None:
        caught = await failure(answering(status, b"", {"retry-after": "3"}))
        assert caught.retry_after_s == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    *("choices", "message", "content", "refusal", "error", "code", "type"),
    *("usage", "prompt_tokens", "model", "finish_reason", "detail", "text"),
    *("delta", "tool_calls", "function", "name", "arguments", "id", "index", "function_call"),
    *("logprobs", "prompt_tokens_details", "cached_tokens", "innererror", "object"),
)
NEAR_JSON = st.recursive(
    JSON,
    lambda inner: (
        st.lists(inner, max_size=2) | st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, inner))
    ),
    max_leaves=12,
)


class TestLaws:
    @given(st.integers(200, 599), NEAR_JSON)
    def test_any_json_is_an_answer_or_a_failure(self, status: int, body: Any) -> None:
        outcome = read_response(status, {}, json.dumps(body).encode(), "small", NOW)
        assert outcome is not None

    @given(st.lists(NEAR_JSON, max_size=4))
    def test_any_events_are_an_answer_or_a_failure(self, chunks: list[Any]) -> None:
        assert streamed(*map(json.dumps, chunks)) is not None

    @given(st.integers(200, 599), st.binary())
    def test_any_bytes_are_an_answer_or_a_failure(self, status: int, body: bytes) -> None:
        assert read_response(status, {}, body, "small", NOW) is not None

    @given(st.data())
    def test_messages_hold_neither_the_key_nor_the_prompt(self, data: st.DataObject) -> None:
        letters = st.characters(categories=["L", "N"])
        prompt = data.draw(st.text(letters, min_size=23, max_size=120), "prompt")
        begin = data.draw(st.integers(0, len(prompt) - 23), "begin")
        echo = prompt[begin : data.draw(st.integers(begin + 23, len(prompt)), "end")]
        before, after = data.draw(st.text(max_size=40)), data.draw(st.text(max_size=40))
        said = clean(f"{before}{echo}{KEY}{after}", [KEY], ["", "short", prompt])
        assert KEY not in said
        assert not any(prompt[at : at + 23] in said for at in range(len(prompt) - 22))

    async def test_an_echo_of_key_and_prompt_does_not_get_into_the_error(self) -> None:
        text = f"bad key {KEY} for input {HELLO.text!r}"
        caught = await failure(answering(401, error(f"code-{KEY}", text)))
        assert KEY not in str(caught)
        assert HELLO.text not in str(caught)
        assert "bad key *** for input" in str(caught)


class TestClient:
    async def test_connecting_is_bounded_apart_from_answering(self) -> None:
        endpoint = Endpoint(base_url="https://models.example/v1")
        async with make_client(endpoint, timeout_s=120.0, concurrency=5) as client:
            assert client.timeout == httpx.Timeout(120.0, connect=10.0)

    async def test_a_short_timeout_is_the_connect_timeout_too(self) -> None:
        endpoint = Endpoint(base_url="http://127.0.0.1:1/v1")
        async with make_client(endpoint, timeout_s=2.0, concurrency=5) as client:
            assert client.timeout.connect == 2.0

    @pytest.fixture(autouse=True)
    def no_proxies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    @pytest.mark.parametrize(
        ("url", "proxy"),
        [
            ("https://models.example/v1", "http://proxy.example:3128"),
            ("http://models.example/v1", None),
            ("https://inside.example/v1", None),
            ("https://localhost/v1", None),
            ("https://127.0.0.1/v1", None),
            ("https://[::1]/v1", None),
        ],
    )
    def test_the_environments_proxy_is_for_others_than_loopback(
        self, monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
        monkeypatch.setenv("NO_PROXY", "inside.example")
        found = environment_proxy(httpx.URL(url))
        assert (str(found.url) if found else None) == proxy

    def test_a_proxy_that_aiohttp_cannot_use_is_named_without_its_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@proxy.example:1080")
        with pytest.raises(SettingsError, match="socks5") as caught:
            environment_proxy(httpx.URL("https://models.example/v1"))
        assert "secret" not in str(caught.value)
