"""How right a classifier is: the usual measures of classification, each with its interval.

All of them are functions of arrays with one entry a row. Intervals hold the middle 95 % of what
the same measure gives on rows drawn again with replacement (bootstrap percentiles, Efron 1979).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

RESAMPLES: Final = 1_000
BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """A measure and its interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One intent: how many of those called so are (precision), and of those that are (recall)."""

    intent: str
    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of about the same confidence: their mean confidence, and the share that is right."""

    confidence: float
    right: float
    rows: int


def measured(
    measure: Callable[[Ints], float], rows: int, rng: np.random.Generator, times: int = RESAMPLES
) -> Measured:
    """Return a measure of row numbers on all rows, with its interval."""
    everything = np.arange(rows)
    drawn = np.array([measure(rng.integers(0, rows, rows)) for _ in range(times)])
    drawn = drawn[~np.isnan(drawn)]
    value = measure(everything)
    if not len(drawn):
        return Measured(value, value, value)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Measured(value, float(low), float(high))


def share(flags: Bools) -> Callable[[Ints], float]:
    """Return the measure `share of rows that are true`; nan where there are none."""

    def measure(rows: Ints) -> float:
        return float(flags[rows].mean()) if len(rows) else float("nan")

    return measure


def macro_f1(truth: Ints, said: Ints, classes: int) -> Callable[[Ints], float]:
    """Return the measure `mean F1 of the classes that occur`, from numbers of classes."""

    def measure(rows: Ints) -> float:
        table = confusion(truth[rows], said[rows], classes)
        right = table.diagonal().astype(float)
        actual, called = table.sum(axis=1), table.sum(axis=0)
        there = actual > 0
        total = (actual + called)[there]
        return float(np.mean(2.0 * right[there] / total)) if there.any() else float("nan")

    return measure


def confusion(truth: Ints, said: Ints, classes: int) -> Ints:
    """Return a table `classes x classes`: how many of the row's class were called the column's."""
    flat = np.bincount(truth * classes + said, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def class_scores(table: Ints, intents: Sequence[str]) -> list[ClassScore]:
    """Return the scores of each class of a confusion table; 0 where there is nothing to divide."""
    scores = []
    for number, intent in enumerate(intents):
        right = int(table[number, number])
        actual, called = int(table[number].sum()), int(table[:, number].sum())
        scores.append(
            ClassScore(
                intent,
                right / called if called else 0.0,
                right / actual if actual else 0.0,
                2 * right / (actual + called) if actual + called else 0.0,
                actual,
            )
        )
    return scores


def reliability(confidence: Floats, right: Bools) -> list[Bin]:
    """Return the rows in bins of equal width by confidence, without empty ones."""
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(float(confidence[here].mean()), float(right[here].mean()), int(here.sum()))
        for here in (places == number for number in range(BINS))
        if here.any()
    ]


def calibration_error(confidence: Floats, right: Bools) -> Callable[[Ints], float]:
    """Return the measure `expected calibration error` (Guo et al. 2017, equation 5)."""

    def measure(rows: Ints) -> float:
        bins = reliability(confidence[rows], right[rows])
        return sum(each.rows * abs(each.confidence - each.right) for each in bins) / len(rows)

    return measure
