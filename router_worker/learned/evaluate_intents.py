"""What an intent classifier is worth: measures, baselines and what is behind them, as JSON."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

import numpy as np

from router_worker.learned.embeddings import Embedder
from router_worker.learned.keyword_rules import INTENTS, by_keywords
from router_worker.learned.rows import IntentRow
from router_worker.learned.scores import (
    Bools,
    calibration_error,
    class_scores,
    confusion,
    macro_f1,
    measured,
    reliability,
    share,
)
from router_worker.learned.train_intents import OUT_OF_SCOPE, train_intents

FOLDS: Final = 5
INNER_FOLDS: Final = 3
"""Of the rows that a fold is trained on: they make its calibration and its gate."""


class Guess(Protocol):
    """What is looked at in a classifier's guess."""

    @property
    def intent(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def unknown(self) -> bool: ...


def cross_validated(
    rows: Sequence[IntentRow],
    *,
    folds: int = FOLDS,
    seed: int = 0,
    embedder: Embedder | None = None,
) -> tuple[list[Guess], Callable[[str], Guess]]:
    """Return a guess for each row by a classifier that has not seen it, and the last classifier.

    Raises `TrainingError` if nothing can be learned, and `EmbeddingsError` if the embedder fails.
    """
    rng = np.random.default_rng(seed)
    dealt = np.empty(len(rows), np.int64)
    for intent in sorted({row.intent for row in rows}):
        here = np.flatnonzero([row.intent == intent for row in rows])
        dealt[rng.permutation(here)] = np.arange(len(here)) % folds
    guesses: dict[int, Guess] = {}
    classify: Callable[[str], Guess] | None = None
    for fold in range(min(folds, len(rows))):
        pairs = [(row.text, row.intent) for row, at in zip(rows, dealt, strict=True) if at != fold]
        trained = train_intents(pairs, folds=INNER_FOLDS, seed=seed, embedder=embedder)
        classify = trained.classifier.classify
        held = np.flatnonzero(dealt == fold).tolist()
        guesses |= {number: classify(rows[number].text) for number in held}
    assert classify is not None
    return [guesses[number] for number in range(len(rows))], classify


def report(
    rows: Sequence[IntentRow], guesses: Sequence[Guess], rng: np.random.Generator
) -> dict[str, Any]:
    """Return all measures of the guesses. What is not in the rows is None."""
    inside = np.array([row.intent != OUT_OF_SCOPE for row in rows])
    right = np.array(
        [is_right(row, guess.intent) for row, guess in zip(rows, guesses, strict=True)]
    )
    kept = np.array([not guess.unknown for guess in guesses])
    within = [row for row, here in zip(rows, inside, strict=True) if here]
    said = [guess.intent for guess, here in zip(guesses, inside, strict=True) if here]
    # An answer that is the second right one counts as the first.
    truth = [
        intent if is_right(row, intent) else row.intent
        for row, intent in zip(within, said, strict=True)
    ]
    labels = sorted({*truth, *said})
    numbers = {label: number for number, label in enumerate(labels)}
    actual = np.array([numbers[each] for each in truth], np.int64)
    called = np.array([numbers[each] for each in said], np.int64)
    confidence = np.array(
        [guess.confidence for guess, here in zip(guesses, inside, strict=True) if here]
    )
    count = len(within)
    measures = {
        "accuracy": (share(right[inside]), count),
        "macro_f1": (macro_f1(actual, called, len(labels)), count),
        "in_scope_kept_right": (share((right & kept)[inside]), count),
        "oos_recall": (share(~kept[~inside]), int((~inside).sum())),
        "calibration_error": (calibration_error(confidence, right[inside]), count),
    }
    found = {
        name: measured(measure, size, rng) if size else None
        for name, (measure, size) in measures.items()
    }
    table = confusion(actual, called, len(labels))
    return {
        **{name: None if each is None else each.value for name, each in found.items()},
        "intervals": {
            name: None if each is None else [each.low, each.high] for name, each in found.items()
        },
        "baselines": baselines(within),
        "classes": [asdict(each) for each in class_scores(table, labels)],
        "confusion": {"labels": labels, "table": table.tolist()},
        "reliability": [asdict(each) for each in reliability(confidence, right[inside])],
        "rows_in_scope": count,
        "rows_out_of_scope": int((~inside).sum()),
    }


def is_right(row: IntentRow, intent: str) -> bool:
    """Return whether an intent is right for a row: its own, or its second."""
    return intent in (row.intent, row.second)


def baselines(rows: Sequence[IntentRow]) -> Mapping[str, Any]:
    """Return the accuracy of the most common intent, and of keyword rules if they know them."""
    if not rows:
        return {}
    common = Counter(row.intent for row in rows).most_common(1)[0][0]
    found = {"most_common": mean(is_right(row, common) for row in rows)}
    if {row.intent for row in rows} <= INTENTS:
        found["keyword_rules"] = mean(is_right(row, by_keywords(row.text)) for row in rows)
    return {name: {"accuracy": value} for name, value in found.items()}


def mean(flags: Any) -> float:
    """Return the share that is true."""
    array: Bools = np.fromiter(flags, bool)
    return float(array.mean())
