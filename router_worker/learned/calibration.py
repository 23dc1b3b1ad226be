"""What makes scores mean something: the temperature, the gate, and the interval of a share."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router_worker.learned.network import Floats

RECALL: Final = 0.93
"""The share of out-of-scope rows that the gate should stop: a little above the 90 % that is
promised, because it is measured on few rows."""

MOST_STOPPED: Final = 0.15
"""At most this share of in-scope rows is stopped, even where the two can't be told apart."""

STOPPED_BLINDLY: Final = 0.03
"""The share of in-scope rows that is stopped where no out-of-scope rows are known."""

_STEPS: Final = 40
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def fit_temperature(logits: Floats, truth: NDArray[np.intp]) -> float:
    """Return the temperature at which softmax(logits / temperature) is likeliest to be right.

    `logits` is rows x labels. The loss is convex in 1 / temperature and has one minimum, which
    golden-section search finds between 1/50 and 50.
    """
    low, high = math.log(1 / 50), math.log(50)
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(logits, truth, math.exp(left)) < loss(logits, truth, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def loss(logits: Floats, truth: NDArray[np.intp], temperature: float) -> float:
    """Return the mean negative log likelihood of the right labels."""
    scaled = (logits - logits.max(axis=1, keepdims=True)) / np.float32(temperature)
    likelihood = scaled[np.arange(len(truth)), truth] - np.log(np.exp(scaled).sum(axis=1))
    return -float(likelihood.mean(dtype=np.float64))


def choose_gate(inside: Floats, outside: Floats) -> float:
    """Return the score from which a text counts as in scope.

    `inside` and `outside` are the scores of rows that are in and out of scope.
    """
    if not len(outside):
        return float(np.quantile(inside, STOPPED_BLINDLY))
    wanted = np.quantile(outside, RECALL, method="higher")
    # The gate itself passes.
    above = np.nextafter(wanted, np.float32(math.inf), dtype=np.float32)
    return float(min(above, np.quantile(inside, MOST_STOPPED)))


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval that holds the true share with 95 % confidence (Wilson 1927)."""
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = (
        z
        / (1 + z * z / trials)
        * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    )
    # At the ends rounding could leave the share itself outside.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
