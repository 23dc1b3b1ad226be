"""A Celery app for the tests of the pool: tasks that sleep, fail, count and refuse to end."""

import asyncio
import os
import time
from pathlib import Path

from model_workers.coroutine_task import CoroutineTask
from modelyard.app import make_app

app = make_app(
    "pool_app",
    worker_pool="model_workers.pool:AsyncioPool",
    worker_concurrency=10,
    modelyard_shutdown_grace_s=float(os.environ.get("GRACE_S", "30")),
)
running = 0
most = 0


@app.task(name="sleep", base=CoroutineTask)
async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"slept {seconds}"


@app.task(name="whoami", base=CoroutineTask, bind=True)
async def whoami(self: CoroutineTask, seconds: float) -> str:
    before = self.request.id
    await asyncio.sleep(seconds)
    assert before == self.request.id
    return str(before)


@app.task(name="mark", base=CoroutineTask)
async def mark(path: str, seconds: float) -> str:
    """Write a line when it starts and one when it ends, however it ends."""
    log = Path(path)
    with log.open("a") as lines:
        lines.write("start\n")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        with log.open("a") as lines:
            lines.write("cancelled\n")
        raise
    with log.open("a") as lines:
        lines.write("end\n")
    return "done"


@app.task(name="stubborn", base=CoroutineTask)
async def stubborn() -> str:
    """Ignore every cancellation."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue
    return "never"


@app.task(name="saves_itself", base=CoroutineTask)
async def saves_itself() -> str:
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        return "cleaned up"
    return "never"


@app.task(name="count", base=CoroutineTask)
async def count() -> int:
    """Return the most of these that ran at a time so far."""
    global running, most  # noqa: PLW0603
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.05)
    running -= 1
    return most


@app.task(name="ticks", base=CoroutineTask)
async def ticks(seconds: float) -> float:
    """Return the longest that the loop made this wait over its 10 ms, in seconds."""
    longest = 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before - 0.01)
    return longest


@app.task(name="fails", base=CoroutineTask)
async def fails() -> None:
    raise ValueError("as it was told to")


@app.task(name="leaks_cancellation", base=CoroutineTask)
async def leaks_cancellation() -> None:
    raise asyncio.CancelledError


@app.task(name="plain")
def plain(number: int) -> int:
    return number + 1
