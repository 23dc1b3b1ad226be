"""CPU time of one model call by HTTP client and calls in flight.

    python -m benchmarks.http_client

The endpoint answers at once and runs in a process of its own, so that the CPU time of this
process is the client's alone: building the request, sending it, reading and parsing the answer.
Each cell is measured for a fixed time; the whole takes about a minute.
"""

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from model_workers.providers.http import make_client, read_body
from model_workers.providers.openai import OpenAI
from modelyard.catalog import Endpoint, Model
from modelyard.messages import Request

IN_FLIGHT = (1, 50, 200)
WARM_S = 3.0
CELL_S = 1.5
PROMPT = "Say in one sentence what a classification yard is. " * 8
BODY = {"model": "bench", "messages": [{"role": "user", "content": PROMPT}]}
ANSWER = {
    "model": "bench",
    "choices": [
        {
            "message": {
                "role": "assistant",
                "content": "A yard sorts wagons by where they go. " * 8,
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 80, "total_tokens": 180},
}

Call = Callable[[], Awaitable[Any]]
Client = Callable[[str, int], contextlib.AbstractAsyncContextManager[Call]]


def httpx_default(base_url: str, in_flight: int) -> contextlib.AbstractAsyncContextManager[Call]:
    """httpx as it comes: beyond 20 idle connections it closes them and connects anew."""
    return httpx_alone(base_url, in_flight, kept=20)


def httpx_keeping(base_url: str, in_flight: int) -> contextlib.AbstractAsyncContextManager[Call]:
    """httpx that keeps all connections: its pool looks at each for each other one."""
    return httpx_alone(base_url, in_flight, kept=in_flight)


@contextlib.asynccontextmanager
async def httpx_alone(base_url: str, in_flight: int, kept: int) -> AsyncIterator[Call]:
    """httpx over its own transport."""
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=kept)
    async with httpx.AsyncClient(limits=limits, timeout=30.0) as client:

        async def call() -> Any:
            response = await client.post(f"{base_url}/chat/completions", json=BODY)
            return response.raise_for_status().json()

        yield call


@contextlib.asynccontextmanager
async def httpx_over_aiohttp(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    """httpx over httpx-aiohttp's transport, both as they come."""
    limits = httpx.Limits(max_connections=in_flight, keepalive_expiry=30.0)
    transport = AiohttpTransport(limits=limits)
    async with httpx.AsyncClient(transport=transport, timeout=30.0) as client:

        async def call() -> Any:
            response = await client.post(f"{base_url}/chat/completions", json=BODY)
            return response.raise_for_status().json()

        yield call


@contextlib.asynccontextmanager
async def client_direct(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    """The client that the workers use, with the same request each time."""
    endpoint = Endpoint(base_url=base_url)
    async with make_client(endpoint, timeout_s=30.0, concurrency=in_flight) as client:
        request = client.build_request("POST", f"{base_url}/chat/completions", json=BODY)

        async def call() -> Any:
            return json.loads(await read_body(await client.send(request, stream=True)))

        yield call


@contextlib.asynccontextmanager
async def plain_aiohttp(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    """aiohttp's own API: what the httpx layer on top of it costs."""
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call() -> Any:
            async with session.post(f"{base_url}/chat/completions", json=BODY) as response:
                response.raise_for_status()
                return await response.json()

        yield call


@contextlib.asynccontextmanager
async def sockets(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    """asyncio's transports with as good as no HTTP: the loop, the system calls and the JSON."""
    host, _, port = base_url.split("/")[2].partition(":")
    loop = asyncio.get_running_loop()
    idle = [(await loop.create_connection(Heard, host, int(port)))[1] for _ in range(in_flight)]
    content = json.dumps(BODY).encode()
    message = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content)

    async def call() -> Any:
        connection = idle.pop()
        connection.wire.write(message)
        body = await connection.answer()
        idle.append(connection)
        return json.loads(body)

    try:
        yield call
    finally:
        for connection in idle:
            connection.wire.close()


class Spoken(asyncio.Protocol):
    """One end of a connection: takes HTTP messages apart by their content-length."""

    wire: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.wire = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while True:
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                return
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(rest) < length:
                return
            self._rest = rest[length:]
            self.heard(rest[:length])

    def heard(self, body: bytes) -> None:
        raise NotImplementedError


class Heard(Spoken):
    """The caller's end."""

    _waiter: asyncio.Future[bytes]

    def answer(self) -> asyncio.Future[bytes]:
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def heard(self, body: bytes) -> None:
        self._waiter.set_result(body)


class Answering(Spoken):
    """The endpoint's end: the same answer to everything."""

    CONTENT = json.dumps(ANSWER).encode()
    MESSAGE = (
        b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 08:00:00 GMT\r\nserver: bench\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    ) % (len(CONTENT), CONTENT)

    def heard(self, body: bytes) -> None:
        self.wire.write(self.MESSAGE)


@contextlib.asynccontextmanager
async def provider_openai(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    """The whole provider: what a worker spends on a call."""
    endpoint = Endpoint(base_url=base_url)
    model = Model(name="bench", provider="openai", endpoints=(endpoint,))
    client = make_client(endpoint, timeout_s=30.0, concurrency=in_flight)
    provider = OpenAI(model, endpoint, client)
    request = Request.model_validate({"text": PROMPT})
    try:
        yield lambda: provider.complete(request, request_id="0b2e6c2e-6b7e-4a1e-8b1e-1d4f7c0a9e52")
    finally:
        await provider.aclose()


CLIENTS: dict[str, Client] = {
    "httpx": httpx_default,
    "httpx, all connections kept": httpx_keeping,
    "httpx over aiohttp": httpx_over_aiohttp,
    "our client": client_direct,
    "our provider `openai`": provider_openai,
    "aiohttp": plain_aiohttp,
    "asyncio alone": sockets,
}


async def spend(call: Call, in_flight: int) -> dict[str, float]:
    """Keep `in_flight` calls running; return what one took between the warm-up and the end.

    The warm-up lasts for two rounds of calls: opening connections is not what is compared here.
    """
    done = 0
    stopping = False
    warm = asyncio.Event()

    async def lane() -> None:
        nonlocal done
        while not stopping:
            await call()
            done += 1
            if done == 2 * in_flight:
                warm.set()

    lanes = asyncio.gather(*(lane() for _ in range(in_flight)))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(warm.wait(), WARM_S)
    calls, wall, cpu = done, time.perf_counter(), time.process_time()
    await asyncio.sleep(CELL_S)
    calls, cpu, wall = done - calls, time.process_time() - cpu, time.perf_counter() - wall
    stopping = True
    await lanes
    return {
        "calls": calls,
        "cpu_us_per_call": round(1e6 * cpu / calls, 1),
        "calls_per_s": round(calls / wall, 1),
    }


async def measure(client: Client, base_url: str, in_flight: int) -> dict[str, float]:
    """Measure one cell of the table."""
    async with client(base_url, in_flight) as call:
        return await spend(call, in_flight)


async def serve() -> None:
    """Be the endpoint; print its base_url first."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def instant_endpoint() -> Iterator[str]:
    """Run the endpoint as a process of its own; yield its base_url."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.http_client", "serve"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def run() -> dict[str, Any]:
    """Measure everything; return it as plain JSON values."""
    with instant_endpoint() as base_url:
        cells = [
            {"client": name, "in_flight": n, **asyncio.run(measure(client, base_url, n))}
            for name, client in CLIENTS.items()
            for n in IN_FLIGHT
        ]
    return {
        "benchmark": "http_client",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": {"httpx": httpx.__version__, "aiohttp": aiohttp.__version__},
        "cells": cells,
    }


def table(result: dict[str, Any]) -> str:
    """Return the CPU microseconds per call as a Markdown table."""
    by_cell = {(cell["client"], cell["in_flight"]): cell for cell in result["cells"]}
    lines = [
        "| CPU µs a call | " + " | ".join(f"{n} in flight" for n in IN_FLIGHT) + " |",
        "| --- |" + " ---: |" * len(IN_FLIGHT),
    ]
    for name in CLIENTS:
        values = (f"{by_cell[name, n]['cpu_us_per_call']:,.0f}" for n in IN_FLIGHT)
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        measured = run()
        print(table(measured))
        print(json.dumps(measured))
