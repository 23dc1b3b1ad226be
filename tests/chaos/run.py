"""One storm over the grounds: what is due is done, until all is quiet; then the logs are read."""

import time
from dataclasses import dataclass, field
from typing import Final

import redis

from chaos import cue
from chaos import truth as redis_truth
from chaos.evidence import (
    Evidence,
    Outcome,
    read_executions,
    read_faults,
    read_memory,
    read_outcomes,
    read_submits,
)
from chaos.grounds import Grounds
from chaos.journal import Entry, Journal, Tail, now, read
from chaos.load import Load
from chaos.storms import Storm
from chaos.weather import Weather

TICK_S: Final = 0.02
SHORT_TICK_S: Final = 0.001
"""While the submitter is watched, to be killed in the middle of a submit."""
LOOK_S: Final = 0.5
LATE: Final = 5
"""A storm that lasts so many times longer than it should is over."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When all is as quiet as it gets: after so long without progress, or in all, in seconds.

    `empty_s` is enough where no message is left and all outcomes were heard: what is open then is
    lost.
    """

    without_progress_s: float = 30.0
    empty_s: float = 6.0
    in_all_s: float = 600.0

    def enough_s(self, *, empty: bool) -> float:
        """Return how long to wait for something to move, in seconds."""
        return min(self.empty_s, self.without_progress_s) if empty else self.without_progress_s


@dataclass
class Progress:
    """What the settling storm has come to: ids that are open, and what moves."""

    submits: Tail
    outcomes: Tail
    wanted: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)
    nobody_waits: set[str] = field(default_factory=set)
    left: int = 1

    def look(self, store: redis.Redis, prefix: str) -> tuple[int, int]:
        """Read on, and return numbers that grow as long as something moves."""
        for entry in self.submits.entries():
            if entry["kind"] == "submit":
                self.wanted.update(id for id in entry["ids"] if id.startswith(prefix))
        # The whole of what is open is read only when nothing was heard: it may be a lot.
        silent = not self.listen()
        open_ids = self.wanted - self.ended if silent else self.wanted & self.heard
        for outcome in redis_truth.results(store, open_ids - self.ended):
            self.ended.add(outcome.id)
        if silent:
            queued, claimed, unknown = redis_truth.under_way(store, prefix)
            self.left = len(queued) + len(claimed) + unknown
        return len(self.ended), len(self.heard)

    def listen(self) -> int:
        """Read what the waiter was told, and return how many outcomes are new."""
        before = len(self.heard)
        self.heard.update(entry["id"] for entry in self.outcomes.entries() if "id" in entry)
        return len(self.heard) - before

    @property
    def told(self) -> bool:
        """Whether all have an outcome, and whoever waits for it knows."""
        return self.wanted <= self.ended and self.wanted - self.nobody_waits <= self.heard

    @property
    def empty(self) -> bool:
        """Whether no message is left, and nobody is to be told of an outcome."""
        return self.left == 0 and self.ended - self.nobody_waits <= self.heard

    @property
    def quiet(self) -> bool:
        """Whether nothing is left to be done."""
        return self.told and self.left == 0


def run_storm(
    grounds: Grounds, storm: Storm, load: Load, *, seed: int, seconds: float, patience: Patience
) -> Evidence:
    """Run a storm of so many seconds, wait until all is quiet, and return the evidence."""
    grounds.redis.use_fsync(storm.fsync)
    latency = {"mean_s": storm.mean_s, "cap_s": storm.cap_s, "seed": seed}
    cue.give(grounds.endpoint, **latency)
    weather = Weather(grounds, storm, load, seed, seconds)
    memory = Journal(grounds.path("memory"))
    progress = Progress(Tail(grounds.path("submits")), Tail(grounds.path("outcomes")))
    progress.nobody_waits = weather.injected
    look_at = moved_at = now()
    over_at: float | None = None
    moved = 0, 0
    try:
        while True:
            weather.tick()
            time.sleep(TICK_S if not weather.armed else SHORT_TICK_S)
            if now() < look_at:
                continue
            look_at = now() + LOOK_S
            sample_memory(grounds, memory, len(progress.heard))
            over_at = None if not weather.over else over_at or now()
            if over_at is None:
                moved_at = now()
                progress.listen()
                if moved_at > weather.start_at + LATE * seconds + patience.in_all_s:
                    break  # it can't even be submitted
                continue
            try:
                where = progress.look(grounds.store, load.prefix)
            except (redis.RedisError, OSError):
                continue  # it is slow to come back
            if progress.quiet:
                break
            if where != moved:
                moved, moved_at = where, now()
            if now() - moved_at > patience.enough_s(empty=progress.empty):
                break
            if now() - over_at > patience.in_all_s:
                break
    finally:
        weather.close()
        memory.close()
    return evidence(grounds, load, progress, weather.start_at)


def sample_memory(grounds: Grounds, journal: Journal, outcomes: int) -> None:
    """Log the memory of each worker process."""
    for slot in grounds.fleet.slots:
        if (mib := slot.rss_mib()) is not None:
            journal.write(kind="memory", worker=slot.instance, outcomes=outcomes, mib=mib)


def evidence(grounds: Grounds, load: Load, progress: Progress, since: float) -> Evidence:
    """Return what the logs and Redis say about a storm that began at `since`."""

    def own(entries: list[Entry]) -> list[Entry]:
        return [entry for entry in entries if entry["at"] >= since]

    submitted, accepted = read_submits(own(read(grounds.path("submits"))))
    every = read_executions(read(grounds.path("calls")), apart=load.strategies)
    calls = [call for call in every if call.id in submitted]

    def outcomes(log: str) -> tuple[Outcome, ...]:
        found = read_outcomes(own(read(grounds.path(log))))
        return tuple(outcome for outcome in found if outcome.id in submitted)

    return Evidence(
        submitted=submitted,
        accepted=accepted,
        executions=tuple(calls),
        heard=outcomes("outcomes"),
        published=outcomes("published"),
        faults=read_faults(own(read(grounds.path("faults"))), now()),
        truth=redis_truth.truth(grounds.store, submitted, load.prefix),
        lease_s=grounds.lease_s,
        nobody_waits=frozenset(progress.nobody_waits),
        memory=read_memory(own(read(grounds.path("memory")))),
    )
