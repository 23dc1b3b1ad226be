"""What came out of a simulation: times, and how much was used of what there is."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Use:
    """How much of what is there was used, from 0 to 1 (a quota that is full: about 0.97)."""

    model: str
    what: str
    used: float


@dataclass(frozen=True, slots=True)
class StationFigures:
    """How a model did, by request of the whole: how often it was taken, called, answered.

    `limited`: calls that met a limit of an endpoint; `drafts`: answers that were not accepted.
    `held_s`: for how long a request that was taken had a place in a process.
    """

    name: str
    processes: int
    taken: float
    held_s: float
    calls: float
    answers: float
    uses: tuple[Use, ...]
    waited_mean_s: float
    limited: float = 0.0
    drafts: float = 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What came out. Times from submit to answer are sorted; a request without one took for ever.

    `hopeless`: the queues grew and grew, or requests were held for ever; the rest was not looked
    at and has no answer.
    """

    times_s: Sequence[float]
    interactive_s: Sequence[float]
    stations: tuple[StationFigures, ...]
    hopeless: bool = False

    @property
    def judged_s(self) -> Sequence[float]:
        """The times that a promise is about: those of the interactive lane, if there is one."""
        return self.interactive_s or self.times_s

    def percentile(self, percent: float) -> float:
        """Return the time within which so many percent were answered."""
        return math.inf if self.hopeless else percentile(self.judged_s, percent)

    @property
    def unanswered(self) -> float:
        """The share without an answer."""
        if not self.times_s:
            return 0.0
        return 1.0 - bisect_left(self.times_s, math.inf) / len(self.times_s)

    @property
    def bottleneck(self) -> Use:
        """What is full first when more comes."""
        return max((use for s in self.stations for use in s.uses), key=lambda use: use.used)


def percentile(sorted_s: Sequence[float], percent: float) -> float:
    """Return the least value that so many percent are not above."""
    if not sorted_s:
        return math.inf
    at = math.ceil(percent / 100 * len(sorted_s)) - 1
    return sorted_s[min(len(sorted_s) - 1, max(0, at))]
