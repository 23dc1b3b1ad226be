"""What was learned is worth its megabytes on public data; the whole measure is a benchmark.

`tests/conftest.py` leaves this file out where the data is not there.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from public_data import FOLDER

from router_worker.learned.evaluate_intents import report
from router_worker.learned.intents import IntentClassifier
from router_worker.learned.rows import IntentRow, read_rows
from router_worker.learned.train_intents import train_intents
from router_worker.oracles.shelf import BUILTIN_FOLDER


def intents(path: Path) -> list[IntentRow]:
    return [row for row in read_rows(path) if isinstance(row, IntentRow)]


def labelled() -> list[IntentRow]:
    """Prompts of one file with the labels of another, line by line."""
    prompts, labels = (
        [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]
        for name in (
            "prompts_selfinstruct_seed175_unlabelled.jsonl",
            "labels_selfinstruct_seed175.jsonl",
        )
    )
    return [
        IntentRow(
            prompt["text"] + (f"\n{prompt['input']}" if prompt["input"] else ""),
            label["intent"],
            label["second"],
        )
        for prompt, label in zip(prompts, labels, strict=True)
    ]


def test_the_builtin_classifier_knows_prompts_of_a_source_it_never_saw() -> None:
    rows = labelled()
    classify = IntentClassifier.load(BUILTIN_FOLDER).classify
    found = report(rows, [classify(row.text) for row in rows], np.random.default_rng(0))

    assert found["accuracy"] >= 0.80
    assert found["accuracy"] >= found["baselines"]["keyword_rules"]["accuracy"] + 0.10


def test_it_was_not_trained_on_them() -> None:
    training = Path(__file__).resolve().parents[2] / "training" / "intents"
    seen = {row.text for path in training.glob("*.jsonl") for row in intents(path)}
    assert len(seen) > 5_000
    assert not seen & {row.text for row in labelled()}


@pytest.mark.timeout(900)
def test_150_intents_are_told_apart_and_what_is_none_of_them_is_found() -> None:
    rows = intents(FOLDER / "intent_clinc150_train.jsonl")
    trained = train_intents([(row.text, row.intent) for row in rows], folds=2)
    held = intents(FOLDER / "intent_clinc150_val.jsonl")
    guesses = [trained.classifier.classify(row.text) for row in held]
    found = report(held, guesses, np.random.default_rng(0))

    assert found["accuracy"] >= 0.925
    assert found["in_scope_kept_right"] >= 0.86
    assert found["oos_recall"] >= 0.90
