"""How good each model's answer to a prompt would be, predicted from the prompt alone.

Two predictors in a row, small enough to be looked up in a tenth of a millisecond:

1. a linear one for each model, on the words of the prompt (TF-IDF of words and of neighbours,
   hashed into `BUCKETS` rows of a table) and on its shape (`shape.py`);
2. boosted trees (`trees.py`) on the shape and on what the linear ones said of all models, since
   a prompt that one model can't answer is hard for others, too.

Their log-odds are blended and calibrated with weights that training chose on rows it had set
aside (`train_quality.py`). Nothing but numpy is needed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router_worker.learned.ngrams import gist, words
from router_worker.learned.part import ModelFileError, Part
from router_worker.learned.shape import NAMES, shape
from router_worker.learned.trees import LEAVES, NODES, Trees

BUCKETS: Final = 2**18
"""Words and pairs of words that fall into one bucket count as the same."""

MAX_Z: Final = 4.0
"""An unheard-of length is no more than four deviations from the mean of the training rows."""

MAX_LOG_ODDS: Final = 8.0
MAX_MODELS: Final = 64
"""The table takes a megabyte of memory for each."""

MAX_TREES: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class QualityPredictor:
    """What was learned of M models; called with a prompt, tells how good each would be.

    `table` (float32, `BUCKETS` x (M + 1)) has a row for each bucket of words: what it adds to
    each model's log-odds, and its squared inverse document frequency. `shape_mean`,
    `shape_deviation` (float32, S) standardize the shape, `shape_weight` (float32, S x M) and
    `bias` (float32, M) are the rest of the linear predictors. `blend` (float32, 3 x M) is the
    weight of the linear log-odds, of the trees' and of 1. `trained` says what it was trained on
    and how well it did there; it goes into the file, for people.
    """

    models: tuple[str, ...]
    table: NDArray[np.float32]
    shape_mean: NDArray[np.float32]
    shape_deviation: NDArray[np.float32]
    shape_weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    trees: Trees
    blend: NDArray[np.float32]
    trained: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, text: str) -> dict[str, float]:
        """Return for each model the chance that its answer to `text` is good enough (0..1).

        Where the training rows had graded scores it is the expected score, scaled to 0..1.
        """
        return dict(zip(self.models, self.chances(text).tolist(), strict=True))

    def chances(self, text: str) -> NDArray[np.float32]:
        """Return what `predict` does as an array, in the order of `models`."""
        read = gist(text)
        found = words(read)
        built = shape(read, found)
        linear = self.linear(found, built)
        trees = self.trees(np.concatenate((built, linear)))
        return chance(self.blend[0] * linear + self.blend[1] * trees + self.blend[2])

    def linear(self, found: Sequence[str], built: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the linear predictors' log-odds for a prompt's words and its shape."""
        z = (built - self.shape_mean) / self.shape_deviation
        odds = self.bias + bounded(z, MAX_Z) @ self.shape_weight
        sums = self.table[buckets(found)].sum(axis=0)
        if sums[-1] > 0:
            odds += sums[:-1] / np.sqrt(sums[-1])
        return bounded(odds, MAX_LOG_ODDS)

    def to_part(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return JSON metadata and named arrays, from which `from_part` makes the same again."""
        meta = {**self.trained, "models": list(self.models), "shape": list(NAMES)}
        # Only rows that say something, in half precision: a chance changes by less than 0.001.
        used = np.flatnonzero(self.table[:, -1]).astype(np.int32)
        arrays: dict[str, NDArray[Any]] = {
            "bucket": used,
            "table": self.table[used].astype(np.float16),
            "shape_mean": self.shape_mean,
            "shape_deviation": self.shape_deviation,
            "shape_weight": self.shape_weight,
            "bias": self.bias,
            "tree_feature": self.trees.feature,
            "tree_threshold": self.trees.threshold,
            "tree_leaf": self.trees.leaf,
            "blend": self.blend,
        }
        return meta, arrays

    @classmethod
    def from_part(cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the predictor that `to_part` was called on.

        Raises `ValueError` where a key or an array is missing or is not what it must be.
        """
        try:
            return cls._read(Part(meta, arrays, where="quality"))
        except ModelFileError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def _read(cls, part: Part) -> Self:
        models, names = part.names("models"), part.names("shape")
        if not 0 < len(models) <= MAX_MODELS:
            raise part.error(f"has {len(models)} models, not 1 to {MAX_MODELS:,}")
        if names != NAMES:
            raise part.error("was trained by a version that looks at prompts differently: train it")
        n, size = len(models), len(NAMES)
        bucket = part.array("bucket", "int32", (None,))
        if len(bucket) and not (
            bucket[0] >= 0 and bucket[-1] < BUCKETS and (np.diff(bucket) > 0).all()
        ):
            raise part.error(f"array 'bucket' is not of rising numbers below {BUCKETS:,}")
        table = np.zeros((BUCKETS, n + 1), np.float32)
        table[bucket] = part.array("table", "float16", (len(bucket), n + 1))
        if (table[:, -1] < 0).any():
            raise part.error("array 'table' has a negative frequency")
        feature = part.array("tree_feature", "int16", (n, None, NODES))
        trees = feature.shape[1]
        if trees > MAX_TREES:
            raise part.error(f"has {trees:,} trees for a model, more than {MAX_TREES:,}")
        if feature.size and not (feature.min() >= 0 and feature.max() < size + n):
            raise part.error(f"array 'tree_feature' is not of numbers from 0 to {size + n - 1}")
        found = cls(
            models=models,
            table=table,
            shape_mean=part.array("shape_mean", "float32", (size,)),
            shape_deviation=part.array("shape_deviation", "float32", (size,)),
            shape_weight=part.array("shape_weight", "float32", (size, n)),
            bias=part.array("bias", "float32", (n,)),
            trees=Trees(
                feature=feature,
                threshold=part.array("tree_threshold", "float32", (n, trees, NODES)),
                leaf=part.array("tree_leaf", "float32", (n, trees, LEAVES)),
            ),
            blend=part.array("blend", "float32", (3, n)),
        )
        if not (found.shape_deviation > 0).all():
            raise part.error("array 'shape_deviation' has a number that is not above 0")
        for name, array in part.arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise part.error(f"array {name!r} has a number that is not finite")
        return found


def buckets(found: Sequence[str]) -> list[int]:
    """Return the buckets of words and of their neighbours, each once.

    Numbers count as one word: which number it is says little, and the shape counts its digits.
    """
    plain = ["0" if "0" <= word[0] <= "9" else word for word in found]
    # `surrogatepass`: half a pair can come in through JSON, and is no reason to fail here.
    keys = "\n".join([*plain, ""]).encode("utf-8", "surrogatepass").splitlines(keepends=True)
    sums = list(map(crc32, keys))
    # A checksum that goes on from the one of the word before is that of both.
    return list({each & (BUCKETS - 1) for each in (*sums, *map(crc32, keys[1:], sums))})


def bounded(values: NDArray[np.float32], most: float) -> NDArray[np.float32]:
    """Return values, none further from 0 than `most`; several times as fast as `np.clip`."""
    found: NDArray[np.float32] = np.maximum(np.minimum(values, most), -most)
    return found


def chance(odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of log-odds."""
    found: NDArray[np.float32] = np.reciprocal(1 + np.exp(-odds))
    return found
