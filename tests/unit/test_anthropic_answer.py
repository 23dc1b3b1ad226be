"""What the Anthropic provider makes of every kind of answer."""

import json
from typing import Any

import pytest
from fakes.anthropic_api import error, events, message, stream_of, text
from fakes.anthropic_words import answered, failed, read
from fakes.requests import broken
from hypothesis import given

from model_workers.providers.base import Completion, Failure
from modelyard.errors import FailureKind
from modelyard.messages import ToolCall, Usage

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
INVALID = "invalid_request_error"


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
            (400, INVALID, "prompt is too long: 9 tokens > 8 maximum", "too_long"),
            (
                400,
                INVALID,
                "input length and `max_tokens` exceed context limit: 9 + 8 > 10",
                "too_long",
            ),
            (413, "request_too_large", "Request exceeds the maximum size", "too_long"),
            (400, INVALID, "messages: at least one message is needed", "permanent"),
            (400, INVALID, "Your credit balance is too low to access the Anthropic API.", "denied"),
            (400, INVALID, "You have reached your specified API usage limits.", "denied"),
            (400, INVALID, "Output blocked by content filtering policy", "refused"),
            (401, "authentication_error", "invalid x-api-key", "denied"),
            (402, "billing_error", "Pay", "denied"),
            (403, "permission_error", "No", "denied"),
            (404, "not_found_error", "model: claude-0", "denied"),
            (409, "conflict_error", "Again", "retryable"),
            (422, INVALID, "No", "permanent"),
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
