"""What the OpenAI provider sends, and what it makes of every kind of answer."""

import gzip
import json
from typing import Any

import httpx
import pytest
from fakes.openai_http import (
    HELLO,
    KEY,
    NOW,
    answering,
    completion,
    error,
    failure,
    provider,
    streamed,
)
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.clean import clean
from model_workers.providers.openai import encode_call, read_response
from modelyard.errors import FailureKind
from modelyard.messages import Request, Usage


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
