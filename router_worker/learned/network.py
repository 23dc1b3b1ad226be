"""A small neural network and its training: sparse rows in, one layer of rectified units, logits.

    logits = max(0, x W1 + b1) W2 + b2

Trained by Adam (Kingma & Ba 2015, arXiv:1412.6980) on cross-entropy with smoothed labels; inputs
and units are dropped at random (Srivastava et al. 2014), which is what keeps it from learning the
rows by heart. Moments of the first layer move only for features that a batch has. Training needs
SciPy, which scikit-learn brings; deciding is in `intents`.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

BATCH_ROWS: Final = 128
EPOCHS: Final = 20
MIN_STEPS: Final = 400
"""A few rows are seen more often, or nothing would be learned from them."""

LEARNING_RATE: Final = 2e-3
WARM_UP_STEPS: Final = 50
DROP_INPUTS: Final = 0.4
DROP_UNITS: Final = 0.5
SMOOTHING: Final = 0.1
_BLOCK: Final = 64
_BETA1, _BETA2, _EPSILON = np.float32(0.9), np.float32(0.99), np.float32(1e-8)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The weights: `w1` features x units, `b1` units, `w2` units x labels, `b2` labels."""

    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats

    def logits(self, rows: Any) -> Floats:
        """Return rows x labels for a sparse matrix of rows x features."""
        hidden: Floats = np.maximum(rows @ self.w1 + self.b1, 0)
        return hidden @ self.w2 + self.b2


def fit(rows: Any, labels: NDArray[np.intp], count: int, *, units: int, seed: int) -> Network:
    """Return a network trained on rows (SciPy CSR, float32) and their labels (0 to `count` - 1)."""
    rng = np.random.default_rng(seed)
    total, features = rows.shape
    deviation = np.float32(units**-0.5)
    net = Network(
        w1=rng.standard_normal((features, units), dtype=np.float32) * (deviation / np.float32(2)),
        b1=np.zeros(units, np.float32),
        w2=rng.standard_normal((units, count), dtype=np.float32) * deviation,
        b2=np.zeros(count, np.float32),
    )
    targets = np.full((count, count), SMOOTHING / count, np.float32)
    targets[np.diag_indices(count)] += 1 - SMOOTHING
    sparse, dense = Moments(net.w1), [Moments(each) for each in (net.b1, net.w2, net.b2)]
    size = min(BATCH_ROWS, max(8, total // 8))
    per_epoch = -(-total // size)
    steps = max(EPOCHS * per_epoch, MIN_STEPS)
    order = rng.permutation(total)
    for step in range(1, steps + 1):
        start = (step - 1) % per_epoch * size
        if start == 0:
            order = rng.permutation(total)
        rate = LEARNING_RATE * min(1, step / WARM_UP_STEPS) * (1 - (step - 1) / steps)
        batch = order[start : start + size]
        touched, first, others = gradients(net, rows[batch], targets[labels[batch]], rng)
        # A block at a time: what lies between then stays in the processor's cache.
        for top in range(0, len(touched), _BLOCK):
            block = slice(top, top + _BLOCK)
            sparse.step(first[block], step, rate, touched[block])
        for moments, gradient in zip(dense, others, strict=True):
            moments.step(gradient, step, rate)
    return net


def gradients(
    net: Network, rows: Any, targets: Floats, rng: np.random.Generator
) -> tuple[NDArray[Any], Floats, tuple[Floats, Floats, Floats]]:
    """Return which features a batch has, their gradient of `w1`, and those of `b1`, `w2`, `b2`."""
    rows.data *= keep(rows.data.shape, DROP_INPUTS, rng)
    touched, local = np.unique(rows.indices, return_inverse=True)
    narrow = type(rows)((rows.data, local, rows.indptr), shape=(rows.shape[0], len(touched)))
    before = narrow @ net.w1[touched] + net.b1
    mask = keep(before.shape, DROP_UNITS, rng) * (before > 0)
    hidden = before * mask
    error = (softmax(hidden @ net.w2 + net.b2) - targets) / np.float32(len(targets))
    back = (error @ net.w2.T) * mask
    return touched, narrow.T @ back, (back.sum(0), hidden.T @ error, error.sum(0))


class Moments:
    """Adam's two moments of one array of weights, which it changes in place."""

    def __init__(self, weights: Floats) -> None:
        self.weights = weights
        self.first = np.zeros_like(weights)
        self.second = np.zeros_like(weights)

    def step(self, gradient: Floats, step: int, rate: float, at: Any = slice(None)) -> None:
        """Move the weights at `at` against their gradient; `step` counts from 1."""
        first = self.first[at]
        first *= _BETA1
        first += (1 - _BETA1) * gradient
        second = self.second[at]
        second *= _BETA2
        second += (1 - _BETA2) * np.square(gradient)
        self.first[at], self.second[at] = first, second
        unbiased = np.sqrt(second / (1 - _BETA2**step))
        unbiased += _EPSILON
        self.weights[at] -= np.float32(rate) / (1 - _BETA1**step) * (first / unbiased)


def keep(shape: tuple[int, ...], drop: float, rng: np.random.Generator) -> Floats:
    """Return a mask that is zero with probability `drop`, and has mean 1."""
    kept = rng.random(shape, dtype=np.float32) >= drop
    return kept.astype(np.float32) / np.float32(1 - drop)


def softmax(logits: Floats) -> Floats:
    """Return the probabilities of each row of logits."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scaled: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return scaled
