"""What Gemini's answers and errors mean, whole and in pieces."""

import json
import math
from typing import Any

import pytest
from fakes.vertex_api import error, streamed
from fakes.vertex_words import FLASH, NOW, RETRY_INFO, ended, read
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.base import Completion, Failure
from model_workers.providers.gemini_answer import read_response
from modelyard.errors import FailureKind
from modelyard.messages import Usage


class TestAnswer:
    def test_a_whole_one(self) -> None:
        found = read(
            {
                "candidates": [
                    {
                        "content": {
                            "role": "model",
                            "parts": [
                                {"text": "Let me think", "thought": True},
                                {"text": "Ave, ", "thoughtSignature": "c2ln"},
                                {"text": "munde."},
                            ],
                        },
                        "finishReason": "STOP",
                        "avgLogprobs": -0.5,
                        "safetyRatings": [],
                    }
                ],
                "usageMetadata": {
                    "promptTokenCount": 20,
                    "candidatesTokenCount": 5,
                    "thoughtsTokenCount": 30,
                    "cachedContentTokenCount": 8,
                    "totalTokenCount": 55,
                },
                "modelVersion": "gemini-2.5-flash-001",
                "createTime": "2026-01-01T00:00:00Z",
                "responseId": "r",
            }
        )
        assert found == Completion(
            text="Ave, munde.",
            provider_model="gemini-2.5-flash-001",
            usage=Usage(
                input_tokens=20, output_tokens=35, cached_input_tokens=8, reasoning_tokens=30
            ),
            confidence=math.exp(-0.5),
        )

    def test_calls_of_functions_have_ids_that_stay_and_differ(self) -> None:
        part = {"functionCall": {"name": "weather", "args": {"city": "Bern"}}}
        again = [read(ended("STOP", part, part)) for _ in range(2)]
        assert again[0] == again[1]
        assert again[0].finish_reason == "tool_calls"
        one, other = again[0].tool_calls
        assert one.function.name == "weather"
        assert json.loads(one.function.arguments) == {"city": "Bern"}
        later = read({**ended("STOP", part), "responseId": "r-2"}).tool_calls[0]
        assert len({one.id, other.id, later.id}) == 3

    def test_an_id_that_was_given_is_kept(self) -> None:
        found = read(ended("STOP", {"functionCall": {"id": "x1", "name": "now"}}))
        assert (found.tool_calls[0].id, found.tool_calls[0].function.arguments) == ("x1", "{}")

    @pytest.mark.parametrize(
        ("body", "kind", "words"),
        [
            ({"promptFeedback": {"blockReason": "SAFETY"}}, "refused", "blocked: SAFETY"),
            (ended("SAFETY"), "refused", "SAFETY"),
            (ended("PROHIBITED_CONTENT"), "refused", "PROHIBITED_CONTENT"),
            (ended("RECITATION", {"text": ""}), "refused", "RECITATION"),
            (ended("MALFORMED_FUNCTION_CALL"), "retryable", "broken"),
            (ended("MAX_TOKENS"), "permanent", "raise max_tokens"),
            (ended("STOP"), "retryable", "no text"),
            (ended("STOP", {"text": "hm", "thought": True}), "retryable", "no text"),
            (ended("OTHER"), "retryable", "OTHER"),
            (ended("TOO_MANY_TOOL_CALLS"), "permanent", "TOO_MANY_TOOL_CALLS"),
            (ended("STOP", {"functionCall": {"args": {}}}), "retryable", "without a name"),
            ({"candidates": []}, "retryable", "no candidates"),
            (b"<html>", "retryable", "not JSON"),
            ([], "retryable", "no object"),
            (error(503, "UNAVAILABLE", "overloaded"), "retryable", "error 503"),
        ],
    )
    def test_what_is_no_answer(self, body: Any, kind: str, words: str) -> None:
        found = read(body)
        assert isinstance(found, Failure)
        assert found.kind == kind
        assert words in found.message

    @pytest.mark.parametrize(
        ("reason", "finish"),
        [("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("LANGUAGE", "language")],
    )
    def test_half_a_text_is_one_that_says_why_it_ended(self, reason: str, finish: str) -> None:
        found = read(ended(reason, {"text": "Half"}))
        assert (found.text, found.finish_reason) == ("Half", finish)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        "candidates content parts text functionCall name args finishReason error "
                        "code promptFeedback blockReason usageMetadata avgLogprobs logprobsResult "
                        "chosenCandidates details violations".split()
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ),
        st.sampled_from([200, 400, 429, 500]),
        st.booleans(),
    )
    def test_any_json_is_understood_somehow(self, body: Any, status: int, stream: bool) -> None:
        raw = json.dumps(body).encode()
        headers = {"content-type": "text/event-stream"} if stream else {}
        if stream:
            raw = b"data: " + raw + b"\n\n"
        found = read_response(status, headers, raw, FLASH, NOW)
        assert isinstance(found, Completion | Failure)


class TestStream:
    def read(self, *pieces: dict[str, Any]) -> Any:
        canned = streamed(*pieces)
        return read(canned.body, headers=dict(canned.headers))

    def piece(self, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": list(parts), "role": "model"}, **more}]}

    def test_pieces_are_put_together(self) -> None:
        found = self.read(
            {**self.piece({"text": "Sal"}), "modelVersion": "v-1", "responseId": "r"},
            self.piece({"text": "hm", "thought": True}),
            self.piece({"text": "ve"}),
            {
                **self.piece({"text": ""}, finishReason="STOP"),
                "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2},
            },
        )
        assert found == Completion(
            text="Salve", provider_model="v-1", usage=Usage(input_tokens=3, output_tokens=2)
        )

    def test_one_that_ends_too_early_is_half_an_answer(self) -> None:
        found = self.read(self.piece({"text": "Sal"}))
        assert (found.kind, "half an answer" in found.message) == (FailureKind.RETRYABLE, True)

    def test_an_error_in_the_middle(self) -> None:
        limited = error(429, "RESOURCE_EXHAUSTED", "slow down", RETRY_INFO)
        found = self.read(self.piece({"text": "Sal"}), limited)
        assert (found.kind, found.retry_after_s, found.status) == (FailureKind.LIMITED, 47.5, 429)

    def test_a_blocked_prompt(self) -> None:
        found = self.read({"promptFeedback": {"blockReason": "OTHER"}})
        assert found.kind is FailureKind.REFUSED


QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"
KEY_INVALID = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.parametrize(
    ("status", "name", "words", "details", "kind"),
    [
        (429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later.", [], "limited"),
        (429, "RESOURCE_EXHAUSTED", "check your plan and billing details", [], "limited"),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded for requests per minute", [], "limited"),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded for requests per day", [], "denied"),
        (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", [], "denied"),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota",
            [{"@type": QUOTA, "violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}],
            "denied",
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota",
            [{"@type": QUOTA, "violations": [{"quotaId": "GenerateRequestsPerMinute"}]}],
            "limited",
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed.",
            [],
            "too_long",
        ),
        (400, "INVALID_ARGUMENT", "Request payload size exceeds the limit", [], "too_long"),
        (400, "INVALID_ARGUMENT", "Unknown name", [], "permanent"),
        (400, "INVALID_ARGUMENT", "API key not valid.", [KEY_INVALID], "denied"),
        (400, "FAILED_PRECONDITION", "User location is not supported.", [], "denied"),
        (401, "UNAUTHENTICATED", "no", [], "denied"),
        (403, "PERMISSION_DENIED", "no", [], "denied"),
        (404, "NOT_FOUND", "Publisher Model was not found", [], "denied"),
        (413, "", "too large", [], "too_long"),
        (418, "", "teapot", [], "permanent"),
        (499, "CANCELLED", "cancelled", [], "retryable"),
        (500, "INTERNAL", "oh", [], "retryable"),
        (503, "UNAVAILABLE", "overloaded", [], "retryable"),
        (504, "DEADLINE_EXCEEDED", "late", [], "retryable"),
    ],
)
def test_errors(status: int, name: str, words: str, details: list[Any], kind: str) -> None:
    body = error(status, name, words, *details)
    for form in (body, [body]):
        found = read(form, status)
        assert (found.kind, found.status) == (kind, status)
        assert words in found.message


def test_the_wait_is_that_of_the_error_or_of_the_headers() -> None:
    body = error(429, "RESOURCE_EXHAUSTED", "slow", RETRY_INFO)
    assert read(body, 429, {"retry-after": "3"}).retry_after_s == 47.5
    assert (
        read(error(429, "RESOURCE_EXHAUSTED", "slow"), 429, {"retry-after": "3"}).retry_after_s == 3
    )
    denied = error(429, "RESOURCE_EXHAUSTED", "requests per day", RETRY_INFO)
    assert read(denied, 429).retry_after_s is None


def test_a_redirect_is_not_followed() -> None:
    assert read(b"", 307, {"location": "https://x"}).kind is FailureKind.DENIED
