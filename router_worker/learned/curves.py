"""Cost-quality curves of two models: what a router's score is worth, on rows with known answers.

The measures are RouteLLM's (Ong et al. 2024, "RouteLLM: Learning to Route LLMs with Preference
Data", arXiv:2406.18665, section 2.2; github.com/lm-sys/RouteLLM, routellm/evals/evaluate.py).
The share c of the rows with the highest scores goes to the strong model, the rest to the weak:

    PGR(c) = (perf(c) - perf(weak)) / (perf(strong) - perf(weak))    performance gap recovered
    APGR   = the mean of PGR over shares c spread evenly in 0..1
    CPT(x) = the smallest c with PGR(c) >= x                         call-performance threshold

They take about ten shares and join them by lines; here every row is a point of the curve, and the
mean is the exact area below it. Rows of equal score can't be told apart, so they count as taken
in random order: the curve is a straight line across them. A constant score has an APGR of 0.5,
and neither the order of the rows nor a rising transform of the score changes anything.

`sweep.py` has the curves of many models with prices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from router_worker.learned.scores import Measured

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES: Final = 1_000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class PairMeasures:
    """What a score is worth between two models; the thresholds are shares of calls (0..1)."""

    apgr: Measured
    cpt_50: Measured
    cpt_80: Measured


@dataclass(frozen=True, slots=True, eq=False)
class PairCurve:
    """Recovered performance gap over the share of strong calls, as a line through points.

    `shares` rise from 0 to 1; `recovered` starts at 0, ends at 1, and may leave that range.
    """

    shares: Floats
    recovered: Floats

    @property
    def apgr(self) -> float:
        """The average performance gap recovered: the area below the curve."""
        return float(np.trapezoid(self.recovered, self.shares))

    def cpt(self, recovered: float) -> float:
        """Return the smallest share of strong calls that recovers this part of the gap (0..1)."""
        if not 0 <= recovered <= 1:
            raise ValueError(f"the part of the gap to recover is {recovered}, not from 0 to 1")
        if recovered == 0:
            return 0.0
        # The last point is 1 but for rounding, so that one is always found.
        after = int(np.argmax(np.append(self.recovered[:-1], 1.0) >= recovered))
        x0, x1 = self.shares[after - 1], self.shares[after]
        y0, y1 = self.recovered[after - 1], self.recovered[after]
        return float(x0 + (x1 - x0) * (recovered - y0) / (y1 - y0))


def pair_curve(score: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> PairCurve:
    """Return the curve of a score (higher: to the strong model) on N rows of two models' scores.

    Raises `ValueError` if the lengths differ, a number is not finite, or the strong model is not
    better than the weak one on these rows: there is no gap to recover.
    """
    order, starts, gain = ranked(score, weak, strong)
    return line(gain[order], np.ones(len(order)), starts)


def pair_measures(
    score: ArrayLike,
    weak: ArrayLike,
    strong: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> PairMeasures:
    """Return the measures of a score with bootstrap intervals (percentiles; Efron 1979).

    Rows are drawn with replacement. A draw in which the strong model is not better has no curve
    and is left out. Raises `ValueError` as `pair_curve` does.
    """
    order, starts, gain = ranked(score, weak, strong)
    gain = gain[order]
    whole = line(gain, np.ones(len(gain)), starts)
    drawn = []
    for _ in range(resamples):
        times = rng.multinomial(len(gain), np.full(len(gain), 1 / len(gain))).astype(float)
        if gain @ times > 0:
            curve = line(gain, times, starts)
            drawn.append((curve.apgr, curve.cpt(0.5), curve.cpt(0.8)))
    values = np.array(drawn, float).reshape(-1, 3).T
    return PairMeasures(
        apgr=percentiles(whole.apgr, values[0]),
        cpt_50=percentiles(whole.cpt(0.5), values[1]),
        cpt_80=percentiles(whole.cpt(0.8), values[2]),
    )


def difference(
    score: ArrayLike,
    other: ArrayLike,
    weak: ArrayLike,
    strong: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> Measured:
    """Return how much larger the APGR of `score` is than that of `other`, on the same draws."""
    order, starts, gain = ranked(score, weak, strong)
    order_2, starts_2, _ = ranked(other, weak, strong)
    ones = np.ones(len(gain))
    value = line(gain[order], ones, starts).apgr - line(gain[order_2], ones, starts_2).apgr
    drawn = []
    for _ in range(resamples):
        times = rng.multinomial(len(gain), ones / len(gain)).astype(float)
        if gain @ times > 0:
            one = line(gain[order], times[order], starts).apgr
            drawn.append(one - line(gain[order_2], times[order_2], starts_2).apgr)
    return percentiles(value, np.array(drawn, float))


def ranked(
    score: ArrayLike, weak: ArrayLike, strong: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the rows from the highest score down, where each tie starts, and the rows' gains."""
    s, low, high = (np.asarray(each, float) for each in (score, weak, strong))
    if s.ndim != 1 or not s.shape == low.shape == high.shape:
        raise ValueError(f"lengths differ: {s.shape}, {low.shape} and {high.shape}")
    if not all(np.isfinite(each).all() for each in (s, low, high)):
        raise ValueError("a score is not a finite number")
    gain = high - low
    if not len(s) or gain.sum() <= 0:
        raise ValueError("the strong model is not better than the weak one on these rows")
    order = np.argsort(-s, kind="stable")
    ordered = s[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return order, starts, gain


def line(gain: Floats, times: Floats, starts: NDArray[np.int64]) -> PairCurve:
    """Return the curve of ranked rows, each of which occurs so many times."""
    rows = np.add.reduceat(times, starts)
    gains = np.add.reduceat(gain * times, starts)
    kept = rows > 0
    shares = np.cumsum(np.append(0.0, rows[kept]))
    recovered = np.cumsum(np.append(0.0, gains[kept]))
    return PairCurve(shares / shares[-1], recovered / recovered[-1])


def percentiles(value: float, drawn: Floats) -> Measured:
    """Return a value with the middle `LEVEL` of its resamples; of no resamples it is infinite."""
    if not len(drawn):
        return Measured(value, -np.inf, np.inf)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measured(value, float(low), float(high))


def oracle_score(weak: ArrayLike, strong: ArrayLike) -> Floats:
    """Return the score that knows both answers: no order of rows recovers more of the gap."""
    gain: Floats = np.asarray(strong, float) - np.asarray(weak, float)
    return gain


def length_score(
    training: Sequence[str], weak: ArrayLike, strong: ArrayLike, prompts: Sequence[str]
) -> Floats:
    """Return the baseline score of `prompts`: their length in characters, or its negative.

    Whether long or short prompts go to the strong model is chosen on the training rows alone.
    """
    lengths = np.array([len(prompt) for prompt in training], float)
    sign = 1 if pair_curve(lengths, weak, strong).apgr >= 0.5 else -1
    return sign * np.array([len(prompt) for prompt in prompts], float)
