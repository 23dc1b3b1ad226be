"""A model in a simulation, what comes to it, and what waits there. Times are in seconds."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from modelyard.catalog import Breaker, Retry
from modelyard.messages import Attempt
from modelyard.shares import Shares
from producer.plan_endpoints import Place, Posts, Weather, posts_of
from producer.plan_latency import Latency
from producer.plan_policies import Quotas

CPU_S: Final = 1 / 1500
"""What a request takes of a process, which has one interpreter: docs/performance.md."""

YARD_S: Final = 0.005
"""What the way through client, router and pool adds to a call: docs/performance.md."""

SAMPLES: Final = 200
"""A model none of so many calls of which takes longer than it may is not watched for it."""

INTERACTIVE, BATCH = "interactive", "batch"


@dataclass(frozen=True, slots=True)
class Station:
    """A model: its processes, and how its calls go. `weather`: how its endpoints do, each or all.

    `escalates`: the share of its answers that are not accepted, and go on to the next model.
    `quotas` makes new ones, as a simulation uses them up.
    """

    name: str
    concurrency: int
    latency: Latency
    retry: Retry = field(default_factory=Retry)
    timeout_s: float = math.inf
    weather: Sequence[Weather] = ()
    escalates: float = 0.0
    quotas: Callable[[], Quotas] = Quotas
    cpu_s: float = CPU_S
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def fails(self) -> bool:
        """Whether any call may fail."""
        if any(each.failures or each.limit_per_min is not None for each in self.weather):
            return True
        if self.timeout_s == math.inf:
            return False
        rng = Random(f"{self.name}:timeouts")  # noqa: S311 - a simulation has no secret
        return any(self.latency.draw(rng) > self.timeout_s for _ in range(SAMPLES))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What arrives. `tokens`: of one call, both ways; `batch`: the share of the batch lane."""

    rate_per_s: float
    tokens: int = 0
    batch: float = 0.0
    batch_share: float = 0.2
    yard_s: float = YARD_S


@dataclass(slots=True)
class Process:
    """A worker process, and how many more calls it has room for."""

    free: int
    cpu_free_at: float = 0.0


@dataclass(slots=True)
class Running:
    """A request, and where it is."""

    number: int
    submitted: float
    batch: bool
    step: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    queued_at: float = 0.0
    taken_at: float = 0.0
    placing_at: float = 0.0
    avoid: int = -1
    process: Process | None = None
    place: Place | None = None
    failure: Attempt | None = None
    drafted: bool = False


@dataclass(slots=True)
class State:
    """A model as it is now. `posts` is None where nothing can keep a call from being made."""

    station: Station
    quotas: Quotas
    posts: Posts | None
    roomy: deque[Process]
    shares: Shares
    lanes: dict[str, deque[Running]] = field(
        default_factory=lambda: {INTERACTIVE: deque(), BATCH: deque()}
    )
    paused_until: dict[str, float] = field(default_factory=lambda: {INTERACTIVE: 0.0, BATCH: 0.0})
    calls: int = 0
    limited: int = 0
    answers: int = 0
    drafts: int = 0
    held_s: float = 0.0
    called_s: float = 0.0
    stays_s: float = 0.0
    stays: int = 0
    waited_s: float = 0.0
    taken: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    @classmethod
    def of(cls, station: Station, processes: int, batch_share: float) -> "State":
        """Return a model with so many processes that has nothing to do."""
        quotas = station.quotas()
        guarded = quotas.limited or station.fails
        return cls(
            station,
            quotas,
            posts_of(quotas, station.breaker, station.weather) if guarded else None,
            deque(Process(station.concurrency) for _ in range(processes)),
            Shares({INTERACTIVE: 1.0 - batch_share, BATCH: batch_share}),
        )

    def next(self, now: float) -> Running | None:
        """Take the request whose turn it is: the lanes share a process as a worker shares them."""
        lanes = [
            lane for lane, some in self.lanes.items() if some and self.paused_until[lane] <= now
        ]
        if not lanes:
            return None
        lane = lanes[0]
        if len(lanes) > 1:
            wants = self.shares.wants(lanes, 1)
            lane = next(want.queue for want in wants if want.share)
            self.shares.took(wants, {lane: 1})
        return self.lanes[lane].popleft()
