"""CPU time of one model call by HTTP client and calls in flight.

    python -m benchmarks.http_client

The endpoint is the fake provider in a process of its own, so that the CPU time of this process is
the client's alone: building the request, sending it, reading and parsing the answer. It answers
after 50 ms, so that calls really are in flight. Each cell is measured for a fixed time; the whole
takes about half a minute.
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

from model_workers.providers.http import make_client
from model_workers.providers.openai import OpenAI
from modelyard.catalog import Endpoint, Model
from modelyard.messages import Request

IN_FLIGHT = (1, 50, 200)
ANSWER_S = 0.05
WARM_S = 3.0
CELL_S = 1.5
PROMPT = "Say in one sentence what a classification yard is. " * 8
BODY = {"model": "bench", "messages": [{"role": "user", "content": PROMPT}]}

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
    """The client that the workers use, without the provider around it."""
    endpoint = Endpoint(base_url=base_url)
    async with make_client(endpoint, timeout_s=30.0, concurrency=in_flight) as client:

        async def call() -> Any:
            response = await client.post(f"{base_url}/chat/completions", json=BODY)
            return response.raise_for_status().json()

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
async def provider_openai(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    """The whole provider: what a worker spends on a call."""
    endpoint = Endpoint(base_url=base_url)
    model = Model(name="bench", provider="openai", endpoints=(endpoint,))
    client = make_client(endpoint, timeout_s=30.0, concurrency=in_flight)
    provider = OpenAI(model, endpoint, client)
    request = Request.model_validate({"text": PROMPT})
    try:
        yield lambda: provider.complete(request)
    finally:
        await provider.aclose()


CLIENTS: dict[str, Client] = {
    "httpx": httpx_default,
    "httpx, all connections kept": httpx_keeping,
    "httpx over aiohttp": httpx_over_aiohttp,
    "aiohttp": plain_aiohttp,
    "provider OpenAI": provider_openai,
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
        "cpu_ms_per_call": round(1000 * cpu / calls, 3),
        "calls_per_s": round(calls / wall, 1),
    }


async def measure(client: Client, base_url: str, in_flight: int) -> dict[str, float]:
    """Measure one cell of the table."""
    async with client(base_url, in_flight) as call:
        return await spend(call, in_flight)


@contextlib.contextmanager
def fake_endpoint() -> Iterator[str]:
    """Run the fake provider as a process of its own; yield its base_url."""
    process = subprocess.Popen(
        [sys.executable, "-m", "modelyard.testing", "--delay-s", str(ANSWER_S)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def run() -> dict[str, Any]:
    """Measure everything; return it as plain JSON values."""
    with fake_endpoint() as base_url:
        cells = [
            {"client": name, "in_flight": n, **asyncio.run(measure(client, base_url, n))}
            for name, client in CLIENTS.items()
            for n in IN_FLIGHT
        ]
    return {
        "benchmark": "http_client",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "answer_ms": 1000 * ANSWER_S,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": {"httpx": httpx.__version__, "aiohttp": aiohttp.__version__},
        "cells": cells,
    }


def table(result: dict[str, Any]) -> str:
    """Return the CPU milliseconds per call as a Markdown table."""
    by_cell = {(cell["client"], cell["in_flight"]): cell for cell in result["cells"]}
    lines = [
        "| CPU ms a call | " + " | ".join(f"{n} in flight" for n in IN_FLIGHT) + " |",
        "| --- |" + " ---: |" * len(IN_FLIGHT),
    ]
    for name in CLIENTS:
        values = (f"{by_cell[name, n]['cpu_ms_per_call']:.2f}" for n in IN_FLIGHT)
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    measured = run()
    print(table(measured))
    print(json.dumps(measured))
