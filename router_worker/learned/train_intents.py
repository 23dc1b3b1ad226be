"""Training the intent classifier, and measuring it on rows that it did not see.

The rows are dealt into folds; for each fold a network is trained on the others and asked about
this one. From these answers come the accuracy that is reported, the temperature of the
confidence, and the gate. The classifier itself is then trained on all rows.
"""

import hashlib
import importlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import ModelyardError
from router_worker.learned.calibration import choose_gate, fit_temperature, wilson
from router_worker.learned.embeddings import SCALE, Embedder
from router_worker.learned.intents import IntentClassifier, gate_scores, to_part
from router_worker.learned.network import Floats, Network, fit
from router_worker.learned.part import Part
from router_worker.learned.shortcut import with_shortcut
from router_worker.learned.vocabulary import Vocabulary

OUT_OF_SCOPE: Final = "oos"
"""The label of rows that are about none of the intents."""

UNITS: Final = 256
FEATURES: Final = 32_768
"""At most so many features: with 256 units of one byte each, 8 MiB."""

MAX_SHORTCUTS: Final = 64
"""With more labels a linear classifier would take too many of the units."""

FOLDS: Final = 5


class TrainingError(ModelyardError):
    """Nothing can be learned from these rows."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedIntents:
    """A classifier, its part of a model folder, and what cross-validation measured.

    `accuracy` is the share of in-scope rows whose best intent is right, from `accuracy_low` to
    `accuracy_high` with 95 % confidence (Wilson); `kept_right` the share that is right and passes
    the gate; `recall` the share of out-of-scope rows that the gate stops, None if there are none.
    """

    classifier: IntentClassifier
    part: Part
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    kept_right: float
    recall: float | None


def train_intents(
    rows: Sequence[tuple[str, str]],
    *,
    seed: int = 0,
    folds: int = FOLDS,
    embedder: Embedder | None = None,
) -> TrainedIntents:
    """Return a classifier trained on pairs of a text and its intent.

    Rows of the intent `oos` teach what is out of scope, and are never an answer. Equal rows and
    seeds make equal classifiers on the same machine. With an embedder, embeddings are features
    beside the words, and deciding needs the same one. Raises `TrainingError` if there are fewer
    than two intents or one has a single row, `EmbeddingsError` if the embedder fails, and
    `ModelyardError` without SciPy.
    """
    check_trainable()
    labels = check_rows(rows)
    texts = [text for text, _ in rows]
    outputs = [*labels, OUT_OF_SCOPE]
    truth = np.array([outputs.index(intent) for _, intent in rows], dtype=np.intp)
    count = len(labels)
    width = int(truth.max()) + 1
    embedded = None if embedder is None else embedder(texts) * np.float32(SCALE)

    logits = np.zeros((len(rows), width), np.float32)
    dealt = deal(truth, min(folds, len(rows)), np.random.default_rng(seed))
    for fold in range(int(dealt.max()) + 1):
        seen, held = np.flatnonzero(dealt != fold), np.flatnonzero(dealt == fold)
        known, asked = (None if embedded is None else embedded[each] for each in (seen, held))
        vocabulary, network = learn([texts[i] for i in seen], truth[seen], width, seed, known)
        logits[held] = network.logits(encode(vocabulary, [texts[i] for i in held], asked))
    inside = truth < count
    right = logits[inside, :count].argmax(axis=1) == truth[inside]
    temperature = fit_temperature(logits[inside, :count], truth[inside])
    scores = gate_scores(logits, count)
    gate = choose_gate(scores[inside], scores[~inside])
    kept_right = float((right & (scores[inside] >= gate)).mean())
    recall = float((scores[~inside] < gate).mean()) if not inside.all() else None
    low, high = wilson(int(right.sum()), len(right))

    vocabulary, network = learn(texts, truth, width, seed, embedded)
    part = to_part(vocabulary, network, labels, temperature, gate, embedder)
    measured = {
        "folds": int(dealt.max()) + 1,
        "accuracy": round(float(right.mean()), 5),
        "accuracy_95": [round(low, 5), round(high, 5)],
        "kept_right": round(kept_right, 5),
        "recall": None if recall is None else round(recall, 5),
    }
    trained_on = {
        "rows": dict(sorted(Counter(intent for _, intent in rows).items())),
        "rows_sha256": rows_sha256(rows),
        "seed": seed,
    }
    part = Part({**part.meta, **trained_on, "cross_validation": measured}, part.arrays)
    return TrainedIntents(
        IntentClassifier(part, embedder), part, float(right.mean()), low, high, kept_right, recall
    )


def check_trainable() -> None:
    """Raise `ModelyardError` if what training needs is not installed."""
    try:
        importlib.import_module("sklearn.linear_model")
    except ImportError as error:
        raise ModelyardError(
            "training needs scikit-learn and what comes with it: pip install modelyard[train]"
        ) from error


def check_rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return the intents of rows in order, without `oos`. Raises `TrainingError`."""
    counts = Counter(intent for _, intent in rows if intent != OUT_OF_SCOPE)
    labels = sorted(counts)
    if len(labels) < 2:
        there = repr(labels[0]) if labels else "none"
        raise TrainingError(f"rows of at least two intents are needed, there is {there}")
    single = [label for label in labels if counts[label] == 1]
    if single:
        raise TrainingError(f"intents with a single row can't be learned: {', '.join(single)}")
    return labels


def deal(truth: NDArray[np.intp], folds: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the fold of each row, such that each label is spread evenly over the folds."""
    dealt = np.zeros(len(truth), np.intp)
    shuffled = rng.permutation(len(truth))
    by_label = shuffled[np.argsort(truth[shuffled], kind="stable")]
    dealt[by_label] = np.arange(len(truth)) % folds
    return dealt


def learn(
    texts: Sequence[str],
    truth: NDArray[np.intp],
    width: int,
    seed: int,
    embedded: Floats | None = None,
) -> tuple[Vocabulary, Network]:
    """Return the vocabulary of texts and a network trained on them."""
    vocabulary = Vocabulary.of(texts, FEATURES)
    rows = encode(vocabulary, texts, embedded)
    # Without features there is nothing linear; and embeddings do what the shortcut is for.
    if width > MAX_SHORTCUTS or not len(vocabulary) or embedded is not None:
        return vocabulary, fit(rows, truth, width, units=UNITS, seed=seed)
    network = fit(rows.copy(), truth, width, units=UNITS - width, seed=seed)
    return vocabulary, with_shortcut(network, rows, truth, seed)


def encode(vocabulary: Vocabulary, texts: Sequence[str], embedded: Floats | None = None) -> Any:
    """Return texts x features as a SciPy CSR matrix of float32; last come the embeddings."""
    sparse = importlib.import_module("scipy.sparse")
    ids: list[NDArray[Any]] = []
    values: list[Floats] = []
    for text in texts:
        each, value = vocabulary.encode(text)
        ids.append(each.astype(np.int32))
        values.append(value)
    ends = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    data = (np.concatenate(values), np.concatenate(ids), ends)
    words = sparse.csr_matrix(data, shape=(len(texts), len(vocabulary)))
    if embedded is None:
        return words
    return sparse.hstack([words, sparse.csr_matrix(embedded)], format="csr")


def rows_sha256(rows: Sequence[tuple[str, str]]) -> str:
    """Return what tells one set of rows from another: their order does not count."""
    digest = hashlib.sha256()
    for line in sorted(json.dumps(row) for row in rows):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
