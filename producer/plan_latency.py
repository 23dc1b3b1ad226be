"""How long simulated calls take: drawn from a distribution, or from calls that were observed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol


class Latency(Protocol):
    """How long calls take."""

    @property
    def mean_s(self) -> float:
        """The mean."""
        ...

    def draw(self, rng: Random) -> float:
        """Return that of one call."""
        ...


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Calls of a given mean; `spread` is the standard deviation of the logarithm."""

    mean_s: float
    spread: float = 0.6

    def draw(self, rng: Random) -> float:
        """Return that of one call."""
        if self.mean_s <= 0:
            return 0.0
        return rng.lognormvariate(math.log(self.mean_s) - self.spread**2 / 2, self.spread)


@dataclass(frozen=True, slots=True)
class Observed:
    """Calls as some were."""

    times_s: Sequence[float]

    @property
    def mean_s(self) -> float:
        """The mean."""
        return sum(self.times_s) / len(self.times_s)

    def draw(self, rng: Random) -> float:
        """Return that of one call."""
        return self.times_s[int(rng.random() * len(self.times_s))]
