"""The storms as data: which faults come how often, and what is asked meanwhile."""

import random
from dataclasses import dataclass
from typing import Final, Literal

Action = Literal[
    "kill",
    "stop",
    "roll",
    "redis-kill",
    "redis-kill-everysec",
    "redis-power",
    "redis-stop",
    "redis-refuse",
    "reset",
    "stall",
    "down",
    "hang",
    "500",
    "429",
    "garbage",
    "half",
    "inject",
    "submitter",
]

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Recurring:
    """A fault that comes again `every_s`, for so many seconds or leases; both drawn evenly.

    `target` is a role of workers, or a model at the endpoint.
    """

    action: Action
    every_s: Span
    target: str = "any"
    for_s: Span = (0.0, 0.0)
    for_leases: Span = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Storm:
    """A storm. `takeover` and `flat`: what the long run holds it to beside losing nothing.
    `strategies`: its plans ask several models, which the peer has nothing like.

    An answer takes a time drawn from an exponential distribution of `mean_s`, at most `cap_s`.
    """

    name: str
    about: str
    faults: tuple[Recurring, ...] = ()
    fsync: Literal["always", "everysec"] = "always"
    proxy: bool = False
    crash_every: int = 0
    sleep_every: int = 0
    sleep_leases: float = 0.0
    mean_s: float = 0.3
    cap_s: float = 1.5
    takeover: bool = False
    flat: bool = False
    at_once: bool = False
    chunk: int = 20
    strategies: bool = False


@dataclass(frozen=True, slots=True)
class Cue:
    """A fault at a time after the begin, in seconds."""

    at_s: float
    action: Action
    target: str
    for_s: float


OFTEN: Final = (1.5, 3.5)
NOW_AND_THEN: Final = (5.0, 9.0)
RARELY: Final = (10.0, 16.0)

STORMS: Final = (
    Storm("calm", "no faults; all submitted at once, an endpoint without latency",
          mean_s=0.0, cap_s=0.0, flat=True, at_once=True, chunk=200),
    Storm("long-calls", "no faults; every 20th call takes 5 leases",
          sleep_every=20, sleep_leases=5.0),
    Storm("kill-workers", "SIGKILL of a random router or pool process every few seconds",
          (Recurring("kill", OFTEN),), takeover=True),
    Storm("strategies", "cascades and ensembles, with and without a judge; workers are killed and "
          "stopped, connections reset",
          (Recurring("kill", OFTEN), Recurring("stop", RARELY, for_leases=(1.5, 2.5)),
           Recurring("reset", NOW_AND_THEN), Recurring("500", NOW_AND_THEN, "*", for_s=(0.3, 1.0))),
          proxy=True, strategies=True),
    Storm("zombies", "SIGSTOP of a pool process for 1.5 to 3 leases, then SIGCONT",
          (Recurring("stop", (3.0, 6.0), "pool", for_leases=(1.5, 3.0)),)),
    Storm("zombie-routers", "the same of a router",
          (Recurring("stop", (3.0, 6.0), "router", for_leases=(1.5, 3.0)),)),
    Storm("redis-kill", "SIGKILL of Redis with `appendfsync always`, back after 0.2 to 3 s",
          (Recurring("redis-kill", NOW_AND_THEN, for_s=(0.2, 3.0)),)),
    Storm("redis-kill-everysec", "the same with `appendfsync everysec`",
          (Recurring("redis-kill-everysec", NOW_AND_THEN, for_s=(0.2, 3.0)),), fsync="everysec"),
    Storm("redis-power", "Redis's machine stops: `everysec`, the last second of the log is gone",
          (Recurring("redis-power", RARELY, for_s=(0.2, 2.0)),), fsync="everysec"),
    Storm("redis-stop", "SIGSTOP of Redis for 1 to 6 s",
          (Recurring("redis-stop", NOW_AND_THEN, for_s=(1.0, 6.0)),)),
    Storm("redis-refuses", "Redis is out of memory for 1 to 3 s: it refuses writes",
          (Recurring("redis-refuse", NOW_AND_THEN, for_s=(1.0, 3.0)),)),
    Storm("resets", "all connections to Redis are reset, or hang for 0.5 to 3 s",
          (Recurring("reset", OFTEN), Recurring("stall", NOW_AND_THEN, for_s=(0.5, 3.0))),
          proxy=True),
    Storm("endpoint", "the endpoint is down, hangs, answers 500, 429, garbage or half a body",
          (Recurring("down", NOW_AND_THEN, for_s=(0.3, 2.0)),
           Recurring("hang", NOW_AND_THEN, "small", for_s=(0.3, 1.0)),
           Recurring("500", NOW_AND_THEN, "*", for_s=(0.3, 2.0)),
           Recurring("429", NOW_AND_THEN, "*", for_s=(0.3, 2.0)),
           Recurring("garbage", NOW_AND_THEN, "small", for_s=(0.3, 2.0)),
           Recurring("half", NOW_AND_THEN, "small", for_s=(0.3, 2.0)))),
    Storm("malformed", "garbage and messages of wrong types in the queue of requests",
          (Recurring("inject", (0.5, 1.5)),)),
    Storm("crashing", "a few requests crash the process that calls for them",
          crash_every=400),
    Storm("producer", "the producer is killed in the middle of `submit_many`, and goes on",
          (Recurring("submitter", (1.0, 2.5)),), chunk=100),
    Storm("rolling", "rolling restarts (SIGTERM) of all workers under load",
          (Recurring("roll", (3.0, 5.0)),)),
    Storm("mixed", "all of it at once",
          (Recurring("kill", NOW_AND_THEN),
           Recurring("stop", RARELY, for_leases=(1.5, 2.5)),
           Recurring("redis-kill", RARELY, for_s=(0.2, 2.0)),
           Recurring("redis-stop", RARELY, for_s=(0.5, 2.0)),
           Recurring("redis-refuse", RARELY, for_s=(0.5, 1.5)),
           Recurring("reset", NOW_AND_THEN),
           Recurring("stall", RARELY, for_s=(0.5, 1.5)),
           Recurring("down", RARELY, for_s=(0.3, 1.0)),
           Recurring("hang", RARELY, "small", for_s=(0.3, 0.6)),
           Recurring("500", RARELY, "*", for_s=(0.3, 1.0)),
           Recurring("429", RARELY, "*", for_s=(0.3, 1.0)),
           Recurring("garbage", RARELY, "small", for_s=(0.3, 1.0)),
           Recurring("half", RARELY, "small", for_s=(0.3, 1.0)),
           Recurring("inject", NOW_AND_THEN),
           Recurring("submitter", RARELY),
           Recurring("roll", RARELY, "pool"),
           Recurring("roll", RARELY, "router")),
          proxy=True, crash_every=1000),
)  # fmt: skip

BY_NAME: Final = {storm.name: storm for storm in STORMS}


def schedule(storm: Storm, seconds: float, lease_s: float, seed: int) -> tuple[Cue, ...]:
    """Return the faults of a storm of this length. Each fault of it comes once at least."""
    rng = random.Random(f"{storm.name}:{seed}")
    cues: list[Cue] = []
    for fault in storm.faults:
        times = []
        at = rng.uniform(0.3, 1.0) * fault.every_s[0]
        while at < seconds:
            times.append(at)
            at += rng.uniform(*fault.every_s)
        for at in times or [rng.uniform(0.1, 0.8) * seconds]:
            for_s = rng.uniform(*fault.for_s) + lease_s * rng.uniform(*fault.for_leases)
            cues.append(Cue(at, fault.action, fault.target, for_s))
    return tuple(sorted(cues, key=lambda cue: cue.at_s))
