"""Arrivals that do not wait for answers: when each is due, and what came of them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from queue import Empty, SimpleQueue


def arrivals(rate_per_s: float, seconds: float, rng: random.Random) -> list[float]:
    """Return the times of a Poisson process within `seconds`, in seconds from its begin."""
    times: list[float] = []
    at = rng.expovariate(rate_per_s)
    while at < seconds:
        times.append(at)
        at += rng.expovariate(rate_per_s)
    return times


def paced(
    at_s: Sequence[float],
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[float]:
    """Yield each time at which something is due, by `clock`, when it has come.

    Whoever is late is told the time that was planned: a wait before the submit counts as well.
    """
    began = clock()
    for at in at_s:
        if (pause_s := began + at - clock()) > 0:
            sleep(pause_s)
        yield began + at


def gathered(
    ended: "SimpleQueue[float]",
    count: int,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> list[float]:
    """Return `count` values that others put there. Raises `TimeoutError`."""
    values: list[float] = []
    deadline = clock() + timeout_s
    while len(values) < count:
        try:
            values.append(ended.get(timeout=max(0.0, deadline - clock())))
        except Empty:
            raise TimeoutError(
                f"{len(values)} of {count} requests were answered within {timeout_s:g} s"
            ) from None
    return values


async def paced_on_loop(
    at_s: Sequence[float], clock: Callable[[], float] = time.perf_counter
) -> AsyncIterator[float]:
    """Yield as `paced` does, without holding up the event loop."""
    began = clock()
    for at in at_s:
        # At least one turn of the loop, for what was begun before.
        await asyncio.sleep(max(0.0, began + at - clock()))
        yield began + at
