"""The direct client against httpx-aiohttp's own transport, over real sockets: the same, cheaper."""

import asyncio
import contextlib
import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from httpx_aiohttp import AiohttpTransport

from model_workers.providers.direct import PIECE_BYTES, DirectClient, DirectTransport
from model_workers.providers.http import read_body
from modelyard.errors import FailureKind, ProviderError

TIMEOUT = httpx.Timeout(10.0)
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
MakeTransport = Callable[[], AiohttpTransport]


class Server:
    """Answers connections with `handle`; `idle` says that all of them have ended."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.connections = 0
        self.open = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.idle.clear()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1
        if not self.open:
            self.idle.set()


@contextlib.asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[tuple[Server, str]]:
    here = Server(handle)
    server = await asyncio.start_server(here.run, "127.0.0.1", 0)
    async with server:
        yield here, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat?version=2"
        await asyncio.wait_for(here.idle.wait(), 10)


@contextlib.asynccontextmanager
async def direct(transport: AiohttpTransport | None = None) -> AsyncIterator[DirectClient]:
    async with DirectClient(transport or DirectTransport(), timeout=TIMEOUT) as client:
        yield client


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    if length:
        return head, await reader.readexactly(int(length))
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        body += await reader.readline()
    return head, body


def playing(*parts: bytes) -> Handle:
    """Answer every request with these parts, with a turn of the loop between them."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)

    return handle


PACKED = gzip.compress(b'{"packed": true}')
ANSWERS = {
    "all at once": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nhi"],
    "head first": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"h", b"i"],
    "chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nhi\r\n0\r\n\r\n"],
    "until the end": [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi"],
    "long": [b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", b"x" * 300_000],
    "empty": [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
    "no content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "no reason": [b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi"],
    "error": [b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy"],
    "redirect": [b"HTTP/1.1 307 Go\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"],
    "early hint": [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ],
    "packed": [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(PACKED), PACKED)
    ],
    "not Latin": ["HTTP/1.1 200 OK\r\nX-Name: ü\r\nContent-Length: 2\r\n\r\nhi".encode()],
    "half": [b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi"],
    "half a chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"9\r\nhi"],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-"],
    "nothing": [],
    "not HTTP": [b"220 smtp.example ESMTP\r\n\r\n"],
    "badly packed": [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nlies"],
}


async def outcome(transport: AiohttpTransport, url: str, **request: Any) -> tuple[Any, ...]:
    """What a caller can see of one streamed call."""
    client: httpx.AsyncClient = (
        DirectClient(transport, timeout=TIMEOUT)
        if isinstance(transport, DirectTransport)
        else httpx.AsyncClient(transport=transport, timeout=TIMEOUT)
    )
    async with client:
        try:
            response = await client.send(client.build_request("POST", url, **request), stream=True)
            body = await read_body(response)
        except Exception as error:  # noqa: BLE001 - which one it is, is what is compared
            return type(error), str(error), repr(error.__cause__)
    return response.status_code, response.headers.raw, response.extensions, body


@pytest.mark.parametrize("parts", ANSWERS.values(), ids=ANSWERS)
async def test_every_answer_is_what_httpx_makes_of_it(parts: list[bytes]) -> None:
    async with serving(playing(*parts)) as (_, url):
        expected = await outcome(AiohttpTransport(), url, content=b"{}")
        assert await outcome(DirectTransport(), url, content=b"{}") == expected


async def test_nobody_listens() -> None:
    async with serving(playing()) as (_, url):
        pass
    expected = await outcome(AiohttpTransport(), url, content=b"{}")
    assert issubclass(expected[0], httpx.TransportError)
    assert await outcome(DirectTransport(), url, content=b"{}") == expected


async def pieces() -> AsyncIterator[bytes]:
    yield b'{"a": '
    yield b"1}"


@pytest.mark.parametrize(
    "request_",
    [
        {"content": b"{}", "headers": {"authorization": "Bearer k", "x-request-id": "r-1"}},
        {"content": b""},
        {"content": pieces, "headers": {"content-length": "8"}},
        {"content": pieces},
        {"content": "ü".encode(), "headers": {"x-name": "ü".encode()}},
    ],
    ids=["small", "empty", "in pieces", "in chunks", "not Latin"],
)
async def test_the_same_bytes_are_sent(request_: dict[str, Any]) -> None:
    heard: list[tuple[list[bytes], bytes]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await read_request(reader)
        heard.append((sorted(head.splitlines()), body))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

    async with serving(handle) as (_, url):
        for transport in (AiohttpTransport(), DirectTransport()):
            made = {name: v() if callable(v) else v for name, v in request_.items()}
            assert (await outcome(transport, url, **made))[-1] == b"hi"
    assert heard[0] == heard[1]


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")


async def test_calls_use_one_connection_one_after_the_other() -> None:
    async with serving(answer_all) as (server, url), direct() as client:
        for _ in range(5):
            request = client.build_request("POST", url, content=b"{}")
            assert await read_body(await client.send(request, stream=True)) == b"hi"
        assert server.connections == 1


async def test_an_answer_that_is_closed_early_closes_its_connection() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"4\r\nmore\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)

    async with serving(endless) as (server, url), direct() as client:
        response = await client.send(client.build_request("POST", url, content=b"{}"), stream=True)
        await response.aclose()
        await asyncio.wait_for(server.idle.wait(), 10)


async def test_what_a_packed_answer_unfolds_to_is_bounded_too() -> None:
    limit = 64 * PIECE_BYTES
    bomb = gzip.compress(b" " * 200 * limit)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    async with serving(playing(head + bomb)) as (_, url), direct() as client:
        request = client.build_request("POST", url, content=b"{}")
        response = await client.send(request, stream=True)
        with pytest.raises(ProviderError, match="answer too large") as caught:
            await read_body(response, limit)
    assert caught.value.kind is FailureKind.PERMANENT


async def test_silence_is_a_read_timeout_with_its_request() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(hang) as (_, url), direct() as client:
        timeouts = {"connect": 5.0, "read": 0.05, "write": 5.0, "pool": 5.0}
        extensions = {"timeout": timeouts}
        request = httpx.Request("POST", url, content=b"{}", extensions=extensions)
        with pytest.raises(httpx.ReadTimeout) as caught:
            await client.send(request, stream=True)
    assert caught.value.request is request


# aiohttp announces the end of `BasicAuth` for its version 4, and has no other way before that to
# authenticate at a proxy for plain HTTP.
@pytest.mark.filterwarnings("ignore:.*(BasicAuth|proxy_auth):DeprecationWarning")
async def test_a_proxy_is_used_with_its_password() -> None:
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        heads.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

    async with serving(handle) as (_, url):
        address = httpx.URL(url)
        proxy = httpx.Proxy(f"http://me:pw@{address.host}:{address.port}")
        async with direct(DirectTransport(proxy=proxy)) as client:
            target = "http://models.invalid/v1/chat"
            request = client.build_request("POST", target, content=b"{}")
            assert await read_body(await client.send(request, stream=True)) == b"hi"
    assert heads[0].startswith(b"POST http://models.invalid/v1/chat HTTP/1.1\r\n")
    assert b"proxy-authorization: basic bwu6chc=" in heads[0].lower()


class TestClient:
    """What the client does without a network."""

    def client(self, handler: Callable[[httpx.Request], httpx.Response]) -> DirectClient:
        return DirectClient(httpx.MockTransport(handler), timeout=httpx.Timeout(7.0))

    async def test_its_timeouts_are_those_of_a_request_that_brings_none(self) -> None:
        def handler(request: httpx.Request) -> httpx.Response:
            assert request.extensions["timeout"] == httpx.Timeout(7.0).as_dict()
            return httpx.Response(200)

        async with self.client(handler) as client:
            await client.send(httpx.Request("POST", "http://h/"), stream=True)

    async def test_what_is_not_streamed_or_has_options_is_httpx_as_ever(self) -> None:
        def handler(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, text=request.headers.get("authorization", "none"))

        async with self.client(handler) as client:
            assert (await client.get("http://h/")).text == "none"
            request = client.build_request("GET", "http://h/")
            response = await client.send(request, stream=True, auth=("me", "pw"))
            assert (await response.aread()).startswith(b"Basic ")

    async def test_cookies_are_not_kept(self) -> None:
        def handler(request: httpx.Request) -> httpx.Response:
            assert "cookie" not in request.headers
            return httpx.Response(200, headers={"set-cookie": "who=you"})

        async with self.client(handler) as client:
            for _ in range(2):
                await client.get("http://h/")
                await client.send(client.build_request("POST", "http://h/"), stream=True)

    async def test_httpx_writes_its_line_if_it_is_asked_to(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with self.client(lambda _: httpx.Response(200)) as client:
            request = client.build_request("POST", "http://h/a")
            with caplog.at_level(logging.WARNING, "httpx"):
                await client.send(request, stream=True)
            assert not caplog.messages
            with caplog.at_level(logging.INFO, "httpx"):
                await client.send(request, stream=True)
            assert caplog.messages == ['HTTP Request: POST http://h/a "HTTP/1.1 200 OK"']

    async def test_after_its_end_it_calls_nobody(self) -> None:
        client = self.client(lambda _: httpx.Response(200))
        await client.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await client.send(httpx.Request("POST", "http://h/"), stream=True)
