"""How much fits into a minute: the generic cell rate algorithm (GCRA), as pure functions.

A meter holds one number, the *theoretical arrival time*: when what was admitted so far would have
come in at an even pace. https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm

A provider counts by its own clock and its own windows. So that no minute, wherever it begins, holds
more than the limit, the pace is a little slower than it, and what may come at once makes up for
most of the rest: `burst + 60 s * pace < limit`. What is left is for calls that take longer to get
there than those after them.

The script `take_quota` does the same in Redis for all workers; this is what each does alone while
Redis does not answer.
"""

from dataclasses import dataclass
from typing import Final

from modelyard.catalog import Quota

AT_ONCE: Final = 0.02
"""The share of a limit that may come at once."""

SPARE: Final = 0.01
"""The share that is not used: 0.6 s of a minute, by which calls may be late."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A limit of something. `interval_s`: one of it in so many seconds; `burst`: so many
    at once.
    """

    interval_s: float
    burst: float

    @classmethod
    def per_minute(cls, limit: float) -> "Meter":
        """Return the meter that lets through `limit` in any minute."""
        return cls.of(limit, 60.0)

    @classmethod
    def of(cls, limit: float, window_s: float) -> "Meter":
        """Return the meter that lets through `limit` in any so many seconds."""
        return cls(window_s / (limit * (1.0 - AT_ONCE - SPARE)), max(1.0, AT_ONCE * limit))

    def share(self, share: float) -> "Meter":
        """Return the meter of so great a share of it."""
        return Meter(self.interval_s / share, max(1.0, self.burst * share))


def admit(arrival: float, meter: Meter, amount: float, now: float) -> tuple[float, float]:
    """Return in how many seconds `amount` may come, and the arrival time if it does.

    What is more than all that may come at once comes when that could, and others wait for it.
    """
    begin = max(arrival, now)
    delay = begin + (min(amount, meter.burst) - meter.burst) * meter.interval_s - now
    return max(0.0, delay), begin + amount * meter.interval_s


@dataclass(frozen=True, slots=True)
class Scope:
    """Something that has a limit, under a name that all workers use for it.

    `key` names it; `requests` and `tokens` are its meters, `concurrency` its calls in flight, each
    None for no limit; requests of the batch lane get all but `interactive_share` of it.
    """

    key: str
    requests: Meter | None
    tokens: Meter | None
    concurrency: int | None
    interactive_share: float

    @classmethod
    def of(cls, key: str, quota: Quota) -> "Scope":
        """Return the scope with the limits of `quota`."""
        requests, tokens = quota.requests_per_min, quota.tokens_per_min
        return cls(
            key,
            Meter.per_minute(requests) if requests else None,
            Meter.per_minute(tokens) if tokens else None,
            quota.concurrency,
            quota.interactive_share,
        )
