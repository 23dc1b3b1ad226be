"""How many processes hold a promise: the yard as a discrete-event simulation.

Requests arrive at random moments (a Poisson process), wait in the queue of their model, are called
for by a process that has room, and come again or go on when the call fails. Nothing is measured
here and nothing is called: the same input gives the same output, whatever the machine.

It leaves out what only outages make: breakers, Retry-After, deadlines. Times are in seconds.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Final

from modelyard.catalog import Retry
from modelyard.shares import Shares
from producer.plan_figures import Figures, StationFigures, Use
from producer.plan_latency import Latency
from producer.plan_policies import (
    LONGEST_HELD_S,
    LONGEST_PAUSE_S,
    End,
    Quotas,
    Scopes,
    after_failure,
)

CPU_S: Final = 1 / 1500
"""What a request takes of a process, which has one interpreter: docs/performance.md."""

YARD_S: Final = 0.005
"""What the way through client, router and pool adds to a call: docs/performance.md."""

HOPELESS: Final = 20_000
"""With so many more in the queues than at the begin, they do not get empty any more."""

INTERACTIVE, BATCH = "interactive", "batch"


@dataclass(frozen=True, slots=True)
class Station:
    """A model: its processes, and how its calls go. `failures`: the share of calls that fail.

    `quotas` makes new ones, as a simulation uses them up.
    """

    name: str
    concurrency: int
    latency: Latency
    retry: Retry = field(default_factory=Retry)
    timeout_s: float = math.inf
    failures: float = 0.0
    quotas: Callable[[], Quotas] = Quotas
    cpu_s: float = CPU_S


@dataclass(frozen=True, slots=True)
class Traffic:
    """What arrives. `tokens`: of one call, both ways; `batch`: the share of the batch lane."""

    rate_per_s: float
    tokens: int = 0
    batch: float = 0.0
    batch_share: float = 0.2
    yard_s: float = YARD_S


@dataclass(slots=True)
class _Process:
    free: int
    cpu_free_at: float = 0.0


@dataclass(slots=True)
class _Request:
    number: int
    submitted: float
    batch: bool
    step: int = 0
    calls: int = 0
    queued_at: float = 0.0
    taken_at: float = 0.0
    process: _Process | None = None
    scopes: Scopes = ()
    failed: bool = False


@dataclass(slots=True)
class _State:
    station: Station
    quotas: Quotas
    roomy: deque[_Process]
    shares: Shares
    lanes: dict[str, deque[_Request]] = field(
        default_factory=lambda: {INTERACTIVE: deque(), BATCH: deque()}
    )
    paused_until: dict[str, float] = field(default_factory=lambda: {INTERACTIVE: 0.0, BATCH: 0.0})
    calls: int = 0
    answers: int = 0
    held_s: float = 0.0
    called_s: float = 0.0
    stays_s: float = 0.0
    stays: int = 0
    waited_s: float = 0.0
    taken: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    def next(self, now: float) -> _Request | None:
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


class Simulation:
    """One run: `requests` arrive, the first `warm_up` of which are not counted."""

    def __init__(
        self,
        stations: Sequence[Station],
        processes: Sequence[int],
        traffic: Traffic,
        *,
        requests: int,
        warm_up: int,
        seed: int = 0,
    ) -> None:
        weights = {INTERACTIVE: 1.0 - traffic.batch_share, BATCH: traffic.batch_share}
        self._states = [
            _State(
                station,
                station.quotas(),
                deque(_Process(station.concurrency) for _ in range(some)),
                Shares(weights),
            )
            for station, some in zip(stations, processes, strict=True)
        ]
        self._processes = tuple(processes)
        self._traffic = traffic
        self._requests, self._warm_up = requests, warm_up
        # Streams of their own: with more processes the same requests come at the same moments.
        self._arrivals = Random(f"{seed}:arrivals")  # noqa: S311 - a simulation has no secret
        self._latencies = Random(f"{seed}:latencies")  # noqa: S311
        self._failures = Random(f"{seed}:failures")  # noqa: S311
        self._events: list[tuple[float, int, Callable[[float, _Request], None], _Request]] = []
        self._numbers = count()
        self._times: list[float] = []
        self._interactive: list[float] = []
        self._from = self._until = 0.0

    def run(self) -> Figures:
        """Return what comes out."""
        now, hopeless = 0.0, False
        submitted = 0
        self._later(self._gap(), self._arrive, self._new(0))
        self._from, self._until = math.inf, math.inf
        while self._events:
            now, _, what, request = heappop(self._events)
            if what == self._arrive:
                submitted += 1
                if submitted == self._warm_up + 1:
                    self._from = now
                if submitted < self._requests:
                    self._later(now + self._gap(), self._arrive, self._new(submitted))
                else:
                    self._until = now
                if submitted % 1000 == 0 and sum(map(len, self._states)) > HOPELESS:
                    hopeless, self._until = True, now
                    break
            what(now, request)
        self._times.sort()
        self._interactive.sort()
        return Figures(
            self._times,
            self._interactive,
            tuple(map(self._figures, self._states, self._processes)),
            hopeless,
        )

    # -- what happens

    def _new(self, number: int) -> _Request:
        batch = self._traffic.batch > 0 and self._arrivals.random() < self._traffic.batch
        return _Request(number, 0.0, batch)

    def _gap(self) -> float:
        return self._arrivals.expovariate(self._traffic.rate_per_s)

    def _later(self, at: float, what: Callable[[float, _Request], None], who: _Request) -> None:
        heappush(self._events, (at, next(self._numbers), what, who))

    def _arrive(self, now: float, request: _Request) -> None:
        request.submitted = now
        self._queue(now, request)

    def _queue(self, now: float, request: _Request) -> None:
        state = self._states[request.step]
        request.queued_at = now
        state.lanes[BATCH if request.batch else INTERACTIVE].append(request)
        self._dispatch(now, state)

    def _dispatch(self, now: float, state: _State) -> None:
        """Give waiting requests to processes that have room, in turns."""
        while state.roomy and (request := state.next(now)) is not None:
            process = state.roomy.popleft()
            process.free -= 1
            if process.free:
                state.roomy.append(process)
            request.process, request.taken_at = process, now
            if request.number >= self._warm_up:
                state.waited_s += now - request.queued_at
                state.taken += 1
            begin = max(now, process.cpu_free_at) + state.station.cpu_s
            process.cpu_free_at = begin
            if state.quotas.limited:
                self._later(begin, self._call, request)
            else:
                self._call(begin, request)

    def _call(self, now: float, request: _Request) -> None:
        state = self._states[request.step]
        station = state.station
        wait_s = 0.0
        if state.quotas.limited:
            scopes, wait_s = state.quotas.take(self._traffic.tokens, now, batch=request.batch)
            if scopes is None:
                self._held(now, request, wait_s)
                return
            request.scopes = scopes
        took_s = station.latency.draw(self._latencies)
        request.failed = took_s > station.timeout_s or (
            station.failures > 0 and self._failures.random() < station.failures
        )
        took_s = min(took_s, station.timeout_s)
        request.calls += 1
        if request.number >= self._warm_up:
            state.calls += 1
            state.called_s += took_s
        self._later(now + wait_s + took_s, self._end, request)

    def _held(self, now: float, request: _Request, wait_s: float) -> None:
        """No endpoint takes the call now: see `model_workers.advance.held`."""
        state = self._states[request.step]
        # Who is waited for counts all of its wait, a batch only this one.
        so_far_s = 0.0 if request.batch else now - request.submitted
        if self._has_next(request) and so_far_s + wait_s > state.station.retry.patience_s:
            self._go_on(now, request)
        elif wait_s <= LONGEST_HELD_S:
            self._later(now + wait_s, self._call, request)
        else:
            # To the head of its queue. All processes pause, not only this one: the others would
            # be told the same.
            lane = BATCH if request.batch else INTERACTIVE
            state.lanes[lane].appendleft(request)
            request.queued_at = now
            until = max(state.paused_until[lane], now + min(wait_s, LONGEST_PAUSE_S))
            if until > state.paused_until[lane]:
                state.paused_until[lane] = until
                self._later(until, self._resume, request)
            self._release(now, request, state)

    def _resume(self, now: float, request: _Request) -> None:
        # By then the request itself may be at another model.
        for state in self._states:
            self._dispatch(now, state)

    def _end(self, now: float, request: _Request) -> None:
        state = self._states[request.step]
        for scope in request.scopes:
            scope.in_flight -= 1
        request.scopes = ()
        if not request.failed:
            if request.number >= self._warm_up:
                state.answers += 1
            self._finish(request, now - request.submitted + self._traffic.yard_s)
            self._release(now, request, state)
            return
        move = after_failure(
            request.calls,
            state.station.retry,
            self._failures.random(),
            has_next=self._has_next(request),
            elsewhere=len(state.quotas.endpoints) > 1,
        )
        if move is End.NEXT:
            self._go_on(now, request)
        elif isinstance(move, End):
            self._finish(request, math.inf)
            self._release(now, request, state)
        else:
            self._later(now + move, self._call, request)

    def _has_next(self, request: _Request) -> bool:
        return request.step + 1 < len(self._states)

    def _go_on(self, now: float, request: _Request) -> None:
        state = self._states[request.step]
        self._release(now, request, state)
        request.step += 1
        request.calls = 0
        self._queue(now, request)

    def _finish(self, request: _Request, took_s: float) -> None:
        if request.number >= self._warm_up:
            self._times.append(took_s)
            if not request.batch:
                self._interactive.append(took_s)

    def _release(self, now: float, request: _Request, state: _State) -> None:
        process, request.process = request.process, None
        assert process is not None
        state.held_s += max(0.0, min(now, self._until) - max(request.taken_at, self._from))
        if request.number >= self._warm_up:
            state.stays_s += now - request.taken_at
            state.stays += 1
        process.free += 1
        if process.free == 1:
            state.roomy.append(process)
        self._dispatch(now, state)

    # -- what came of it

    def _figures(self, state: _State, processes: int) -> StationFigures:
        name, counted = state.station.name, max(1, self._requests - self._warm_up)
        span_s = self._until - self._from if self._until > self._from else math.inf
        slots = processes * state.station.concurrency
        uses = [
            Use(name, "calls in flight", state.held_s / span_s / slots),
            Use(name, "CPU", state.taken * state.station.cpu_s / span_s / processes),
        ]
        scopes = {id(scope): scope for some in state.quotas.endpoints for scope in some}
        for scope in scopes.values():
            # Of the whole run, as they count from its begin.
            minutes = self._until / 60.0
            for what, most, count_of in (
                ("requests", scope.quota.requests_per_min, scope.requests),
                ("tokens", scope.quota.tokens_per_min, scope.tokens),
            ):
                if most is not None:
                    used = min(1.0, count_of / minutes / most)
                    uses.append(Use(name, f"quota of {what} ({scope.name})", used))
            if scope.quota.concurrency is not None:
                used = state.called_s / span_s / scope.quota.concurrency
                what = f"quota of calls ({scope.name})"
                uses.append(Use(name, what, used / len(state.quotas.endpoints)))
        return StationFigures(
            name,
            processes,
            state.taken / counted,
            state.stays_s / max(1, state.stays),
            state.calls / counted,
            state.answers / counted,
            tuple(uses),
            state.waited_s / max(1, state.taken),
        )
