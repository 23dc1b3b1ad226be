"""Endpoints with moods: one that is steady, one that dies and comes back, one with a limit.

    python -m benchmarks.moody_endpoint BACK_AT_S

Each is an OpenAI-compatible address of its own. It prints where they are as a line of JSON. `POST
/begin` at the control address sets the clock to 0 and the counts too; `GET /report` tells what
came. The one that dies refuses connections while it is dead, and resets those that it has. The one
with a limit counts the calls of the last minute, and answers any beyond with 429 and Retry-After.
"""

import asyncio
import json
import signal
import sys
import time
from collections import Counter, deque
from typing import Any, Final

from aiohttp import web

LATENCY_S: Final = 0.06
DIES_AT_S: Final = 8.0
PER_MINUTE: Final = 120
MINUTE_S: Final = 60.0
NAMES: Final = ("steady", "dying", "limited")
HOST: Final = "127.0.0.1"


class Moody:
    """The endpoints of one run."""

    def __init__(self, back_at_s: float) -> None:
        self.back_at_s = back_at_s
        self.began = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.recent: deque[float] = deque()
        self.first_after: float | None = None
        self.ports: dict[str, int] = {}
        self._runner: web.AppRunner | None = None
        self._moods: asyncio.Task[None] | None = None

    def now(self) -> float:
        """Return the seconds since the begin."""
        return time.monotonic() - self.began

    async def complete(self, name: str, request: web.Request) -> web.Response:
        """Answer one call."""
        body = await request.json()
        at = self.now()
        if name == "limited":
            while self.recent and self.recent[0] <= at - MINUTE_S:
                self.recent.popleft()
            if len(self.recent) >= PER_MINUTE:
                self.counts["limited 429"] += 1
                wait_s = max(1, round(self.recent[0] + MINUTE_S - at + 0.5))
                error = {"message": "Rate limit reached.", "code": "rate_limit_exceeded"}
                headers = {"retry-after": str(wait_s)}
                return web.json_response({"error": error}, status=429, headers=headers)
            self.recent.append(at)
        await asyncio.sleep(LATENCY_S)
        self.counts[f"{name} answered"] += 1
        if name == "dying" and self.first_after is None and self.now() >= self.back_at_s:
            self.first_after = self.now()
        return web.json_response(answer(body.get("model", name)))

    async def open(self, name: str, port: int = 0) -> web.AppRunner:
        """Listen for one endpoint."""
        app = web.Application()

        async def handle(request: web.Request) -> web.Response:
            return await self.complete(name, request)

        app.router.add_post("/v1/chat/completions", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        site = web.TCPSite(runner, HOST, port, reuse_address=True)
        await site.start()
        self.ports[name] = runner.addresses[0][1]
        return runner

    async def begin(self, _: web.Request) -> web.Response:
        """Set the clock to 0."""
        self.began = time.monotonic()
        self.counts.clear()
        self.recent.clear()
        self.first_after = None
        self._moods = asyncio.create_task(self.moods())
        return web.json_response({})

    async def moods(self) -> None:
        """Let the one that dies die, and come back."""
        assert self._runner is not None
        await asyncio.sleep(DIES_AT_S)
        await self._runner.cleanup()
        await asyncio.sleep(self.back_at_s - DIES_AT_S)
        self._runner = await self.open("dying", self.ports["dying"])

    async def report(self, _: web.Request) -> web.Response:
        """Tell what came."""
        back = None if self.first_after is None else self.first_after - self.back_at_s
        return web.json_response({"counts": dict(self.counts), "recovery_s": back})

    async def serve(self) -> None:
        """Run until a signal."""
        runners = [await self.open(name) for name in NAMES if name != "dying"]
        self._runner = await self.open("dying")
        control = web.Application()
        control.router.add_post("/begin", self.begin)
        control.router.add_get("/report", self.report)
        runner = web.AppRunner(control)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        where = {name: f"http://{HOST}:{port}/v1" for name, port in self.ports.items()}
        where["control"] = f"http://{HOST}:{runner.addresses[0][1]}"
        print(json.dumps(where), flush=True)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        for each in (*runners, runner, self._runner):
            await each.cleanup()


def answer(model: str) -> dict[str, Any]:
    """Return a completion."""
    message = {"role": "assistant", "content": "A yard sorts wagons by where they go."}
    return {
        "id": "chatcmpl-moody",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
    }


if __name__ == "__main__":
    asyncio.run(Moody(float(sys.argv[1])).serve())
