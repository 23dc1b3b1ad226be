"""What the Anthropic provider sends, and what it makes of every kind of answer."""

import json
from typing import Any

import httpx
import pytest
from fakes.anthropic_api import error, events, message, problem, stream_of, text
from fakes.requests import PNG, WEATHER, any_requests, broken, good_requests
from hypothesis import given

from model_workers.providers.anthropic import AnthropicDialect, read_response
from model_workers.providers.base import Completion, Failure, Unsupported
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind
from modelyard.messages import Request, ToolCall, Usage

NOW = 1_800_000_000.0
ENDPOINT = Endpoint(base_url="https://api.anthropic.com", api_key="sk-ant-secret-0123456789")


def dialect(endpoint: Endpoint = ENDPOINT, **changes: Any) -> AnthropicDialect:
    model = Model(
        name="claude",
        provider="anthropic",
        model="claude-sonnet-4-5",
        endpoints=(endpoint,),
        max_output_tokens=700,
        **changes,
    )
    return AnthropicDialect(model, endpoint)


def sent(*messages: dict[str, Any], **params: Any) -> dict[str, Any]:
    """What goes over the wire; the fake has to have nothing against it."""
    told = list(messages) or [{"role": "user", "content": "Salve"}]
    request = Request.model_validate({"messages": told, "params": params})
    body: dict[str, Any] = json.loads(dialect().encode(request))
    assert problem(body) is None
    return body


def refused(*messages: dict[str, Any], **params: Any) -> str:
    """Why nothing goes over the wire."""
    told = list(messages) or [{"role": "user", "content": "Salve"}]
    request = Request.model_validate({"messages": told, "params": params})
    with pytest.raises(Unsupported) as caught:
        dialect().encode(request)
    return str(caught.value)


def calling(*ids: str) -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city": "Bern"}'}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "tool_calls": calls}


def result(id: str, said: str = "Sunny") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": said}


class TestAddress:
    @pytest.mark.parametrize(
        "base",
        ["https://claude.example", "https://claude.example/", "https://claude.example/v1"],
    )
    def test_is_the_same_with_and_without_the_version(self, base: str) -> None:
        address = dialect().address(httpx.URL(base))
        assert str(address) == "https://claude.example/v1/messages"

    def test_the_key_and_the_version_are_headers(self) -> None:
        base = httpx.URL("https://api.anthropic.com")
        assert dialect().headers(base) == {
            "x-api-key": "sk-ant-secret-0123456789",
            "anthropic-version": "2023-06-01",
        }
        other = Endpoint(base_url="https://claude.example", api_version="2031-01-01")
        assert dialect(other).headers(base) == {"anthropic-version": "2031-01-01"}


class TestTurns:
    def test_a_question_has_the_models_own_output_limit(self) -> None:
        assert sent({"role": "user", "content": "Salve"}) == {
            "model": "claude-sonnet-4-5",
            "max_tokens": 700,
            "messages": [{"role": "user", "content": [text("Salve")]}],
        }

    def test_system_turns_go_to_the_top_and_turns_of_a_side_together(self) -> None:
        body = sent(
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One"},
            {"role": "user", "content": "Two"},
            {"role": "developer", "content": "In Latin."},
            {"role": "assistant", "content": "Yes"},
            {"role": "assistant", "content": " "},
            {"role": "user", "content": "Three"},
        )
        assert body["system"] == [text("Be short."), text("In Latin.")]
        assert body["messages"] == [
            {"role": "user", "content": [text("One"), text("Two")]},
            {"role": "assistant", "content": [text("Yes")]},
            {"role": "user", "content": [text("Three")]},
        ]

    def test_results_of_tools_come_first_in_the_users_turn(self) -> None:
        body = sent(
            {"role": "user", "content": "Weather?"},
            calling("a", "b"),
            {"role": "user", "content": "Quick!"},
            result("b", ""),
            result("a"),
        )
        use = {"type": "tool_use", "name": "weather", "input": {"city": "Bern"}}
        assert body["messages"][1:] == [
            {"role": "assistant", "content": [{**use, "id": "a"}, {**use, "id": "b"}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "b"},
                    {"type": "tool_result", "tool_use_id": "a", "content": [text("Sunny")]},
                    text("Quick!"),
                ],
            },
        ]

    def test_an_id_of_another_provider_is_made_fit_on_both_sides(self) -> None:
        body = sent({"role": "user", "content": "Weather?"}, calling("f.x:0/1"), result("f.x:0/1"))
        asked, answered = (turn["content"][0] for turn in body["messages"][1:])
        assert asked["id"] == answered["tool_use_id"] != "f.x:0/1"

    def test_an_id_that_comes_again_is_another_one_each_time(self) -> None:
        rounds = [calling("call_0"), result("call_0")] * 3
        body = sent({"role": "user", "content": "Weather?"}, *rounds)
        asked = [turn["content"][0]["id"] for turn in body["messages"][1::2]]
        answered = [turn["content"][0]["tool_use_id"] for turn in body["messages"][2::2]]
        assert asked == answered
        assert len(set(asked)) == 3

    def test_images_are_sent_as_bytes_or_by_address(self) -> None:
        address = "https://images.example/a.png"
        parts = [
            {"type": "image_url", "image_url": {"url": PNG}},
            {"type": "text", "text": "and"},
            {"type": "image_url", "image_url": {"url": address, "detail": "high"}},
        ]
        data = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
        assert sent({"role": "user", "content": parts})["messages"][0]["content"] == [
            {"type": "image", "source": data},
            text("and"),
            {"type": "image", "source": {"type": "url", "url": address}},
        ]

    def test_a_beginning_of_the_answer_ends_without_a_blank(self) -> None:
        body = sent({"role": "user", "content": "Q"}, {"role": "assistant", "content": "It is \n"})
        assert body["messages"][-1]["content"] == [text("It is")]

    @pytest.mark.parametrize(
        ("messages", "word"),
        [
            ([{"role": "system", "content": "Be short."}], "needs a user turn"),
            ([{"role": "user", "content": "Q"}, calling("a")], "'a'"),
            ([{"role": "user", "content": "Q"}, result("a")], "'a'"),
            ([{"role": "user", "content": "Q"}, calling("a"), result("a"), result("a")], "'a'"),
            ([{"role": "user", "content": "Q"}, calling("a", "a"), result("a")], "another id"),
            ([{"role": "user", "content": "Q", "name": "ann"}], "no name"),
        ],
    )
    def test_a_talk_that_it_would_refuse_is_not_sent(
        self, messages: list[dict[str, Any]], word: str
    ) -> None:
        assert word in refused(*messages)

    @pytest.mark.parametrize(
        ("image", "word"),
        [
            ({"url": "http://images.example/a.png"}, "https://"),
            ({"url": "data:image/bmp;base64,Qk0="}, "'bmp'"),
            ({"url": "data:image/png;base64,%%%"}, "not base64"),
            ({"url": PNG, "detail": "low"}, "detail"),
        ],
    )
    def test_an_image_that_it_can_not_show_is_not_sent(
        self, image: dict[str, Any], word: str
    ) -> None:
        part = {"type": "image_url", "image_url": image}
        assert word in refused({"role": "user", "content": [part]})


class TestParams:
    @pytest.mark.parametrize(
        ("params", "body"),
        [
            ({"max_completion_tokens": 50, "max_tokens": 50}, {"max_tokens": 50}),
            ({"temperature": 1, "top_p": 0.5}, {"temperature": 1, "top_p": 0.5}),
            ({"stop": "END"}, {"stop_sequences": ["END"]}),
            ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
            ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
            ({"reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
            ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
            ({"service_tier": "default"}, {"service_tier": "standard_only"}),
            ({"top_k": 5, "thinking": {"type": "adaptive"}},) * 2,
            ({"cache_control": {"type": "ephemeral"}},) * 2,
            ({"n": 1, "logprobs": False, "stream": True, "seed": None, "store": False}, {}),
            ({"response_format": {"type": "text"}, "tool_choice": "none"}, {}),
        ],
    )
    def test_are_said_in_its_own_words(self, params: Any, body: dict[str, Any]) -> None:
        plain = sent()
        assert sent(**params) == {**plain, **body}

    def test_a_schema_is_the_format_beside_a_native_effort(self) -> None:
        schema = {"type": "object", "additionalProperties": False}
        asked = {"name": "city", "description": "A city", "strict": True, "schema": schema}
        body = sent(
            response_format={"type": "json_schema", "json_schema": asked},
            output_config={"effort": "max"},
        )
        assert body["output_config"] == {
            "effort": "max",
            "format": {"type": "json_schema", "schema": {**schema, "description": "A city"}},
        }

    def test_tools_and_the_choice_among_them(self) -> None:
        function = {
            "name": "weather",
            "description": "Of today",
            "parameters": {"type": "object", "properties": {}},
            "strict": True,
        }
        own = {"type": "web_search_20250305", "name": "web_search"}
        body = sent(
            tools=[{"type": "function", "function": function}, own],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            parallel_tool_calls=False,
        )
        assert body["tools"] == [
            {
                "name": "weather",
                "description": "Of today",
                "input_schema": {"type": "object", "properties": {}},
                "strict": True,
            },
            own,
        ]
        assert body["tool_choice"] == {
            "type": "tool",
            "name": "weather",
            "disable_parallel_tool_use": True,
        }

    @pytest.mark.parametrize(
        ("choice", "parallel", "said"),
        [
            ("auto", True, {"type": "auto"}),
            ("required", None, {"type": "any"}),
            ("none", False, {"type": "none"}),
            (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
            ({"type": "any"}, None, {"type": "any"}),
            (None, None, None),
        ],
    )
    def test_whether_a_tool_has_to_be_called(self, choice: Any, parallel: Any, said: Any) -> None:
        body = sent(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=parallel)
        assert body.get("tool_choice") == said

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"temperature": 1.5}, ["temperature", "0 to 1", "1.5"]),
            ({"temperature": "hot"}, ["temperature", "number"]),
            ({"seed": 7}, ["seed", "leave it out"]),
            ({"logprobs": True}, ["logprobs"]),
            ({"n": 2}, ["'n'", "several times"]),
            ({"frequency_penalty": 0.5}, ["frequency_penalty"]),
            ({"max_tokens": 0}, ["max_tokens"]),
            ({"max_tokens": 5, "max_completion_tokens": 6}, ["max_tokens", "one of them"]),
            ({"response_format": {"type": "json_object"}}, ["response_format", "json_schema"]),
            ({"reasoning_effort": "minimal"}, ["reasoning_effort", "low"]),
            ({"reasoning_effort": "none", "thinking": {"type": "adaptive"}}, ["thinking"]),
            ({"metadata": {"tenant": "acme"}}, ["metadata", "user_id"]),
            ({"stop": " "}, ["stop", "blanks"]),
            ({"stop": "A", "stop_sequences": ["B"]}, ["stop_sequences", "one of them"]),
            ({"tool_choice": "required"}, ["tool_choice", "no tools"]),
            ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, ["tools[0]"]),
            ({"tools": [WEATHER, WEATHER]}, ["same name"]),
            ({"functions": []}, ["functions", "use tools"]),
            ({"temprature": 1}, ["temprature"]),
        ],
    )
    def test_what_it_lacks_is_refused_by_name(
        self, params: dict[str, Any], words: list[str]
    ) -> None:
        why = refused(**params)
        assert all(word in why for word in ["Anthropic", *words])

    def test_what_json_can_not_hold_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            dialect().encode(Request.of("Salve", params={"top_k": float("nan")}))

    def test_a_model_that_streams_asks_for_events(self) -> None:
        body = json.loads(dialect(stream=True).encode(Request.of("Salve")))
        assert body["stream"] is True
        assert problem(body) is None

    @given(any_requests())
    def test_what_is_sent_is_taken(self, request: Request) -> None:
        try:
            content = dialect().encode(request)
        except Unsupported as why:
            assert "Anthropic" in str(why)
        else:
            assert problem(json.loads(content)) is None

    @given(good_requests())
    def test_what_it_has_is_never_refused(self, request: Request) -> None:
        assert problem(json.loads(dialect().encode(request))) is None


def read(status: int, body: Any, headers: dict[str, str] | None = None) -> Completion | Failure:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_response(status, headers or {}, content, "claude-sonnet-4-5", NOW)


def answered(body: Any, headers: dict[str, str] | None = None) -> Completion:
    outcome = read(200, body, headers)
    assert isinstance(outcome, Completion)
    return outcome


def failed(status: int, body: Any, headers: dict[str, str] | None = None) -> Failure:
    outcome = read(status, body, headers)
    assert isinstance(outcome, Failure)
    return outcome


EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


class TestAnswer:
    def test_text_and_all_the_tokens(self) -> None:
        usage = {
            "input_tokens": 3,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 100,
            "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 4},
        }
        thought = {"type": "thinking", "thinking": "Hm", "signature": "EqQ"}
        assert answered(message(thought, text("Sal"), text("ve"), usage=usage)) == Completion(
            text="Salve",
            provider_model="claude-sonnet-4-5-20250929",
            usage=Usage(
                input_tokens=123,
                output_tokens=9,
                cached_input_tokens=100,
                cache_write_tokens=20,
                reasoning_tokens=4,
            ),
        )

    def test_calls_of_tools(self) -> None:
        use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}}
        answer = answered(message(text("Wait."), use, stop_reason="tool_use"))
        assert answer.tool_calls == (ToolCall.of("toolu_1", "weather", '{"city": "Köln"}'),)
        assert (answer.text, answer.finish_reason) == ("Wait.", "tool_calls")

    @pytest.mark.parametrize(
        ("reason", "means"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("refusal", "content_filter"),
            ("pause_turn", "pause_turn"),
            ("of_tomorrow", "of_tomorrow"),
        ],
    )
    def test_why_it_ended(self, reason: str, means: str) -> None:
        assert answered(message(text("Salve"), stop_reason=reason)).finish_reason == means

    @pytest.mark.parametrize(
        ("reason", "kind"),
        [
            ("refusal", FailureKind.REFUSED),
            ("max_tokens", FailureKind.PERMANENT),
            ("model_context_window_exceeded", FailureKind.TOO_LONG),
            ("tool_use", FailureKind.RETRYABLE),
        ],
    )
    def test_without_text_it_is_none(self, reason: str, kind: FailureKind) -> None:
        assert failed(200, message(stop_reason=reason)).kind == kind

    def test_a_refusal_says_why(self) -> None:
        details = {"type": "refusal", "category": "bio", "explanation": "Not that."}
        failure = failed(200, message(stop_reason="refusal", stop_details=details))
        assert failure.message == "the model refused: bio: Not that."

    def test_a_model_may_have_nothing_to_say(self) -> None:
        assert answered(message()).text == ""

    def test_a_call_that_the_limit_cut_is_not_passed_on(self) -> None:
        use = {"type": "tool_use", "id": "a", "name": "weather", "input": '{"ci'}
        failure = failed(200, message(text("So"), use, stop_reason="max_tokens"))
        assert failure.kind == FailureKind.PERMANENT
        assert "max_tokens" in failure.message

    @given(broken(message(text("So"), {"type": "tool_use", "name": "a", "input": {}})))
    def test_of_any_shape_has_an_outcome(self, body: Any) -> None:
        assert isinstance(read(200, body), Completion | Failure)
        assert isinstance(read(400, body), Failure)

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b""])
    def test_what_is_no_answer_is_tried_again(self, body: bytes) -> None:
        assert failed(200, body).kind == FailureKind.RETRYABLE

    def test_the_allowance_is_read_from_the_headers(self) -> None:
        headers = {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
        }
        allowance = answered(message(text("Salve")), headers).allowance
        assert allowance is not None
        assert (allowance.limit_requests, allowance.remaining_requests) == (50, 49)


def begun(*data: dict[str, Any]) -> bytes:
    """A stream whose first event has come."""
    usage = {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1}
    return events(
        {"type": "message_start", "message": message(stop_reason=None, usage=usage)}, *data
    )


STREAMED = [
    {"type": "message_start", "message": message(stop_reason=None)},
    {"type": "content_block_start", "index": 0, "content_block": text("")},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "So"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]


class TestStream:
    def test_is_put_together(self) -> None:
        answer = answered(stream_of("Salve munde"), EVENTS)
        assert (answer.text, answer.finish_reason) == ("Salve munde", "stop")
        assert answer.usage == Usage(input_tokens=10, output_tokens=5)

    def test_the_input_of_a_tool_comes_in_pieces_too(self) -> None:
        use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
        pieces = ["", '{"city": "Be', 'rn"}']
        body = begun(
            {"type": "content_block_start", "index": 0, "content_block": text("")},
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "Wait."},
            },
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": use},
            *(
                {
                    "type": "content_block_delta",
                    "index": 1,
                    "delta": {"type": "input_json_delta", "partial_json": piece},
                }
                for piece in pieces
            ),
            {"type": "content_block_stop", "index": 1},
            {"type": "content_block_start", "index": 2, "content_block": {**use, "id": "b"}},
            {"type": "content_block_stop", "index": 2},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "tool_use", "stop_sequence": None},
                "usage": {"input_tokens": 0, "output_tokens": 89},
            },
            {"type": "message_stop"},
        )
        answer = answered(body, EVENTS)
        assert answer.tool_calls == (
            ToolCall.of("toolu_1", "weather", '{"city": "Bern"}'),
            ToolCall.of("b", "weather", "{}"),
        )
        assert (answer.text, answer.finish_reason) == ("Wait.", "tool_calls")
        assert answer.usage == Usage(input_tokens=30, output_tokens=89, cached_input_tokens=5)

    @pytest.mark.parametrize(
        ("type", "status", "kind"),
        [
            ("overloaded_error", 529, FailureKind.RETRYABLE),
            ("rate_limit_error", 429, FailureKind.LIMITED),
            ("of_tomorrow_error", 500, FailureKind.RETRYABLE),
        ],
    )
    def test_an_error_in_the_middle_is_the_outcome(
        self, type: str, status: int, kind: FailureKind
    ) -> None:
        failure = failed(200, begun(error(type, "Overloaded")), EVENTS)
        assert (failure.kind, failure.status) == (kind, status)

    def test_half_of_one_is_none(self) -> None:
        whole = stream_of("Salve munde")
        for cut in range(0, len(whole) - 1, 7):
            assert failed(200, whole[:cut], EVENTS).kind == FailureKind.RETRYABLE

    @given(broken(json.loads(json.dumps(STREAMED))))
    def test_of_any_shape_has_an_outcome(self, data: Any) -> None:
        told = data if isinstance(data, list) else [data]
        lines = (f"data: {json.dumps(each)}\n\n" for each in told)
        assert isinstance(read(200, "".join(lines).encode(), EVENTS), Completion | Failure)

    def test_an_event_that_is_no_json_is_none(self) -> None:
        body = begun() + b"event: ping\ndata: {\n\n"
        assert "not JSON" in failed(200, body, EVENTS).message


class TestError:
    @pytest.mark.parametrize(
        ("status", "type", "said", "kind"),
        [
            (400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", "too_long"),
            (
                400,
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 9 + 8 > 10",
                "too_long",
            ),
            (413, "request_too_large", "Request exceeds the maximum size", "too_long"),
            (400, "invalid_request_error", "messages: at least one message is needed", "permanent"),
            (
                400,
                "invalid_request_error",
                "Your credit balance is too low to access the Anthropic API.",
                "denied",
            ),
            (
                400,
                "invalid_request_error",
                "You have reached your specified API usage limits.",
                "denied",
            ),
            (
                400,
                "invalid_request_error",
                "Output blocked by content filtering policy",
                "refused",
            ),
            (401, "authentication_error", "invalid x-api-key", "denied"),
            (402, "billing_error", "Pay", "denied"),
            (403, "permission_error", "No", "denied"),
            (404, "not_found_error", "model: claude-0", "denied"),
            (409, "conflict_error", "Again", "retryable"),
            (422, "invalid_request_error", "No", "permanent"),
            (429, "rate_limit_error", "Slower", "limited"),
            (500, "api_error", "Internal server error", "retryable"),
            (529, "overloaded_error", "Overloaded", "retryable"),
        ],
    )
    def test_means(self, status: int, type: str, said: str, kind: str) -> None:
        failure = failed(status, error(type, said))
        assert (failure.kind, failure.status) == (kind, status)
        assert failure.message == f"HTTP {status} {type}: {said}"

    def test_a_limit_says_how_long_to_wait(self) -> None:
        body = error("rate_limit_error", "Slower")
        assert failed(429, body, {"retry-after": "12"}).retry_after_s == 12
        assert failed(529, error("overloaded_error", "O"), {"retry-after": "3"}).retry_after_s == 3

    def test_a_months_limit_is_not_waited_for(self) -> None:
        details = {"error_code": "enforced_spend_limit_reached"}
        body = error("rate_limit_error", "Spent", details=details)
        failure = failed(429, body, {"retry-after": "12"})
        assert (failure.kind, failure.retry_after_s) == (FailureKind.DENIED, None)

    def test_a_proxys_page_is_quoted(self) -> None:
        assert failed(502, b"<html>Bad gateway</html>").message.endswith("Bad gateway</html>")

    def test_a_redirect_is_not_followed(self) -> None:
        failure = failed(302, b"", {"location": "https://else.example/?key=1"})
        assert failure.kind == FailureKind.DENIED
        assert "https://else.example/;" in failure.message
