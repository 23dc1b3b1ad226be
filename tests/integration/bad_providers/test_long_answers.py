"""Answers of megabytes: read as long as they may be, and refused in flat memory."""

import asyncio
import tracemalloc

import pytest
from provider_calls import Kind, answered, failed
from raw_http import head, plain, serving, whole

from model_workers.providers.http import MAX_ANSWER_BYTES
from modelyard.errors import FailureKind

K = FailureKind


class Endless:
    """Sends `piece` again and again, up to `most` bytes; `sent` says how many there were."""

    def __init__(
        self, begin: bytes, piece: bytes, most: int, *headers: str, kind: str = "application/json"
    ) -> None:
        self.sent = 0
        self._begin = head(200, *headers, kind=kind) + begin
        self._piece = piece
        self._most = most

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._begin)
        while self.sent < self._most:
            writer.write(self._piece)
            await writer.drain()
            self.sent += len(self._piece)


class TestLongAnswers:
    MB = 1024 * 1024

    async def test_thirty_megabytes_are_an_answer(self, kind: Kind) -> None:
        text = "room " * (6 * self.MB)
        async with serving(whole(plain(kind.well(text)))) as server:
            assert await answered(kind, server.base_url) == text

    async def test_forty_megabytes_are_refused_before_they_are_read(self, kind: Kind) -> None:
        source = Endless(b"{", b" " * 65_536, 40 * self.MB, f"content-length: {40 * self.MB + 1}")
        async with serving(source) as server:
            tracemalloc.start()
            try:
                attempt = await failed(kind, server.base_url)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert (attempt.kind, attempt.status) == (K.PERMANENT, 200)
        assert f"answer too large: more than {MAX_ANSWER_BYTES} bytes" in attempt.message
        assert peak < 8 * self.MB
        assert source.sent < 20 * self.MB, "what the sockets hold, and no more"

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    async def test_an_answer_without_an_end_is_refused_while_it_is_read(
        self, kind: Kind, stream: bool
    ) -> None:
        begin = b'{"text": "'
        content, piece = "application/json", b"room " * 13_000
        if stream:
            begin, content, piece = b"", "text/event-stream", b": nothing yet\n\n" * 4_000
        source = Endless(begin, piece, 400 * self.MB, kind=content)
        async with serving(source) as server:
            tracemalloc.start()
            try:
                attempt = await failed(kind, server.base_url, stream=stream)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert (attempt.kind, attempt.status) == (K.PERMANENT, 200)
        assert "answer too large" in attempt.message
        assert peak < MAX_ANSWER_BYTES + 8 * self.MB
        assert source.sent < MAX_ANSWER_BYTES + 20 * self.MB

    async def test_an_error_page_of_megabytes_is_told_in_short(self, kind: Kind) -> None:
        async with serving(whole(b"<p>Sorry</p>" * self.MB, 502, kind="text/html")) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, 502)
        assert "Sorry" in attempt.message
