"""How many processes a model's pool should have: pure functions on what waits and what is called.

A pool grows at once and shrinks late. How many are needed follows from the load alone and not from
how many there are, so that processes which are still starting make nobody start more.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

CPU_PER_S: Final = 1500.0
"""So many requests a second pass through one process, however short their calls: performance.md."""

SPARE: Final = 0.8
"""A pool shrinks only to so many processes that the load fills this part of them at most."""

STARTS_S: Final = 5.0
"""About what a process takes to start: so long before a deadline it has to be asked for."""

BUSY: Final = 0.5
"""A pool that is less full than this is not held up by its size, but by a quota or an endpoint."""


@dataclass(frozen=True, slots=True)
class Due:
    """A request that waits and is to be called within `in_s` seconds. `requests`: it and all that
    are taken before it.
    """

    requests: int
    in_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """What waits for a model in both lanes and since when, and its calls in flight.

    `due`: those of what waits that are known to have deadlines; not all of them need be known.
    """

    queued: int
    in_flight: int
    oldest_age_s: float | None = None
    due: tuple[Due, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """What a pool is sized by.

    `concurrency`: calls in flight per process; `latency_s`: what a call takes; `wait_s`: nothing
    should wait longer in the queue. After `cooldown_s` with less to do a pool shrinks.
    """

    concurrency: int
    latency_s: float = 1.0
    wait_s: float = 10.0
    at_least: int = 1
    at_most: int = 1
    cooldown_s: float = 30.0


@dataclass(frozen=True, slots=True)
class State:
    """A pool of so many `processes`, its load, and what it needed lately: `peaks`, by when.

    Of the peaks only those are kept that no later one is as high as.
    """

    rule: Rule
    processes: int
    load: Load = Load(0, 0)
    peaks: tuple[tuple[float, int], ...] = ()


def needed(load: Load, rule: Rule, fill: float = 1.0) -> int:
    """Return how many processes take this load when it fills a part `fill` of them.

    What is called stays. What waits needs as many more places as end it within `wait_s`, and a
    place for each request where that is over already or shorter than a call. What has a deadline
    needs as many as call it before that, by processes that have to start first.
    """
    late = load.oldest_age_s is not None and load.oldest_age_s >= rule.wait_s
    goals = [(load.queued, 0.0 if late else rule.wait_s)]
    # Nothing is called after its deadline, so nobody is needed for it.
    goals += [(due.requests, due.in_s - STARTS_S) for due in load.due if due.in_s > 0.0]
    more = max(places(requests, within_s, rule.latency_s) for requests, within_s in goals)
    by_place = math.ceil((load.in_flight + more) / (fill * rule.concurrency))
    passing = [(load.queued, rule.wait_s), *goals[1:]]
    by_cpu = max(
        math.ceil(requests / (fill * CPU_PER_S * within_s)) if within_s > 0.0 else 0
        for requests, within_s in passing
    )
    return clamp(max(by_place, by_cpu), rule)


def places(requests: int, within_s: float, latency_s: float) -> int:
    """Return how many calls at a time, of `latency_s` each, begin the last of them in time."""
    if within_s <= latency_s:
        return requests
    return math.ceil(requests * latency_s / within_s)


def bounded(load: Load, rule: Rule, processes: int) -> int:
    """Return how many are needed, but no more than there are while these have room left."""
    found = needed(load, rule)
    idle = processes > 0 and load.in_flight < BUSY * processes * rule.concurrency
    return min(found, clamp(processes, rule)) if idle else found


def wanted(state: State, now: float) -> int:
    """Return how many processes there should be, from `at_least` to `at_most`."""
    rule, processes = state.rule, state.processes
    need = bounded(state.load, rule, processes)
    if need >= processes:
        return need
    recent = [peak for at, peak in state.peaks if now - at < rule.cooldown_s]
    keep = max([need, needed(state.load, rule, SPARE), *recent])
    return clamp(min(keep, processes), rule)


def begun(rule: Rule, processes: int, now: float) -> State:
    """Return the state of a pool that was just started."""
    return State(rule, processes, peaks=((now, processes),))


def seen(state: State, load: Load, now: float) -> State:
    """Return the state with the load that was seen now."""
    peak = needed(load, state.rule, SPARE)
    # An idle pool that is held up by a quota would keep what it never uses.
    peak = min(peak, max(state.processes, bounded(load, state.rule, state.processes)))
    return replace(state, load=load, peaks=_with(state, peak, now))


def resized(state: State, processes: int, now: float) -> State:
    """Return the state of a pool that has so many processes now."""
    if processes <= state.processes:
        return replace(state, processes=processes)
    return replace(state, processes=processes, peaks=_with(state, processes, now))


def clamp(processes: int, rule: Rule) -> int:
    """Return the nearest number that the rule allows."""
    return max(rule.at_least, min(rule.at_most, processes))


def _with(state: State, peak: int, now: float) -> tuple[tuple[float, int], ...]:
    recent = now - state.rule.cooldown_s
    kept = ((at, each) for at, each in state.peaks if each > peak and at > recent)
    return (*kept, (now, peak))
