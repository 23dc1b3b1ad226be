"""How many processes hold a promise: the yard as a discrete-event simulation.

Requests arrive at random moments (a Poisson process), wait in the queue of their model, are called
for by a process that has room, and come again or go on when the call fails, as the workers' own
functions say (`modelyard.advance`). Nothing is measured here and nothing is called: the same
input gives the same output, whatever the machine. Times are in seconds.
"""

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, Final

from modelyard.advance import CallNow, Later, NextStep, advance, held
from modelyard.circuit import Hold
from modelyard.errors import FailureKind
from producer.plan_calls import attempt, calls
from producer.plan_endpoints import REFUSED_S, Place
from producer.plan_figures import Figures, StationFigures, Use
from producer.plan_policies import LONGEST_PAUSE_S
from producer.plan_station import BATCH, INTERACTIVE, Running, State, Station, Traffic

HOPELESS: Final = 20_000
"""With so many more in the queues than at the begin, they do not get empty any more."""

MOST_EVENTS: Final = 60
"""After so many events for each request those that are left get no answer: a few is usual, and what
is held for ever asks again and again."""

HELD_JITTER: Final = 0.5
"""What is held comes back after up to so much more, so that calls do not come back together."""


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
        self._states = [
            State.of(station, some, traffic.batch_share)
            for station, some in zip(stations, processes, strict=True)
        ]
        self._messages = calls([station.name for station in stations])
        self._processes = tuple(processes)
        self._traffic = traffic
        self._requests, self._warm_up = requests, warm_up
        # Streams of their own: with more processes the same requests come at the same moments.
        self._arrivals = Random(f"{seed}:arrivals")  # noqa: S311 - a simulation has no secret
        self._latencies = Random(f"{seed}:latencies")  # noqa: S311
        self._failures = Random(f"{seed}:failures")  # noqa: S311
        self._accepted = Random(f"{seed}:accepted")  # noqa: S311
        self._holds = Random(f"{seed}:holds")  # noqa: S311
        self._events: list[tuple[float, int, Callable[[float, Running], None], Running]] = []
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
        for events in count():
            if not self._events:
                break
            if events == MOST_EVENTS * self._requests:
                hopeless, self._until = True, min(now, self._until)
                break
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
        left = self._requests - self._warm_up - len(self._times)
        self._times = [*sorted(self._times), *[math.inf] * left]
        self._interactive.sort()
        return Figures(
            self._times,
            self._interactive,
            tuple(map(self._figures, self._states, self._processes)),
            hopeless,
        )

    # -- what happens

    def _new(self, number: int) -> Running:
        batch = self._traffic.batch > 0 and self._arrivals.random() < self._traffic.batch
        return Running(number, 0.0, batch)

    def _gap(self) -> float:
        return self._arrivals.expovariate(self._traffic.rate_per_s)

    def _later(self, at: float, what: Callable[[float, Running], None], who: Running) -> None:
        heappush(self._events, (at, next(self._numbers), what, who))

    def _arrive(self, now: float, request: Running) -> None:
        request.submitted = now
        self._queue(now, request)

    def _queue(self, now: float, request: Running) -> None:
        state = self._states[request.step]
        request.queued_at = now
        state.lanes[BATCH if request.batch else INTERACTIVE].append(request)
        self._dispatch(now, state)

    def _dispatch(self, now: float, state: State) -> None:
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
            request.placing_at = begin
            if state.posts is not None:
                self._later(begin, self._call, request)
            else:
                self._begin(begin, request)

    def _call(self, now: float, request: Running) -> None:
        """Find an endpoint for the call, or be held."""
        posts = self._states[request.step].posts
        assert posts is not None
        found = posts.place(self._traffic.tokens, now, batch=request.batch, avoid=request.avoid)
        if not isinstance(found, Place):
            self._held(now, request, found)
            return
        request.place = found
        if found.wait_s:
            self._later(now + found.wait_s, self._begin, request)
        else:
            self._begin(now, request)

    def _begin(self, now: float, request: Running) -> None:
        """Make the call, if its endpoint is still well."""
        state, place = self._states[request.step], request.place
        station = state.station
        if place is not None and state.posts is not None and not state.posts.begins(place, now):
            state.posts.leave(place)
            request.place = None
            self._call(now, request)
            return
        counts = request.number >= self._warm_up
        refused_s = None if place is None else place.post.refuses_s(now)
        if refused_s is not None:
            kind, took_s = FailureKind.LIMITED, REFUSED_S
            request.failure = attempt(station.name, kind, refused_s - REFUSED_S)
            state.limited += counts
        else:
            took_s = station.latency.draw(self._latencies)
            failures = 0.0 if place is None else place.post.weather.failures
            bad = took_s > station.timeout_s or (
                failures > 0 and self._failures.random() < failures
            )
            request.failure = attempt(station.name, FailureKind.RETRYABLE) if bad else None
            took_s = min(took_s, station.timeout_s)
        if counts:
            state.calls += 1
            state.called_s += took_s
        self._later(now + took_s, self._end, request)

    def _held(self, now: float, request: Running, hold: Hold) -> None:
        """No endpoint takes the call now."""
        station = self._states[request.step].station
        move = held(
            self._messages[request.step, request.batch],
            hold,
            station.retry,
            now - request.submitted,
            now - request.placing_at,
        )
        if isinstance(move, CallNow):
            wait_s = move.wait_s * (1.0 + HELD_JITTER * self._holds.random())
            self._later(now + wait_s, self._call, request)
        else:
            self._leave(now, request, move)

    def _leave(self, now: float, request: Running, move: Any) -> None:
        """A request leaves a process without an answer."""
        state = self._states[request.step]
        if isinstance(move, NextStep):
            self._go_on(now, request, move.step)
        elif isinstance(move, Later):
            self._put_back(now, request, move.wait_s)
        else:
            # What was answered and not accepted is better than nothing.
            took_s = now - request.submitted + self._traffic.yard_s
            self._finish(request, took_s if request.drafted else math.inf)
            self._release(now, request, state)

    def _put_back(self, now: float, request: Running, wait_s: float) -> None:
        """To the head of its queue, and nothing is taken from there for a while; or to its end."""
        state = self._states[request.step]
        lane = BATCH if request.batch else INTERACTIVE
        request.queued_at = now
        if not wait_s:
            state.lanes[lane].append(request)
        else:
            # All processes pause, not only this one: the others would be told the same.
            state.lanes[lane].appendleft(request)
            until = max(state.paused_until[lane], now + min(wait_s, LONGEST_PAUSE_S))
            if until > state.paused_until[lane]:
                state.paused_until[lane] = until
                self._later(until, self._resume, request)
        self._release(now, request, state)

    def _resume(self, now: float, request: Running) -> None:
        # By then the request itself may be at another model.
        for state in self._states:
            self._dispatch(now, state)

    def _end(self, now: float, request: Running) -> None:
        """A call ends."""
        state, place, failure = self._states[request.step], request.place, request.failure
        request.place = None
        if place is not None and state.posts is not None:
            kind = None if failure is None else failure.kind
            retry_after_s = None if failure is None else failure.retry_after_s
            draw = 0.0 if failure is None else self._holds.random()
            state.posts.leave(place)
            state.posts.ended(place, kind, retry_after_s, now, draw)
        if failure is None:
            self._answered(now, request, state)
            return
        request.attempts.append(failure)
        request.avoid = -1 if place is None else place.at
        elsewhere = state.posts is not None and state.posts.elsewhere(request.avoid, now)
        move = advance(
            self._messages[request.step, request.batch],
            request.attempts,
            state.station.retry,
            now - request.submitted,
            self._failures.random(),
            elsewhere=elsewhere,
        )
        if not isinstance(move, CallNow):
            self._leave(now, request, move)
            return
        request.placing_at = now + move.wait_s
        again = self._begin if state.posts is None else self._call
        self._later(request.placing_at, again, request)

    def _answered(self, now: float, request: Running, state: State) -> None:
        """An answer is the request's, or a draft that the next model has to better."""
        counts = request.number >= self._warm_up
        state.answers += counts
        escalates, last = state.station.escalates, request.step + 1 == len(self._states)
        if escalates and not last and self._accepted.random() < escalates:
            request.drafted = True
            state.drafts += counts
            self._go_on(now, request, request.step + 1)
            return
        self._finish(request, now - request.submitted + self._traffic.yard_s)
        self._release(now, request, state)

    def _go_on(self, now: float, request: Running, step: int) -> None:
        self._release(now, request, self._states[request.step])
        request.step, request.attempts, request.avoid = step, [], -1
        self._queue(now, request)

    def _finish(self, request: Running, took_s: float) -> None:
        if request.number >= self._warm_up:
            self._times.append(took_s)
            if not request.batch:
                self._interactive.append(took_s)

    def _release(self, now: float, request: Running, state: State) -> None:
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

    def _figures(self, state: State, processes: int) -> StationFigures:
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
        for post in state.posts.every if state.posts is not None else ():
            most = post.weather.limit_per_min
            if most is not None:
                used = min(1.0, post.calls * 60.0 / self._until / most) if most else 1.0
                uses.append(Use(name, f"limit of calls ({post.weather.name})", used))
        return StationFigures(
            name,
            processes,
            state.taken / counted,
            state.stays_s / max(1, state.stays),
            state.calls / counted,
            state.answers / counted,
            tuple(uses),
            state.waited_s / max(1, state.taken),
            state.limited / counted,
            state.drafts / counted,
        )
