"""Training the quality predictor from prompts and the scores of models' answers to them.

All that has to be chosen is chosen by what it predicts for rows it has not seen: the rows are cut
into `FOLDS`, and what is learned from all but one fold is judged on that one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import ModelyardError
from router_worker.learned.boosting import Boosted, boost
from router_worker.learned.ngrams import gist, words
from router_worker.learned.quality import (
    BUCKETS,
    MAX_LOG_ODDS,
    MAX_MODELS,
    MAX_Z,
    QualityPredictor,
    buckets,
)
from router_worker.learned.rows import PairRow, ScoresRow
from router_worker.learned.shape import shape
from router_worker.learned.trees import Trees

Floats: TypeAlias = NDArray[np.float64]

FOLDS: Final = 5
TREES: Final = 60
MIN_ROWS: Final = 50
"""From fewer scores of a model than these, nothing can be told apart from chance."""

PENALTIES: Final = (0.3, 1.0)
"""How freely the linear predictors may follow the rows (C of scikit-learn): less to more."""

SHAPE_SCALE: Final = 0.2
"""How large a deviation in shape is beside the words, whose vector has length 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """N prompts as numbers: hashed words (sparse, N x U), and shapes (N x S).

    `used` are the U buckets that more than one prompt has, and `idf` their inverse frequency.
    """

    text: Any
    used: NDArray[np.int64]
    idf: Floats
    shape: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def matrix(self) -> Any:
        """Return what the linear predictors see: a sparse matrix, N x (U + S)."""
        from scipy.sparse import csr_matrix, hstack  # noqa: PLC0415

        z = np.clip((self.shape - self.mean) / self.deviation, -MAX_Z, MAX_Z)
        return hstack([self.text, csr_matrix(z * SHAPE_SCALE)]).tocsr()


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """The linear predictor of one model: weights (U + S) and bias."""

    weight: Floats
    bias: float

    def __call__(self, matrix: Any) -> Floats:
        """Return the log-odds of each row."""
        odds: Floats = np.clip(matrix @ self.weight + self.bias, -MAX_LOG_ODDS, MAX_LOG_ODDS)
        return odds


def train_quality(rows: Sequence[PairRow | ScoresRow], *, seed: int = 0) -> QualityPredictor:
    """Return a predictor of how good each model's answer to a prompt is.

    The models of `PairRow`s are called "weak" and "strong". Rows may lack the scores of some
    models. Scores outside 0..1 are scaled to it by the lowest and the highest of all. Subjects
    are not looked at. The same rows and seed give the same predictor. Its `models` are in the
    order in which the rows name them: put predictors of different rows together by name.

    Raises `ModelyardError` if a model has fewer than `MIN_ROWS` scores, if there are fewer than
    `FOLDS` different prompts or more than `MAX_MODELS` models, or without scikit-learn.
    """
    need_sklearn()
    models, targets = scores(rows)
    rng = np.random.default_rng(seed)
    prompts = [row.prompt for row in rows]
    different = len(set(prompts))
    if different < FOLDS:
        raise ModelyardError(
            f"the rows have {different} different prompts; "
            f"at least {FOLDS} are needed to learn from"
        )
    inputs = read(prompts)
    matrix = inputs.matrix()
    fold = folds(prompts, rng)

    # The log-odds of each row from predictors that have not seen it, by penalty.
    unseen = {c: unseen_odds(matrix, targets, fold, c) for c in PENALTIES}
    best = min(PENALTIES, key=lambda c: log_loss(targets, unseen[c]))
    odds = unseen[best]
    features = np.hstack([inputs.shape, odds]).astype(np.float32)
    tree_odds = unseen_tree_odds(features, targets, fold, rng)
    blend = blended(targets, odds, tree_odds)

    linear = [fit_linear(matrix, targets[:, m], best) for m in range(len(models))]
    forest = [fit_trees(features, targets[:, m], rng) for m in range(len(models))]
    weights = np.array([each.weight for each in linear]).T
    table = np.zeros((BUCKETS, len(models) + 1), np.float32)
    used = len(inputs.used)
    table[inputs.used, :-1] = weights[:used] * inputs.idf[:, None]
    table[inputs.used, -1] = inputs.idf**2
    unseen_blend = blend[0] * odds + blend[1] * tree_odds + blend[2]
    return QualityPredictor(
        models=models,
        table=table,
        shape_mean=inputs.mean,
        shape_deviation=inputs.deviation,
        shape_weight=(weights[used:] * SHAPE_SCALE).astype(np.float32),
        bias=np.array([each.bias for each in linear], np.float32),
        trees=together(forest),
        blend=blend,
        trained={
            "rows": len(rows),
            "rows_sha256": rows_sha256(rows),
            "seed": seed,
            "cross_validation": {
                "folds": FOLDS,
                "log_loss": round(log_loss(targets, unseen_blend), 5),
                "log_loss_of_means": round(log_loss(targets, mean_odds(targets)), 5),
            },
        },
    )


def need_sklearn() -> None:
    """Raise `ModelyardError` if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401, PLC0415
    except ImportError as error:
        raise ModelyardError("training needs scikit-learn: pip install modelyard[train]") from error


def scores(rows: Sequence[PairRow | ScoresRow]) -> tuple[tuple[str, ...], Floats]:
    """Return the models, and N x M scores in 0..1, NaN where a row has none."""
    found = [scores_of(row) for row in rows]
    models = tuple(dict.fromkeys(model for each in found for model in each))
    if not models:
        raise ModelyardError("no rows to learn from")
    if len(models) > MAX_MODELS:
        raise ModelyardError(f"{len(models)} models; at most {MAX_MODELS} can be told apart")
    targets = np.array([[each.get(model, np.nan) for model in models] for each in found], float)
    for model, count in zip(models, (~np.isnan(targets)).sum(axis=0), strict=True):
        if count < MIN_ROWS:
            raise ModelyardError(
                f"model {model!r} has {count} scores; at least {MIN_ROWS} are needed to learn from"
            )
    low, high = float(np.nanmin(targets)), float(np.nanmax(targets))
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    if not 0.0 < high - low < np.inf:
        raise ModelyardError(f"the scores are from {low:g} to {high:g}: they can't be learned from")
    return models, (targets - low) / (high - low)


def scores_of(row: PairRow | ScoresRow) -> dict[str, float]:
    """Return a row's scores by model."""
    if isinstance(row, ScoresRow):
        return dict(row.scores)
    return {"weak": row.weak, "strong": row.strong}


def read(prompts: Sequence[str]) -> Inputs:
    """Return prompts as numbers, and how to standardize them."""
    from scipy.sparse import csr_matrix, diags  # noqa: PLC0415

    gists = [gist(prompt) for prompt in prompts]
    found = [words(each) for each in gists]
    shapes = np.array([shape(*each) for each in zip(gists, found, strict=True)])
    columns = [buckets(each) for each in found]
    ends = np.cumsum([0, *map(len, columns)])
    flat = np.concatenate(columns).astype(np.int64)
    rows_with = np.bincount(flat, minlength=BUCKETS)
    # Inverse document frequency as scikit-learn smooths it; what one prompt has, tells nothing.
    used = np.flatnonzero(rows_with > 1)
    idf = np.log((1 + len(prompts)) / (1 + rows_with)) + 1
    text = csr_matrix((idf[flat], flat, ends), shape=(len(prompts), BUCKETS))[:, used]
    length = np.sqrt(np.asarray(text.multiply(text).sum(axis=1)).ravel())
    text = diags(1 / np.maximum(length, 1e-9)) @ text
    deviation = shapes.std(axis=0)
    return Inputs(
        text=text,
        used=used,
        idf=idf[used],
        shape=shapes,
        mean=shapes.mean(axis=0),
        deviation=np.where(deviation > 1e-6, deviation, 1).astype(np.float32),
    )


def folds(prompts: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold of each row (0 to `FOLDS` - 1); rows of one prompt share theirs."""
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    dealt = rng.permutation(len(numbers)) % FOLDS
    return np.array([dealt[numbers[prompt]] for prompt in prompts], np.int64)


def fit_linear(matrix: Any, targets: Floats, c: float) -> Linear:
    """Return the linear predictor of one model, from the rows that have a target."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    has = np.flatnonzero(~np.isnan(targets))
    y = targets[has]
    if not (0 < y.mean() < 1):
        # All right or all wrong: no row tells another from it; Laplace's rule for the chance.
        p = (y.sum() + 1) / (len(y) + 2)
        return Linear(np.zeros(matrix.shape[1]), float(np.log(p / (1 - p))))
    # A score of 0.7 is 0.7 of a right answer and 0.3 of a wrong one.
    right, wrong = has[y > 0], has[y < 1]
    at = np.concatenate([right, wrong])
    label = np.concatenate([np.ones(len(right)), np.zeros(len(wrong))])
    weight = np.concatenate([targets[right], 1 - targets[wrong]])
    model = LogisticRegression(C=c, max_iter=200, tol=1e-3).fit(matrix[at], label, weight)
    return Linear(model.coef_[0], float(model.intercept_[0]))


def fit_trees(features: NDArray[np.float32], targets: Floats, rng: np.random.Generator) -> Boosted:
    """Return the trees of one model, from the rows that have a target."""
    has = ~np.isnan(targets)
    return boost(features[has], targets[has], rng, trees=TREES)


def together(forest: Sequence[Boosted]) -> Trees:
    """Return the trees of all models as one."""
    return Trees(
        feature=np.array([each.feature for each in forest]),
        threshold=np.array([each.threshold for each in forest]),
        leaf=np.array([each.leaf for each in forest]),
    )


def unseen_odds(matrix: Any, targets: Floats, fold: NDArray[np.int64], c: float) -> Floats:
    """Return N x M log-odds, each from a linear predictor trained on the other folds."""
    odds = np.empty_like(targets)
    for each in range(FOLDS):
        test = fold == each
        for m in range(targets.shape[1]):
            odds[test, m] = fit_linear(matrix[~test], targets[~test, m], c)(matrix[test])
    return odds


def unseen_tree_odds(
    features: NDArray[np.float32],
    targets: Floats,
    fold: NDArray[np.int64],
    rng: np.random.Generator,
) -> Floats:
    """Return N x M log-odds, each from trees trained on the other folds."""
    odds = np.empty_like(targets)
    for each in range(FOLDS):
        test = fold == each
        found = [fit_trees(features[~test], column, rng) for column in targets[~test].T]
        trees = together(found)
        odds[test] = [trees(row) for row in features[test]]
    return odds


def blended(targets: Floats, linear: Floats, trees: Floats) -> NDArray[np.float32]:
    """Return the weights of linear log-odds, of the trees' and of 1 (3 x M) that fit best.

    The first two are shared by all models, and none is negative. This calibrates the chances, too
    (Platt 1999), as the log-odds are of rows that their predictors have not seen.
    """
    models = targets.shape[1]
    has = ~np.isnan(targets)
    row, column = np.nonzero(has)
    inputs = np.zeros((len(row), 2 + models))
    inputs[:, 0], inputs[:, 1] = linear[has], trees[has]
    inputs[np.arange(len(row)), 2 + column] = 1
    weights = np.zeros(2 + models)
    kept = np.ones(2 + models, bool)
    for _ in range(3):
        weights[:] = 0
        weights[kept] = fit_linear_exactly(inputs[:, kept], targets[has])
        if (weights[:2] >= 0).all():
            break
        kept[:2] &= weights[:2] >= 0
    blend = np.empty((3, models), np.float32)
    blend[:2], blend[2] = weights[:2, None], weights[2:]
    return blend


def fit_linear_exactly(inputs: Floats, targets: Floats, *, shrink: float = 1.0) -> Floats:
    """Return the weights of a logistic regression on few inputs, by Newton's method.

    `shrink` is the weight of a penalty on squares; it keeps a model that is always right finite.
    """
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (targets - p) - shrink * weights
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs
        step = np.linalg.solve(curvature + shrink * np.eye(len(weights)), gradient)
        weights += step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def mean_odds(targets: Floats) -> Floats:
    """Return the log-odds of each model's mean score: what is known without looking at prompts."""
    means = np.clip(np.nanmean(targets, axis=0), 1e-6, 1 - 1e-6)
    odds: Floats = np.log(means / (1 - means))
    return odds


def rows_sha256(rows: Sequence[PairRow | ScoresRow]) -> str:
    """Return what tells one set of rows from another: their order does not count."""
    digest = hashlib.sha256()
    for line in sorted(json.dumps([row.prompt, scores_of(row)], sort_keys=True) for row in rows):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def log_loss(targets: Floats, odds: Floats) -> float:
    """Return the mean log loss in nats, over the scores there are; lower is better."""
    loss = np.logaddexp(0, odds) - targets * odds
    return float(np.nanmean(loss))
