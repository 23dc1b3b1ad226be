"""What a pool process takes while it holds many slow calls: memory, and CPU while they wait.

python -m benchmarks waiting [--requests N]
"""

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from benchmarks.moody_endpoint import HOST, answer
from benchmarks.one_model import one_model
from benchmarks.process import cpu_s, process, rss_mib
from benchmarks.results import markdown_table, stamp
from modelyard import Client
from modelyard.embedded_redis import EmbeddedRedis
from producer.commands import model_command, router_command

CALLS: Final = 1_000
LATENCY_S: Final = 10.0
ROUNDS: Final = 3
MOST_MIB: Final = 300.0
MOST_CORE: Final = 0.25


class SlowEndpoint:
    """An OpenAI-compatible endpoint in a thread, that takes `latency_s` for each answer."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self.in_flight = 0
        self.url = ""

    async def complete(self, request: web.Request) -> web.Response:
        """Answer one call, late."""
        await request.read()
        self.in_flight += 1
        try:
            await asyncio.sleep(self._latency_s)
        finally:
            self.in_flight -= 1
        return web.json_response(answer("slow"))

    @contextlib.contextmanager
    def running(self) -> Iterator["SlowEndpoint"]:
        """Serve until the block ends."""
        loop = asyncio.new_event_loop()
        ready = threading.Event()
        stop = asyncio.Event()

        async def serve() -> None:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", self.complete)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, HOST, 0, backlog=4096).start()
            self.url = f"http://{HOST}:{runner.addresses[0][1]}/v1"
            ready.set()
            await stop.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        ready.wait(30)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            loop.close()


def run(calls: int = CALLS, latency_s: float = LATENCY_S) -> dict[str, Any]:
    """Measure; return it as plain JSON values."""
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(SlowEndpoint(latency_s).running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waiting-")))
        redis = stack.enter_context(EmbeddedRedis(folder / "state"))
        catalog = folder / "catalog.yaml"
        catalog.write_text(one_model("slow", endpoint.url, concurrency=calls, timeout_s=120))
        env = {"MODELYARD_BROKER_URL": redis.url, "MODELYARD_CATALOG": str(catalog)}
        stack.enter_context(process(router_command(), folder / "router.log", env))
        pool = stack.enter_context(process(model_command("slow"), folder / "pool.log", env))
        client = stack.enter_context(Client(redis.url))
        client.submit("the first").result(60 + latency_s)
        idle_mib = rss_mib(pool)
        rounds = []
        for _ in range(ROUNDS):
            handles = client.submit_many(["a call that takes its time"] * calls)
            deadline = time.monotonic() + 60
            while endpoint.in_flight < calls:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{endpoint.in_flight} of {calls} calls are in flight")
                time.sleep(0.05)
            # All are in flight, and none is back yet: this is the waiting.
            began, spent = time.monotonic(), cpu_s(pool)
            time.sleep(latency_s / 3)
            core = (cpu_s(pool) - spent) / (time.monotonic() - began)
            waiting = endpoint.in_flight
            most_mib = rss_mib(pool)
            for handle in handles:
                handle.result(120)
            rounds.append({"in_flight": waiting, "core": round(core, 4), "mib": most_mib})
    return {
        "measured_at": stamp(),
        "calls": calls,
        "latency_s": latency_s,
        "idle_mib": idle_mib,
        "rounds": rounds,
    }


def table(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown."""
    rows = [
        [str(number), f"{each['in_flight']:,}", f"{each['mib']:.0f}", f"{each['core']:.3f}"]
        for number, each in enumerate(result["rounds"], 1)
    ]
    most = max(each["mib"] for each in result["rounds"])
    core = max(each["core"] for each in result["rounds"])
    met = "yes" if most < MOST_MIB and core < MOST_CORE else "no"
    return "\n\n".join(
        (
            f"One pool process with {result['calls']:,} calls of {result['latency_s']:g} s in "
            f"flight; {result['idle_mib']:.0f} MiB before. Wanted: under {MOST_MIB:g} MB and "
            f"{MOST_CORE:g} of a core while they wait. Met: {met}.",
            markdown_table(("round", "in flight", "MiB", "cores while waiting"), rows),
        )
    )
