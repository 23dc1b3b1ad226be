"""What the errors of OpenAI-compatible servers mean, and how long to wait."""

import asyncio
from email.utils import formatdate

import aiohttp
import httpx
import pytest
from fakes.openai_http import HELLO, NOW, answering, error, failure, provider
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.http import retry_after_s
from modelyard.errors import FailureKind

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
