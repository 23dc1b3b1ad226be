"""Taking quota: what all workers share, in one round trip for all that is asked for at a time.

What is asked while a round trip is under way goes with the next one, and so does what calls turned
out to have taken. While Redis is slow or away, each worker keeps to its part of the quota by
itself: calls go on, and what that takes too much is a few 429s.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from model_workers.endpoints.steady import steady
from model_workers.redis_threads import RedisThreads
from modelyard.names import QUOTA_KEY_PREFIX, QUOTA_PROCESSES_KEY
from modelyard.quota import Scope, admit
from modelyard.scripts import Script

logger = logging.getLogger("modelyard.endpoints")

TAKE: Final = Script("take_quota")

SLOW_S: Final = 0.25
"""A Redis that takes longer is not waited for."""

AWAY_S: Final = 1.0
"""For how long it is not asked again after that."""

GONE_S: Final = 10.0
"""After so long without a word a process is taken to be gone, and its calls with it."""

BEAT_S: Final = GONE_S / 3
"""How often a process with calls in flight says so: one may take minutes."""

KEEP_S: Final = 3600
"""For how long a meter is kept that nobody asks."""

GIVE_DELAY_S: Final = 0.05
"""How long a correction waits for a take to go along with."""

AT_ONCE: Final = 500

MOST_ALONE: Final = 10_000
"""Of so many scopes a worker remembers by itself what they took."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one call needs: about so many tokens, and for each endpoint that may take it the limits
    that it is under, in the order in which they are tried. It would wait for `patience_s`.
    """

    tokens: int
    batch: bool
    patience_s: float
    candidates: Sequence[Sequence[Scope]]


@dataclass(frozen=True, slots=True)
class Granted:
    """The call may be made at the candidate of this position, in so many seconds."""

    candidate: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no room at any; ask again in so many seconds.

    `scope`: which of a candidate's scopes has none, by its position; -1 if that can't be told.
    """

    wait_s: float
    scope: int = -1


Answer = Granted | Refused


@dataclass(slots=True)
class Pending:
    """An ask that waits for its round trip."""

    ask: Ask
    future: "asyncio.Future[Answer]"


@dataclass(slots=True)
class Alone:
    """What this worker keeps to by itself: its part of each quota."""

    workers: int = 1
    arrivals: dict[str, list[float]] = field(default_factory=dict)

    def take(self, ask: Ask, in_flight: dict[str, int], now: float) -> Answer:
        """Return what this worker may do without having asked the others."""
        if len(self.arrivals) > MOST_ALONE:
            self.arrivals = {key: kept for key, kept in self.arrivals.items() if max(kept) > now}
        least, least_at = math.inf, -1
        for at, scopes in enumerate(ask.candidates):
            delays, then, slowest = [0.0], [], -1
            for number, scope in enumerate(scopes):
                longest = max(delays)
                most = scope.concurrency
                if most is not None and in_flight.get(scope.key, 0) >= max(1, most // self.workers):
                    delays.append(ask.patience_s + SLOW_S)
                arrivals = self.arrivals.setdefault(scope.key, [0.0, 0.0])
                for kind, meter in enumerate((scope.requests, scope.tokens)):
                    if meter is None:
                        continue
                    share = (1.0 - scope.interactive_share) if ask.batch else 1.0
                    mine = meter.share(share / self.workers)
                    amount = ask.tokens if kind else 1
                    delay, arrival = admit(arrivals[kind], mine, amount, now)
                    delays.append(delay)
                    then.append((arrivals, kind, arrival))
                if max(delays) > longest:
                    slowest = number
            if max(delays) < least:
                least, least_at = max(delays), slowest
            if max(delays) <= ask.patience_s:
                for arrivals, kind, arrival in then:
                    arrivals[kind] = arrival
                return Granted(at, max(delays))
        return Refused(max(0.05, least), least_at)


class Gate:
    """Takes quota for the calls of one process. Lives on one event loop.

    `connect` opens the connection to Redis that it uses, in a thread of its own; without it this
    worker is taken to be the only one. What was closed can be used again, on another loop.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis] | None,
        process: str,
        *,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._redis = None if connect is None else RedisThreads(partial(once, connect), "quota")
        self._process = process
        self._clock = clock
        self._pending: list[Pending] = []
        self._corrections: list[tuple[Scope, int, bool]] = []
        self._in_flight: dict[str, int] = {}
        self._touched: dict[str, Scope] = {}
        self._held: dict[str, Scope] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._away_until = 0.0
        self.alone = Alone()

    async def take(self, ask: Ask) -> Answer:
        """Return whether and where the call may be made. What is granted has to be given back."""
        if self._redis is None or time.monotonic() < self._away_until:
            return self._alone(ask)
        pending = Pending(ask, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._flush()
        try:
            await asyncio.wait([pending.future], timeout=SLOW_S)
            if pending.future.done():
                return pending.future.result()
            self._is_away(f"no answer within {SLOW_S:g} s")
        except redis.RedisError as error:
            self._is_away(str(error))
        except asyncio.CancelledError:
            self._give_up(pending)
            raise
        self._give_up(pending)
        return self._alone(ask)

    def _give_up(self, pending: Pending) -> None:
        """Nobody waits for it any more: what it is granted counts for nothing."""
        if pending in self._pending:
            self._pending.remove(pending)
        if not pending.future.done():
            pending.future.cancel()
        elif not pending.future.cancelled() and pending.future.exception() is None:
            answer = pending.future.result()
            if isinstance(answer, Granted):
                ask = pending.ask
                self.give(ask.candidates[answer.candidate], -ask.tokens, batch=ask.batch)

    def _alone(self, ask: Ask) -> Answer:
        answer = self.alone.take(ask, self._in_flight, self._clock())
        self._count(ask, answer)
        return answer

    def _count(self, ask: Ask, answer: Answer) -> None:
        if not isinstance(answer, Granted):
            return
        for scope in ask.candidates[answer.candidate]:
            self._in_flight[scope.key] = self._in_flight.get(scope.key, 0) + 1
            if scope.concurrency is not None:
                self._held[scope.key] = scope
        if self._held and self._beat is None and self._redis is not None:
            self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._tell_held)

    def _tell_held(self) -> None:
        """Say which calls are in flight: who says nothing for long is taken to be gone."""
        self._beat = None
        if self._held:
            self._touched.update(self._held)
            self._flush()
            self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._tell_held)

    def give(self, scopes: Sequence[Scope], tokens: int, *, batch: bool) -> None:
        """Say that a call has ended that took `tokens` more than it was granted, or fewer."""
        for scope in scopes:
            left = self._in_flight.get(scope.key, 0) - 1
            if left > 0:
                self._in_flight[scope.key] = left
            else:
                self._in_flight.pop(scope.key, None)
                self._held.pop(scope.key, None)
        self._correct(scopes, tokens, batch=batch)

    def _correct(self, scopes: Sequence[Scope], tokens: int, *, batch: bool) -> None:
        """Have the next round trip say what Redis does not know."""
        if self._redis is None:
            return
        for scope in scopes:
            if scope.tokens is not None and tokens:
                self._corrections.append((scope, tokens, batch))
            if scope.concurrency is not None:
                self._touched[scope.key] = scope
        if self._later is None and (self._corrections or self._touched):
            self._later = asyncio.get_running_loop().call_later(GIVE_DELAY_S, self._flush)

    def count_workers(self, processes: int) -> None:
        """Take note of how many there are, each of which has a part of the quota where Redis does
        not answer.
        """
        self.alone.workers = processes

    async def aclose(self) -> None:
        """Say what is left to say, and close the connection."""
        for timer in (self._later, self._beat):
            if timer is not None:
                timer.cancel()
        self._later = self._beat = None
        if self._flushing is not None:
            await asyncio.wait([self._flushing], timeout=SLOW_S)
        if self._corrections or self._touched:
            self._flush()
            if self._flushing is not None:
                await asyncio.wait([self._flushing], timeout=SLOW_S)
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
            self._flushing = None
        if self._redis is not None:
            self._redis.close()

    def _is_away(self, why: str) -> None:
        if time.monotonic() >= self._away_until:
            logger.warning("quota is kept by each worker alone for a while: Redis: %s", why)
        self._away_until = time.monotonic() + AWAY_S

    def _flush(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._round())

    async def _round(self) -> None:
        assert self._redis is not None
        while self._pending or self._corrections or self._touched:
            some, self._pending = self._pending[:AT_ONCE], self._pending[AT_ONCE:]
            corrections, self._corrections = self._corrections, []
            touched, self._touched = self._touched, {}
            keys, args = script(
                self._process,
                [each.ask for each in some],
                corrections,
                list(touched.values()),
                self._in_flight,
            )
            try:
                said = await self._redis.run(partial(TAKE, keys=keys, args=args))
            except (redis.RedisError, OSError) as error:
                # The counts of calls are absolute: the next round says them. What was given back
                # may have been heard, if only the reply was lost: twice would be too much.
                taken = [each for each in corrections if each[1] > 0]
                self._corrections = taken + self._corrections[-AT_ONCE:]
                self._touched = touched | self._touched
                self._fail(some, error)
                self._is_away(str(error))
                return
            for pending, answer in zip(some, answers(said), strict=True):
                if pending.future.done():
                    # Nobody waited for it, but Redis counted it.
                    if isinstance(answer, Granted):
                        ask = pending.ask
                        scopes = ask.candidates[answer.candidate]
                        self._correct(scopes, -ask.tokens, batch=ask.batch)
                else:
                    # Before the next round tells how many calls there are.
                    self._count(pending.ask, answer)
                    pending.future.set_result(answer)

    def _fail(self, some: Sequence[Pending], error: Exception) -> None:
        for pending in (*some, *self._pending):
            if not pending.future.done():
                pending.future.set_exception(redis.ConnectionError(str(error)))
        self._pending = []


def once(connect: Callable[[], redis.Redis]) -> redis.Redis:
    """Return a connection that sends nothing again: after a lost reply it would be taken twice."""
    client = connect()
    client.set_retry(Retry(NoBackoff(), 0))
    return client


def script(
    process: str,
    asks: Sequence[Ask],
    corrections: Sequence[tuple[Scope, int, bool]],
    touched: Sequence[Scope],
    in_flight: dict[str, int],
    now: float | None = None,
) -> tuple[list[str], list[Any]]:
    """Return the keys and arguments of the script `take_quota`."""
    numbers: dict[str, int] = {}
    scopes: list[Scope] = []

    def number(scope: Scope) -> int:
        if scope.key not in numbers:
            scopes.append(scope)
            numbers[scope.key] = len(scopes)
        # A call that ends may be under what was the limit: what is asked last knows best.
        scopes[numbers[scope.key] - 1] = scope
        return numbers[scope.key]

    for scope in touched:
        number(scope)
    said: list[Any] = [len(corrections)]
    for scope, tokens, batch in corrections:
        said += [number(scope), tokens, int(batch)]
    for ask in asks:
        said += [ask.tokens, int(ask.batch), f"{ask.patience_s:.3f}", len(ask.candidates)]
        for candidate in ask.candidates:
            said += [len(candidate), *map(number, candidate)]
    told: list[Any] = [
        *("" if now is None else now, process, GONE_S, KEEP_S, len(scopes)),
    ]
    for scope in scopes:
        for meter in (scope.requests, scope.tokens):
            told += [meter.interval_s, meter.burst] if meter else [0, 0]
        told += [scope.concurrency or 0, 1.0 - scope.interactive_share]
        told.append(in_flight.get(scope.key, 0))
    keys = [QUOTA_PROCESSES_KEY]
    for scope in scopes:
        keys += [f"{QUOTA_KEY_PREFIX}{scope.key}", f"{QUOTA_KEY_PREFIX}{scope.key}:calls"]
    return keys, told + said


def answers(said: Sequence[int]) -> list[Answer]:
    """Return what the script said to each ask."""
    return [
        Granted(chosen - 1, ms / 1000) if chosen else Refused(ms / 1000, scope - 1)
        for chosen, ms, scope in zip(said[::3], said[1::3], said[2::3], strict=True)
    ]
