"""Sequential tests: whether a mean is over its bound, looked at after every observation.

A test that is made for one look at the end is wrong far more often than it says when it is looked
at again and again until it fails. These are not: whatever the moment at which one looks, and
however one chose it, the chance of ever being wrong stays below alpha.

`Evidence` bets against "the mean is at most `bound`". In each round a share of the capital is put
on the next observation being larger than that. Where it is not so, no way of betting makes the
capital grow on average, and by Ville's inequality (1939) the chance that it is ever 1/alpha times
what it was is at most alpha. Waudby-Smith and Ramdas, "Estimating means of bounded random variables
by betting", JRSS B 86 (2024), sections 3 and 4, have this for bounded observations. For a bound
from above alone nothing has to bound the observations from above: they need not be below 0, which
holds for failures, seconds and dollars. So no variance has to be known or assumed. The shares are
fixed in advance and spread, as if each was betting with a part of the capital: a mixture, as in
the mixture sequential probability ratio test of Johari et al., "Peeking at A/B tests", KDD 2017.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHARES: Final[NDArray[np.floating]] = 0.96 * 0.6 ** np.arange(14)
"""The shares of the capital that are put on a mean over its bound, from bold to careful. The bold
ones find a treatment that is broken, within a few requests, and the careful ones a small loss among
observations that vary widely."""

START: Final = 200
"""At about how many observations the interval of a mean is narrowest for its width."""


class Evidence:
    """The evidence that a mean is over `bound`, which is not negative.

    It keeps one number for each share, whatever the number of observations, and does not depend on
    their order. With `runs` it is so many tests at once, which take arrays of observations.
    """

    __slots__ = ("_bound", "_logs", "count")

    def __init__(self, bound: float, runs: tuple[int, ...] = ()) -> None:
        if not bound >= 0.0:
            raise ValueError(f"the bound of a mean must not be negative, and is {bound}")
        self._bound = bound
        self._logs = np.zeros((*runs, len(SHARES)))
        self.count = 0

    def add(self, observed: ArrayLike) -> None:
        """Take one observation, or one for each run; none may be negative."""
        seen = np.asarray(observed, dtype=float)[..., np.newaxis]
        self.count += 1
        if self._bound == 0.0:  # a mean of 0 means that all of them are
            self._logs = np.where(seen > 0.0, math.inf, self._logs)
        else:
            self._logs += np.log1p(SHARES * (seen / self._bound - 1.0))

    def log_capital(self) -> Any:
        """Return the logarithm of what the capital grew to: a float, or an array of the runs."""
        most = self._logs.max(axis=-1)
        if np.isinf(most).any():
            return np.where(np.isinf(most), math.inf, self._mean(np.where(np.isinf(most), 0, most)))
        return self._mean(most)

    def is_over(self, alpha: float) -> Any:
        """Return whether the mean is over its bound; at most `alpha` of those that are not are
        ever found to be."""
        return self.log_capital() >= -math.log(alpha)

    def _mean(self, most: Any) -> Any:
        with np.errstate(over="ignore"):
            return most + np.log(np.exp(self._logs - most[..., np.newaxis]).mean(axis=-1))


@dataclass(slots=True)
class Running:
    """Count, mean and spread of observations, by Welford's method (Technometrics 4, 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, observed: float) -> None:
        """Take one observation."""
        self.count += 1
        off = observed - self.mean
        self.mean += off / self.count
        self.squares += off * (observed - self.mean)

    @property
    def variance(self) -> float:
        """The sample variance; 0 before there are two observations."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


def share_interval(count: int, total: float, alpha: float) -> tuple[float, float]:
    """Return bounds of the mean of observations from 0 to 1, good at whatever moment one looks.

    `total` is their sum. Robbins, Annals of Mathematical Statistics 41 (1970); Howard et al.,
    "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49
    (2021), section 3.2: a mixture over a Beta(1/2, 1/2) of what likelihood ratios of a Bernoulli
    variable would be, which bounds any variable from 0 to 1.
    """
    if count == 0:
        return 0.0, 1.0
    ones, zeros = total, count - total
    mixed = log_beta(0.5 + ones, 0.5 + zeros) - log_beta(0.5, 0.5) + math.log(alpha)

    def is_in(mean: float) -> bool:
        return mixed < ones * math.log(mean) + zeros * math.log1p(-mean)

    middle = min(max(total / count, 1e-12), 1.0 - 1e-12)
    low = 0.0 if ones <= 0.0 else edge(1e-15, middle, is_in)
    high = 1.0 if zeros <= 0.0 else edge(1.0 - 1e-15, middle, is_in)
    return low, high


def mean_interval(seen: Running, alpha: float) -> tuple[float, float] | None:
    """Return bounds of a mean at whatever moment one looks, or None before there is a spread.

    They hold asymptotically, as those by the central limit theorem do: Waudby-Smith et al.,
    "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52
    (2024), theorem 2.2. They are for people; nothing is taken back by them.
    """
    count = seen.count
    if count < 2 or seen.variance == 0.0:
        return None
    log_alpha = -2.0 * math.log(alpha)
    rho2 = (log_alpha + math.log(log_alpha) + 1.0) / START  # the paper's equation 10
    grown = count * rho2 + 1.0
    width = math.sqrt(
        seen.variance * 2.0 * grown / (count**2 * rho2) * math.log(math.sqrt(grown) / alpha)
    )
    return max(0.0, seen.mean - width), seen.mean + width


def log_beta(one: float, two: float) -> float:
    """Return the logarithm of the beta function."""
    return math.lgamma(one) + math.lgamma(two) - math.lgamma(one + two)


def edge(outside: float, inside: float, is_in: Callable[[float], bool]) -> float:
    """Return where what is in ends, between two points, by bisection."""
    for _ in range(60):
        middle = (outside + inside) / 2.0
        if is_in(middle):
            inside = middle
        else:
            outside = middle
    return outside
