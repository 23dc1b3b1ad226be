"""When an endpoint is left alone: a circuit breaker, as pure functions on a frozen state.

*Closed*: calls go through. *Open*: none do, until a moment. After it, *half open*: a few probes do
(and more from second to second where only a limit was reached), and the first that is answered
closes it. Times are seconds since the epoch, by the Redis server's
clock where there is one.

How often it failed lately is counted with a decay of `window_s`, so a circuit is a few numbers
however many calls there are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from modelyard.catalog import Breaker
from modelyard.errors import FailureKind


class Reason(StrEnum):
    """Why an endpoint is left alone."""

    FAILING = "failing"
    """Too many of its calls fail: it is down, or close to it."""
    LIMITED = "limited"
    """It said that its limit is reached, and until when."""
    DENIED = "denied"
    """It lets none of our calls through until a person acts."""


LIMITED_S: Final = 1.0
"""For how long an endpoint is left alone that says it is at its limit, but not until when."""

LONGEST_LIMITED_S: Final = 900.0
"""Nobody is believed to be at a limit for longer: it is asked again."""

LIMITED_RAMP_PER_S: Final = 10.0
"""So many more calls are let through each second after a limit should be over. An answer may take
a minute, and one probe at a time would leave most of that minute's limit unused.
"""

ROWS: Final = 2
"""So many times `breaker.failures` in a row open a circuit, whatever was answered before: what
was busy and goes down would else have to fail as often as it answered.
"""

AHEAD_S: Final = 5.0
"""What was opened so far ahead of now was opened by another clock: the round trips by which two
workers find the server's time differ by less.
"""

PROBE_WAIT_S: Final = 0.2
"""How long a call waits for a probe of another to come to its end."""

JITTER: Final = 0.25
"""Waits are drawn from so much less to so much more, so that workers do not come back together."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """What is known of the health of an endpoint.

    `good` and `bad` count answered and failed calls, decayed up to `at`. `until` is when it may be
    probed, 0 if it is closed; `since` when it opened last, `times` how often in a row it did for
    its failures, and `why`; `row` are its failures since a call was answered, decayed
    as well.
    """

    good: float = 0.0
    bad: float = 0.0
    at: float = 0.0
    until: float = 0.0
    since: float = 0.0
    times: int = 0
    why: Reason = Reason.FAILING
    row: float = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether calls go through."""
        return self.until == 0.0

    def is_open(self, now: float) -> bool:
        """Whether none do."""
        return now < self.until


CLOSED: Final = Circuit()


@dataclass(frozen=True, slots=True)
class Hold:
    """No endpoint takes the call now; one may in `wait_s` seconds. `why` is None at a quota of
    ours, or else what is wrong with all of them.

    `own`: that is so for this request, and others may be taken meanwhile; `everywhere`: other
    models would not take it either.
    """

    wait_s: float
    why: Reason | None
    message: str
    own: bool = False
    everywhere: bool = False


def answered(circuit: Circuit, breaker: Breaker, started_at: float, now: float) -> Circuit:
    """Return the circuit after a call that began at `started_at` reached the provider.

    A call from before it opened proves nothing: it was sent to what was well then.
    """
    if not circuit.is_closed and started_at >= circuit.since:
        return Circuit(good=1.0, at=now)
    faded = fade(circuit, breaker, now)
    return replace(faded, good=faded.good + 1.0, row=0.0)


def failed(
    circuit: Circuit,
    breaker: Breaker,
    kind: FailureKind,
    *,
    started_at: float,
    now: float,
    draw: float,
    retry_after_s: float | None = None,
) -> Circuit:
    """Return the circuit after a call that failed. `draw` is a random number from 0 to 1.

    A failure that is the request's own fault speaks for the endpoint: it answered.
    """
    if kind is FailureKind.DENIED:
        return opened(circuit, Reason.DENIED, breaker.denied_s * spread(draw), now)
    if kind is FailureKind.LIMITED:
        asked_s = LIMITED_S if retry_after_s is None else retry_after_s
        # Never less than what was asked for.
        wait_s = min(asked_s, LONGEST_LIMITED_S) + draw * JITTER
        return opened(circuit, Reason.LIMITED, wait_s, now)
    if kind is not FailureKind.RETRYABLE:
        return answered(circuit, breaker, started_at, now)
    faded = fade(circuit, breaker, now)
    faded = replace(faded, bad=faded.bad + 1.0, row=faded.row + 1.0)
    if faded.is_closed:
        # The decay makes five of five 4.99: a failure is whole when it is nearly so.
        many = faded.bad > breaker.failures - 0.5
        most = faded.bad >= breaker.failure_rate * (faded.bad + faded.good)
        if not (many and most) and faded.row < ROWS * breaker.failures - 0.5:
            return faded
    elif started_at < faded.since:
        return faded  # it is of the calls that it opened for
    wait_s = min(breaker.longest_s, breaker.cooldown_s * 2.0 ** min(faded.times, 30))
    return opened(faded, Reason.FAILING, wait_s * spread(draw), now)


def opened(circuit: Circuit, why: Reason, wait_s: float, now: float) -> Circuit:
    """Return the circuit, open for `wait_s` seconds; never for less than it was, and then for the
    same reason.
    """
    until = now + wait_s
    if until < circuit.until:
        until, why = circuit.until, circuit.why
    # Twenty calls that meet one limit say nothing of how long a failure will last.
    times = circuit.times + (why is Reason.FAILING)
    return replace(circuit, until=until, since=now, times=times, why=why)


def admits(circuit: Circuit, breaker: Breaker, probes: int, now: float) -> bool:
    """Return whether a call may go there, where `probes` are on their way."""
    if circuit.is_closed:
        return True
    if circuit.is_open(now):
        return False
    most = breaker.probes
    if circuit.why is Reason.LIMITED:
        most += int(LIMITED_RAMP_PER_S * (now - circuit.until))
    return probes < most


def is_from_ahead(circuit: Circuit, now: float) -> bool:
    """Return whether a circuit was opened by a clock that was far ahead of this one: it would stay
    open for so much longer.
    """
    return circuit.since > now + AHEAD_S


def hold(every: Sequence[Circuit], now: float) -> Hold:
    """Return for how long none of a model's endpoints takes a call: the first that may again
    counts.
    """
    first = min(every, key=lambda circuit: max(circuit.until, now))
    why = first.why
    # The mildest reason: one endpoint that is at its limit will answer.
    probed = not first.is_open(now)
    others = any(circuit.why is not Reason.DENIED for circuit in every)
    if why is Reason.DENIED and (others or probed):
        why = Reason.FAILING
    wait_s = max(PROBE_WAIT_S, first.until - now)
    words = {
        Reason.FAILING: "fails",
        Reason.LIMITED: "is at its limit",
        Reason.DENIED: "denies our calls",
    }
    whose = "its endpoint" if len(every) == 1 else f"each of its {len(every)} endpoints"
    return Hold(wait_s, why, f"{whose} {words[why]}, next try in {wait_s:.1f} s")


def fade(circuit: Circuit, breaker: Breaker, now: float) -> Circuit:
    """Return the circuit with its counts decayed up to now."""
    left = math.exp(-max(0.0, now - circuit.at) / breaker.window_s)
    good, bad, row = circuit.good * left, circuit.bad * left, circuit.row * left
    return replace(circuit, good=good, bad=bad, row=row, at=now)


def spread(draw: float) -> float:
    """Return a factor around 1."""
    return 1.0 - JITTER + 2.0 * JITTER * draw
