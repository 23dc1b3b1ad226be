"""The classifier that comes with modelyard is the one that its training rows make."""

from pathlib import Path

import pytest

from router_worker.learned.intents import PART, IntentClassifier
from router_worker.learned.keyword_rules import INTENTS, by_keywords
from router_worker.learned.model_file import Model, load_model
from router_worker.learned.rows import IntentRow, read_rows
from router_worker.learned.train_intents import rows_sha256
from router_worker.oracles.shelf import BUILTIN_FOLDER

ROWS = Path(__file__).resolve().parents[2] / "training" / "intents"
HELD = ROWS / "test.jsonl"
MAX_BYTES = 10 * 1024 * 1024


def rows(path: Path) -> list[IntentRow]:
    return [row for row in read_rows(path) if isinstance(row, IntentRow)]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(BUILTIN_FOLDER)


def test_it_was_made_of_the_rows_that_are_here(model: Model) -> None:
    training = [
        (row.text, row.intent)
        for path in sorted(ROWS.glob("*.jsonl"))
        if path != HELD
        for row in rows(path)
    ]
    assert model.part(PART).meta["rows_sha256"] == rows_sha256(training), "run: make model"


def test_rows_of_the_test_part_were_not_trained_on() -> None:
    held = {row.text for row in rows(HELD)}
    trained = {row.text for path in ROWS.glob("*.jsonl") if path != HELD for row in rows(path)}
    assert not held & trained


def test_it_knows_the_nine_intents_and_is_small(model: Model) -> None:
    assert set(IntentClassifier.of(model).labels) == INTENTS
    assert sum(path.stat().st_size for path in BUILTIN_FOLDER.iterdir()) <= MAX_BYTES


def test_it_is_right_on_rows_that_were_held_apart(model: Model) -> None:
    classify = IntentClassifier.of(model).classify
    held = rows(HELD)
    right = sum(classify(row.text).intent == row.intent for row in held) / len(held)
    by_rules = sum(by_keywords(row.text) == row.intent for row in held) / len(held)

    assert len(held) >= 9 * 30
    assert right >= 0.90
    assert right >= by_rules + 0.10
