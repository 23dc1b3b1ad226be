"""The least number of processes that holds a promise, found by simulating few of the many."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from producer.output import UsageError
from producer.plan_figures import Figures, StationFigures
from producer.plan_simulation import Simulation
from producer.plan_station import Station, Traffic

MOST: Final = 1024
"""More processes of one model than that are not tried."""

REQUESTS: Final = 20_000
MOST_REQUESTS: Final = 200_000
"""How many requests a run has at least and at most."""

FULL: Final = 0.95
"""No plan has processes that are busier: at the edge a queue is as long as luck has it."""

LATENCIES: Final = 20
WARM_UP: Final = 3
"""So many mean latencies are simulated, if that is not too much, and so many before it counts."""

SLO: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?)\s*<\s*(\S+)")
TIME: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
RATE: Final = re.compile(r"(\d+(?:\.\d+)?)/(s|m|min|h|d)")
UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Slo:
    """So many percent are answered within `limit_s`."""

    percent: float
    limit_s: float

    def holds(self, figures: Figures) -> bool:
        """Return whether it held."""
        return figures.percentile(self.percent) < self.limit_s


def slo(written: str) -> Slo:
    """Read `p95<60s`. Raises `UsageError`."""
    found = SLO.fullmatch(written.strip())
    if found is None or not 0 < float(found[1]) < 100:
        raise UsageError(f"{written!r} is no promise: write p95<60s or p99.9<800ms")
    return Slo(float(found[1]), time_s(found[2]))


def time_s(written: str) -> float:
    """Read a time such as 800ms, 8s or 2m, in seconds. Raises `UsageError`."""
    found = TIME.fullmatch(written.strip())
    if found is None or not 0 < float(found[1]) < math.inf:
        raise UsageError(f"{written!r} is no time: write 800ms, 8s, 2m or 1h")
    return float(found[1]) * UNITS_S[found[2]]


def rate_per_s(written: str) -> float:
    """Read a rate such as 50/s or 2000/h. Raises `UsageError`."""
    found = RATE.fullmatch(written.strip())
    if found is None or not 0 < float(found[1]) < math.inf:
        raise UsageError(f"{written!r} is no rate: write 50/s, 300/min, 2000/h or 1000000/d")
    return float(found[1]) / UNITS_S[found[2]]


@dataclass(frozen=True, slots=True)
class Found:
    """The least processes and what they do; with `ok` False nothing holds, not even the most."""

    ok: bool
    processes: tuple[int, ...]
    figures: Figures


def least(stations: Sequence[Station], traffic: Traffic, slo: Slo, *, seed: int = 0) -> Found:
    """Return the least processes of each model, the first model's first.

    First all but one model have as many as could be of use, so that each model gets as few as it
    can do with; who comes later makes up for what the first leave of the promise.
    """
    requests, warm_up = length(stations, traffic)

    def figures(processes: Sequence[int]) -> Figures:
        run = Simulation(
            stations, processes, traffic, requests=requests, warm_up=warm_up, seed=seed
        )
        return run.run()

    chosen = [MOST] * len(stations)
    best = figures(chosen)
    if not slo.holds(best):
        return Found(False, tuple(chosen), best)
    floors = [
        floor(station, traffic, each) for station, each in zip(stations, best.stations, strict=True)
    ]
    if max(floors) > MOST:
        return Found(False, tuple(chosen), best)
    for at, lowest in enumerate(floors):
        # Below `low` nothing holds, `high` does.
        low, high, step = lowest - 1, lowest, 1
        while high < MOST:
            tried = figures([*chosen[:at], high, *chosen[at + 1 :]])
            if slo.holds(tried):
                best = tried
                break
            low, high, step = high, min(MOST, high + step), 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            tried = figures([*chosen[:at], middle, *chosen[at + 1 :]])
            if slo.holds(tried):
                high, best = middle, tried
            else:
                low = middle
        chosen[at] = high
    return Found(True, tuple(chosen), best)


def length(stations: Sequence[Station], traffic: Traffic) -> tuple[int, int]:
    """Return how many requests to simulate, and how many of them before it counts."""
    latency_s = max(station.latency.mean_s for station in stations)
    in_flight = traffic.rate_per_s * latency_s
    requests = int(min(MOST_REQUESTS, max(REQUESTS, LATENCIES * in_flight)))
    warm_up = math.ceil(min(requests, WARM_UP * in_flight))
    return requests, min(requests // 2, max(requests // 10, warm_up))


def floor(station: Station, traffic: Traffic, ample: StationFigures) -> int:
    """Return how many processes can't be done without for a load that goes on for ever.

    A run has an end, and hides a queue that grows slowly. `ample`: what came with more than enough.
    """
    load = traffic.rate_per_s * ample.taken / FULL
    return max(1, math.ceil(max(load * ample.held_s / station.concurrency, load * station.cpu_s)))
