"""Training boosted trees: each corrects what the ones before it got wrong."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_worker.learned.trees import DEPTH, LEAVES, NODES


@dataclass(frozen=True, slots=True, eq=False)
class Boosted:
    """K trees for one output, in the form of `Trees`: K x NODES, K x NODES, K x LEAVES."""

    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    leaf: NDArray[np.float32]


def boost(
    features: NDArray[np.float32],
    targets: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    trees: int,
    rate: float = 0.05,
    min_rows: int = 20,
    share: float = 0.2,
    shrink: float = 10.0,
) -> Boosted:
    """Return trees whose sum is the log-odds of `targets` (0..1, N) given `features` (N x F).

    Gradient boosting of the log loss with Newton steps in the leaves (Friedman 2001, "Greedy
    Function Approximation", algorithm 5); `shrink` is added to the curvature of a leaf, as in
    XGBoost (Chen and Guestrin 2016, equation 5). Each split looks at a `share` of the features.
    The first tree has the mean on top of its leaves. Needs scikit-learn.
    """
    from sklearn.tree import DecisionTreeRegressor  # noqa: PLC0415 - deciding has no scikit-learn

    mean = np.clip(targets.mean(), 0.001, 0.999)
    start = float(np.log(mean / (1 - mean)))
    odds = np.full(len(targets), start)
    # Checked once here: checking again for each tree would take half of the time.
    features = np.ascontiguousarray(features, np.float32)
    found = Boosted(
        np.zeros((trees, NODES), np.int16),
        np.full((trees, NODES), np.finfo(np.float32).max, np.float32),
        np.zeros((trees, LEAVES), np.float32),
    )
    for k in range(trees):
        p = 1 / (1 + np.exp(-odds))
        tree = DecisionTreeRegressor(
            max_depth=DEPTH,
            min_samples_leaf=min(min_rows, max(1, len(targets) // 10)),
            max_features=share,
            random_state=int(rng.integers(2**31)),
        ).fit(features, targets - p, check_input=False)
        where = tree.apply(features, check_input=False)
        size = tree.tree_.node_count
        gradient = np.bincount(where, targets - p, size)
        curvature = np.bincount(where, p * (1 - p), size)
        step = rate * gradient / (curvature + shrink)
        odds += step[where]
        _lay_out(tree.tree_, step, found, k)
    if trees:
        found.leaf[0] += start
    return found


def _lay_out(tree: Any, step: NDArray[np.float64], found: Boosted, k: int) -> None:
    """Write a tree of scikit-learn into row k of the heap, its shallow leaves at full depth."""
    left, right = tree.children_left, tree.children_right
    todo = [(0, 0)]
    while todo:
        node, at = todo.pop()
        if at >= NODES:
            found.leaf[k, at - NODES] = step[node]
        elif left[node] < 0:
            # No feature is above the highest threshold: all go left, down to the one leaf.
            todo.append((node, 2 * at + 1))
        else:
            found.feature[k, at] = tree.feature[node]
            # Rounded down: sklearn compares float32 features with a float64 threshold.
            threshold = np.float32(tree.threshold[node])
            if threshold > tree.threshold[node]:
                threshold = np.nextafter(threshold, np.float32(-np.inf))
            found.threshold[k, at] = threshold
            todo += [(left[node], 2 * at + 1), (right[node], 2 * at + 2)]
