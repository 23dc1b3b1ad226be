"""Answers that are cut, of another shape, refused, redirected or no HTTP."""

import asyncio

import pytest
from provider_calls import KINDS, SAID, Kind, answered, failed
from raw_http import head, plain, serving, whole

from modelyard.errors import FailureKind

K = FailureKind
OTHER_SCHEMA = {"object": "list", "data": [{"id": "small"}], "status": "ok"}


class TestBrokenAnswers:
    async def test_an_answer_that_is_well_is_one(self, kind: Kind) -> None:
        """What the others of this class differ from."""
        async with serving(whole(plain(kind.well(SAID)))) as server:
            assert await answered(kind, server.base_url) == SAID

    async def test_a_connection_that_is_closed_in_the_middle(self, kind: Kind) -> None:
        body = plain(kind.well(SAID))
        async with serving(whole(body, sent=len(body) // 2)) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, None)
        assert "lost in the middle of the answer" in attempt.message

    async def test_chunks_that_end_in_the_middle(self, kind: Kind) -> None:
        body = plain(kind.well(SAID))

        async def write(writer: asyncio.StreamWriter) -> None:
            writer.write(head(200, "transfer-encoding: chunked"))
            writer.write(b"%x\r\n%s\r\n" % (len(body), body))  # all of it, but not its end

        async with serving(write) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, None)
        assert "lost in the middle of the answer" in attempt.message

    async def test_a_connection_that_is_closed_before_an_answer(self, kind: Kind) -> None:
        async def write(writer: asyncio.StreamWriter) -> None:
            """Say nothing."""

        async with serving(write) as server:
            attempt = await failed(kind, server.base_url)
        assert attempt.kind is K.RETRYABLE
        assert "closed the connection without an answer" in attempt.message

    async def test_a_whole_answer_of_half_a_json(self, kind: Kind) -> None:
        body = plain(kind.well(SAID))
        async with serving(whole(body[: len(body) // 2])) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, 200)
        assert "the answer is not JSON" in attempt.message

    async def test_an_answer_of_another_schema(self, kind: Kind) -> None:
        async with serving(whole(plain(OTHER_SCHEMA))) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, 200)
        assert kind.lost in attempt.message

    @pytest.mark.parametrize("body", [b"[]", b'"fine"', b"null", b"<html>Welcome</html>", b""])
    async def test_an_answer_that_is_no_object(self, kind: Kind, body: bytes) -> None:
        async with serving(whole(body)) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, 200)
        assert "the answer is " in attempt.message

    async def test_the_answer_of_every_other_provider(self, kind: Kind) -> None:
        for other in KINDS.values():
            if other.well is kind.well:
                continue
            async with serving(whole(plain(other.well(SAID)))) as server:
                attempt = await failed(kind, server.base_url)
            assert (attempt.kind, attempt.status) == (K.RETRYABLE, 200), other.name

    async def test_a_refusal(self, kind: Kind) -> None:
        status, body = kind.refusing
        async with serving(whole(plain(body), status)) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.REFUSED, status)

    async def test_what_is_no_http(self, kind: Kind) -> None:
        async def write(writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")

        async with serving(write) as server:
            attempt = await failed(kind, server.base_url)
        assert attempt.kind is K.RETRYABLE
        assert "the answer is not HTTP" in attempt.message

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_a_redirect_is_not_followed(self, kind: Kind, status: int) -> None:
        async with serving(whole(plain(kind.well(SAID)))) as target:
            location = f"location: {target.base_url}/there?token=secret"
            async with serving(whole(b"", status, location)) as server:
                attempt = await failed(kind, server.base_url)
            assert target.calls == 0, "the key and the prompt would have gone there"
        assert (attempt.kind, attempt.status) == (K.DENIED, status)
        assert f"redirects to {target.base_url}/there;" in attempt.message
        assert "secret" not in attempt.message
