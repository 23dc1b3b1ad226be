"""Cost-quality curves of many models: each request to the one that is worth its price.

A router that expects quality q(m) of model m at the cost c(m) takes the model with the highest
q(m) - w * c(m). Swept over w, from "quality at any price" to "the cheapest", this gives a curve
of mean cost and mean quality, which is read off at the quality and at the cost of the best single
model. Between two neighbouring points it is a line: of two routers one may be drawn at random.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from router_worker.learned.curves import RESAMPLES, Floats, percentiles
from router_worker.learned.scores import Measured

STEPS: Final = 200
_CHUNK: Final = 50


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """What a router takes at each of W weights of cost, from 0 up: costs fall.

    `taken` is W x N, the places of the models; `cost` and `quality` are W x N: what the models
    taken cost, and how good their answers were.
    """

    weights: Floats
    taken: NDArray[np.int64]
    cost: Floats
    quality: Floats


@dataclass(frozen=True, slots=True)
class Savings:
    """What routing is worth beside always taking the best single model, whose place is `best`.

    `saved` is the share of its cost that is saved at equal mean quality, and `gained` the mean
    quality gained at no higher mean cost. Where routing is no better, one takes the best model
    always: both are 0. The weight of cost is read off on the same rows, which flatters a little.
    """

    best: int
    saved: Measured
    gained: Measured


def sweep(predicted: ArrayLike, scores: ArrayLike, costs: ArrayLike) -> Sweep:
    """Return what is taken, by N x M predicted qualities, and what comes of it.

    `scores` are N x M true qualities, `costs` M or N x M, in any currency. The weights are 0, and
    then rise by equal factors until the cheapest is always taken. Of models that are worth the
    same the cheapest is. Raises `ValueError` for shapes that don't fit.
    """
    quality, truth, cost = grids(predicted, scores, costs)
    ordered = np.sort(cost, axis=1)
    gaps = np.diff(ordered, axis=1)
    smallest = float(gaps[gaps > 0].min(initial=np.inf))
    widest = float((ordered[:, -1] - ordered[:, 0]).max())
    spread = float((quality.max(axis=1) - quality.min(axis=1)).max())
    weights = np.zeros(1)
    if widest > 0 and spread > 0:
        low, high = 1e-4 * spread / widest, 1.01 * spread / smallest
        weights = np.append(0.0, np.geomspace(low, high, STEPS))
    taken = np.empty((len(weights), len(quality)), np.int64)
    for i, weight in enumerate(weights):
        worth = quality - weight * cost
        best = worth >= worth.max(axis=1, keepdims=True)
        taken[i] = np.where(best, cost, np.inf).argmin(axis=1)
    rows = np.arange(len(quality))
    return Sweep(weights, taken, cost[rows, taken], truth[rows, taken])


def savings(
    predicted: ArrayLike,
    scores: ArrayLike,
    costs: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> Savings:
    """Return what routing by `predicted` is worth, with bootstrap intervals.

    Takes what `sweep` does. The best single model is the one with the highest mean score (of
    several, the cheapest), and stays the same in all draws. Raises `ValueError` as `sweep` does,
    and if that model costs nothing.
    """
    swept = sweep(predicted, scores, costs)
    _, truth, cost = grids(predicted, scores, costs)
    means, prices = truth.mean(axis=0), cost.mean(axis=0)
    best = int(np.where(means >= means.max(), prices, np.inf).argmin())
    if prices[best] <= 0:
        raise ValueError("the best model costs nothing: there is nothing to save")
    columns = [swept.cost.T, swept.quality.T, cost[:, [best]], truth[:, [best]]]
    table = np.hstack(columns)
    value = _read_off(table.mean(axis=0))
    n = len(table)
    drawn: list[tuple[float, float]] = []
    while len(drawn) < resamples:
        times = rng.multinomial(n, np.full(n, 1 / n), size=min(_CHUNK, resamples - len(drawn)))
        drawn += [_read_off(row) for row in times @ table / n]
    values = np.array(drawn, float).reshape(-1, 2).T
    return Savings(best, percentiles(value[0], values[0]), percentiles(value[1], values[1]))


def grids(
    predicted: ArrayLike, scores: ArrayLike, costs: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Return the three as arrays of N x M, or raise `ValueError`."""
    quality, truth, cost = (np.asarray(each, float) for each in (predicted, scores, costs))
    if quality.ndim != 2 or not quality.size or quality.shape != truth.shape:
        raise ValueError(f"predictions are {quality.shape} and scores {truth.shape}, not N x M")
    if cost.shape not in (quality.shape, quality.shape[1:]):
        raise ValueError(f"costs are {cost.shape}, not M or N x M of {quality.shape}")
    if not all(np.isfinite(each).all() for each in (quality, truth, cost)) or (cost < 0).any():
        raise ValueError("a number is not finite, or a cost is negative")
    return quality, truth, np.broadcast_to(cost, quality.shape)


def _read_off(means: Floats) -> tuple[float, float]:
    """Return what is saved and gained, from mean costs and qualities along the sweep, then best."""
    curve, (cost_best, quality_best) = means[:-2], means[-2:]
    cost, quality = np.split(curve, 2)
    cheapest = lowest(cost, quality - quality_best)
    highest = -lowest(-quality, cost_best - cost)
    return max(0.0, 1 - cheapest / cost_best), max(0.0, highest - quality_best)


def lowest(values: Floats, slack: Floats) -> float:
    """Return the lowest value along the line through points where slack (a line, too) is >= 0."""
    allowed = slack >= 0
    found = [float(values[allowed].min(initial=np.inf))]
    crossing = np.flatnonzero(allowed[1:] != allowed[:-1])
    for i in crossing:
        part = slack[i] / (slack[i] - slack[i + 1])
        found.append(float(values[i] + part * (values[i + 1] - values[i])))
    return min(found)
