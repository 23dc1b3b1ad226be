"""A linear classifier beside the network, put into the same weights.

On requests from a source that was not trained on, a logistic regression over the same features is
right more often than the network, and on requests like those of training less often: the sum of
both is good at either. It needs no format of its own: a unit that is lifted so far that it never
falls below zero is linear, and the bias of the output takes the lift away again.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router_worker.learned.network import Floats, Network

FREEDOM: Final = 10.0
"""C of the logistic regression."""

LONGEST: Final = float(np.sqrt(2.0))
"""The length of a row: two blocks of features of length 1 (`vocabulary`)."""


def with_shortcut(network: Network, rows: Any, truth: NDArray[np.intp], seed: int) -> Network:
    """Return a network whose logits are those of `network` plus a linear classifier's.

    It has one unit more for each label. `rows` (SciPy CSR) and `truth` are what it was trained on.
    """
    weights, bias = linear(rows, truth, network.b2.shape[0], seed)
    # Units share the 8 bits of a row: none of them may be much larger than the others.
    shrink = max(1.0, float(np.abs(weights).max() / max(np.abs(network.w1).max(), 1e-8)))
    weights = weights / np.float32(shrink)
    lift = np.float32(1.05 * LONGEST) * np.linalg.norm(weights, axis=0).astype(np.float32)
    through = np.eye(len(bias), dtype=np.float32) * np.float32(shrink)
    return Network(
        w1=np.hstack([network.w1, weights]),
        b1=np.concatenate([network.b1, lift]),
        w2=np.vstack([network.w2, through]),
        b2=network.b2 + bias - lift * np.float32(shrink),
    )


def linear(rows: Any, truth: NDArray[np.intp], count: int, seed: int) -> tuple[Floats, Floats]:
    """Return weights (features x labels) and biases of a logistic regression."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - training only

    found = LogisticRegression(C=FREEDOM, max_iter=300, random_state=seed).fit(rows, truth)
    weights = np.zeros((rows.shape[1], count), np.float32)
    bias = np.zeros(count, np.float32)
    if len(found.classes_) == 2:  # it has one row of weights for the two
        weights[:, found.classes_[1]] = found.coef_[0]
        bias[found.classes_[1]] = found.intercept_[0]
    else:
        weights[:, found.classes_] = found.coef_.T
        bias[found.classes_] = found.intercept_
    return weights, bias
