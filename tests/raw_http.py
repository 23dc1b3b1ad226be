"""A server on a socket that answers calls with the very bytes that a test says."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

TLS_BEGINS = b"\x16"

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Served:
    """A server that reads whole calls. `calls` counts them."""

    base_url: str
    calls: int = 0


@contextlib.asynccontextmanager
async def serving(write: Write, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Let `write` answer each call, and close the connection after it."""
    served = Served("")
    handling: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who gives up in the middle, of a handshake or an answer, is what is tested here.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if (first := await reader.readexactly(1)) == TLS_BEGINS:
                writer.write(head(400))  # as servers do whose port is no https port
            else:
                asked = (first + await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(asked.partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                served.calls += 1
                await write(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(handle(reader, writer))
        handling.add(task)
        task.add_done_callback(handling.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        served.base_url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        yield served
        if handling:
            await asyncio.wait_for(asyncio.gather(*handling), 10)


def head(status: int, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"content-type: {kind}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(
    body: bytes, status: int = 200, *headers: str, sent: int | None = None, **more: str
) -> Write:
    """Answer with `body`, or with its first bytes only."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, f"content-length: {len(body)}", *headers, **more) + body[:sent])
        await writer.drain()

    return write


def plain(said: Any) -> bytes:
    return json.dumps(said).encode()
