"""What `modelyard train` and `modelyard evaluate` do: data files in, a model or a report out."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelyard.errors import ModelyardError
from router_worker.learned import evaluate_intents, evaluate_quality
from router_worker.learned.comparable import comparable
from router_worker.learned.embeddings import Embedder, open_embedder
from router_worker.learned.evaluate_quality import Judged
from router_worker.learned.intents import PART as INTENTS
from router_worker.learned.intents import IntentClassifier, wants_embeddings
from router_worker.learned.model_file import (
    Model,
    add_parts,
    kept_parts,
    load_model,
    save_model,
)
from router_worker.learned.part import Part
from router_worker.learned.quality import QualityPredictor
from router_worker.learned.rows import IntentRow, PairRow, Row, ScoresRow, read_rows
from router_worker.learned.train_intents import OUT_OF_SCOPE, train_intents
from router_worker.learned.train_quality import train_quality
from router_worker.oracles.shelf import BUILTIN_FOLDER

QUALITY: Final = "quality"
"""The name of the predictor's part in a model folder."""

BUILTIN: Final = "builtin"

TIMED: Final = 2_000
WARM_UP: Final = 100
"""Decisions that are timed, and those before them that are not."""


def train(
    paths: Sequence[Path], folder: Path, *, seed: int = 0, embeddings: str | None = None
) -> dict[str, Any]:
    """Train what the rows are for, put it into `folder`, and return what came of it.

    A folder that has a model keeps the parts that the rows say nothing of. With `embeddings` (as
    `open_embedder` has it) the classifier has them as features. Raises `ModelyardError`.
    """
    check_seed(seed)
    intents, quality = sorted_out(paths)
    embedder = embedder_for(intents, embeddings)
    kept_parts(folder)  # what could not be kept is told before minutes of training
    parts: dict[str, Part] = {}
    told: dict[str, Any] = {"model": str(folder), "seed": seed}
    if intents:
        pairs = [(row.text, row.intent) for row in intents]
        trained = train_intents(pairs, seed=seed, embedder=embedder)
        parts[INTENTS] = trained.part
        told[INTENTS] = {
            "rows": len(intents),
            "intents": len(trained.classifier.labels),
            "accuracy": trained.accuracy,
            "accuracy_interval": [trained.accuracy_low, trained.accuracy_high],
            "in_scope_kept_right": trained.kept_right,
            "oos_recall": trained.recall,
        }
    if quality:
        predictor = train_quality(quality, seed=seed)
        parts[QUALITY] = Part(*predictor.to_part())
        told[QUALITY] = {**predictor.trained, "models": list(predictor.models)}
    add_parts(folder, parts)
    told["model_bytes"] = size_of(folder)
    return told


def check_seed(seed: int) -> None:
    """Raise `ModelyardError` for a seed that is none."""
    if seed < 0:
        raise ModelyardError(f"a seed is a whole number from 0, not {seed}")


def evaluate(
    paths: Sequence[Path],
    model: str | None = None,
    *,
    seed: int = 0,
    pair: tuple[str, str] | None = None,
    prices: Mapping[str, float] | None = None,
    embeddings: str | None = None,
) -> dict[str, Any]:
    """Return what a model is worth on the rows, as JSON.

    `model` is a folder, or `builtin`. Without it the rows are cross-validated: each is judged by
    a model that was trained on others; but rows of the built-in model's own intents are judged by
    that. With `embeddings` and no model, the rows are always cross-validated. Raises
    `ModelyardError`.
    """
    check_seed(seed)
    intents, quality = sorted_out(paths)
    if intents and quality:
        raise ModelyardError("evaluate rows of one kind at a time: intents, or scores of models")
    embedder = embedder_for(intents, embeddings)
    rng = np.random.default_rng(seed)
    if intents:
        return intents_report(intents, model, rng, seed, embedder)
    return quality_report(quality, model, rng, seed, pair, prices)


def intents_report(
    rows: Sequence[IntentRow],
    model: str | None,
    rng: np.random.Generator,
    seed: int,
    embedder: Embedder | None = None,
) -> dict[str, Any]:
    """Return the report of an intent classifier."""
    if model is None and embedder is None and knows(builtin(), rows):
        model = BUILTIN
    if model is None:
        # Each row is trained on many times here, and an embedder may be slow.
        kept = None if embedder is None else embedder.remembering()
        guesses, classify = evaluate_intents.cross_validated(rows, seed=seed, embedder=kept)
        pairs = [(row.text, row.intent) for row in rows]
        part = train_intents(pairs, folds=2, seed=seed, embedder=kept).part
        size = size_when_saved({INTENTS: part})
        if embedder is not None:  # what is timed must not remember
            classify = IntentClassifier(part, embedder).classify
    else:
        folder = folder_of(model)
        found = load_model(folder)
        embedder = embedder if wants_embeddings(found) else None
        classify = IntentClassifier.of(found, embedder).classify
        guesses, size = [classify(row.text) for row in rows], size_of(folder)
    return {
        **head("intents", rows, model, evaluate_intents.FOLDS, embedder),
        **dict.fromkeys(("apgr", "cpt50", "cpt80")),
        **evaluate_intents.report(rows, guesses, rng),
        "decision_ms": timed(classify, [row.text for row in rows]),
        "model_bytes": size,
    }


def quality_report(
    rows: Sequence[PairRow | ScoresRow],
    model: str | None,
    rng: np.random.Generator,
    seed: int,
    pair: tuple[str, str] | None,
    prices: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return the report of a quality predictor."""
    found: Judged
    given = rows
    rows, others = comparable(rows, pair)
    if model is None:
        found = evaluate_quality.cross_validated(rows, seed=seed, others=others)
        size = size_when_saved({QUALITY: Part(*train_quality(given, seed=seed).to_part())})
    else:
        folder = folder_of(model)
        found = evaluate_quality.judged(rows, predictor_of(load_model(folder)).predict)
        size = size_of(folder)
    told = head(QUALITY, rows, model, evaluate_quality.folds_for(len(rows)))
    if len(rows) < len(given):
        told["how"] += f", on those of {len(given):,} rows that have scores of two models"
    return {
        **told,
        **dict.fromkeys(("accuracy", "macro_f1", "in_scope_kept_right", "oos_recall")),
        **evaluate_quality.report(found, rng, pair=pair, prices=prices),
        "decision_ms": timed(found.predict, found.prompts),
        "model_bytes": size,
    }


def head(
    kind: str,
    rows: Sequence[Row],
    model: str | None,
    folds: int,
    embedder: Embedder | None = None,
) -> dict[str, Any]:
    """Return what a report begins with: what was measured, and how."""
    how = f"cross-validated in {folds} folds" if model is None else f"by the model {model}"
    if embedder is not None:
        how += f", with embeddings {embedder.label}"
    return {"kind": kind, "rows": len(rows), "how": how}


def sorted_out(
    paths: Sequence[Path],
) -> tuple[list[IntentRow], list[PairRow | ScoresRow]]:
    """Return the rows of all files: those about intents, and those about models."""
    intents: list[IntentRow] = []
    quality: list[PairRow | ScoresRow] = []
    for path in paths:
        for row in read_rows(path):
            if isinstance(row, IntentRow):
                intents.append(row)
            else:
                quality.append(row)
    if not intents and not quality:
        raise ModelyardError("no data: give at least one file of JSON lines")
    return intents, quality


def embedder_for(intents: Sequence[IntentRow], place: str | None) -> Embedder | None:
    """Return the embedder that was asked for. Raises `ModelyardError`."""
    if place is None:
        return None
    if not intents:
        raise ModelyardError("--embeddings are for rows of intents, and there are none")
    return open_embedder(place)


def folder_of(model: str) -> Path:
    """Return where a model lies: `builtin` is the one of the package."""
    return BUILTIN_FOLDER if model == BUILTIN else Path(model)


def builtin() -> IntentClassifier | None:
    """Return the classifier that comes with modelyard, if it is there."""
    if not (BUILTIN_FOLDER / "model.json").exists():
        return None
    return IntentClassifier.load(BUILTIN_FOLDER)


def knows(classifier: IntentClassifier | None, rows: Sequence[IntentRow]) -> bool:
    """Return whether all intents of the rows are the classifier's."""
    if classifier is None:
        return False
    return {row.intent for row in rows} <= {*classifier.labels, OUT_OF_SCOPE}


def predictor_of(model: Model) -> QualityPredictor:
    """Return the predictor of a model. Raises `ModelFileError` if it has none."""
    part = model.part(QUALITY)
    try:
        return QualityPredictor.from_part(part.meta, part.arrays)
    except ValueError as error:
        raise part.error(str(error)) from error


def timed(decide: Callable[[str], object], texts: Sequence[str]) -> dict[str, float]:
    """Return how long single decisions take, in milliseconds, on one thread."""
    some = [texts[number % len(texts)] for number in range(min(TIMED, max(len(texts), 200)))]
    for text in some[:WARM_UP]:
        decide(text)
    took = []
    for text in some:
        started = time.perf_counter_ns()
        decide(text)
        took.append((time.perf_counter_ns() - started) / 1e6)
    p50, p99 = np.quantile(took, (0.5, 0.99))
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4)}


def size_of(folder: Path) -> int:
    """Return the bytes of a model folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def size_when_saved(parts: Mapping[str, Part]) -> int:
    """Return the bytes that a model takes on disk."""
    folder = Path(tempfile.mkdtemp())
    try:
        save_model(folder, parts)
        return size_of(folder)
    finally:
        shutil.rmtree(folder)
