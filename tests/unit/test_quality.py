"""The quality predictor: what it learns, what it says, and what it refuses."""

import builtins
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import ModelyardError
from router_worker.learned.curves import pair_curve
from router_worker.learned.evaluate_quality import cross_validated
from router_worker.learned.ngrams import words
from router_worker.learned.quality import BUCKETS, QualityPredictor, buckets
from router_worker.learned.rows import PairRow, ScoresRow
from router_worker.learned.shape import NAMES, shape
from router_worker.learned.train_quality import blended, log_loss, rows_sha256, train_quality
from router_worker.learned.trees import LEAVES, NODES, Trees

TOPICS = ("history of the old kings", "sum of the prime numbers", "colour of spring flowers")


def example(i: int) -> PairRow:
    """Return a row: the weak model fails at sums, and at what is asked in a roundabout way."""
    topic = TOPICS[i % 3]
    hard = i % 7 == 0
    prompt = f"What is the {topic} number {i}?" + " Not the first, but the one after it." * hard
    return PairRow(prompt, weak=float(i % 3 != 1 and not hard), strong=1.0)


@pytest.fixture(scope="module")
def pair() -> QualityPredictor:
    return train_quality([example(i) for i in range(300)])


def test_learns_what_each_model_can_do(pair: QualityPredictor) -> None:
    easy = pair.predict("What is the history of the old kings number 1234?")
    sums = pair.predict("What is the sum of the prime numbers number 1234?")
    assert list(easy) == ["weak", "strong"]
    assert easy["weak"] > 0.85
    assert sums["weak"] < 0.15
    assert min(easy["strong"], sums["strong"]) > 0.95


def test_ranks_rows_it_has_not_seen_by_what_the_strong_model_gains(pair: QualityPredictor) -> None:
    rows = [example(i) for i in range(300, 400)]
    said = [pair.predict(row.prompt) for row in rows]
    gain = [each["strong"] - each["weak"] for each in said]
    curve = pair_curve(gain, [row.weak for row in rows], [row.strong for row in rows])
    assert curve.apgr > 0.75  # the oracle's is 0.79 here


def test_same_rows_and_seed_give_the_same(pair: QualityPredictor) -> None:
    again = train_quality([example(i) for i in range(300)])
    assert again.predict("What is it?") == pair.predict("What is it?")


def test_survives_being_written(pair: QualityPredictor) -> None:
    meta, arrays = pair.to_part()
    again = QualityPredictor.from_part(json.loads(json.dumps(meta)), arrays)
    for i in range(300, 330):
        prompt = example(i).prompt
        assert again.predict(prompt) == pytest.approx(pair.predict(prompt), abs=0.002)


@given(st.text())
def test_any_text_has_a_chance_between_none_and_certainty(text: str) -> None:
    said = TINY.predict(text)
    assert all(0 <= chance <= 1 for chance in said.values())
    assert np.isfinite(shape(text, words(text))).all()


@pytest.mark.parametrize("text", ["", "\n\n", "\ud83d", "a" * 10**6, "A. \nB. \nC. ", "١٢٣ 1/2"])
def test_odd_texts_are_no_trouble(text: str, pair: QualityPredictor) -> None:
    assert all(0 <= chance <= 1 for chance in pair.predict(text).values())


def test_middle_of_a_long_prompt_is_not_read(pair: QualityPredictor) -> None:
    head, tail = "What is the sum? " * 200, " So which of them is it?" * 50
    assert pair.predict(head + "x" * 10_000 + tail) == pair.predict(head + "y " * 50_000 + tail)


def test_rows_may_lack_models_and_scores_may_be_graded() -> None:
    rows = []
    for i in range(240):
        points = {"small": 2.0 if i % 3 == 1 else 9.0, "large": 9.0, "other": 1.0}
        del points[("small", "large", "other")[i % 4 % 3]]
        rows.append(ScoresRow(example(i).prompt, points))
    learned = train_quality(rows)
    assert set(learned.models) == {"small", "large", "other"}
    said = learned.predict("What is the sum of the prime numbers number 77?")
    # From 1 to 10 points only 1 to 9 were given, so 9 is 1 and 2 is 1/8.
    assert said["large"] > 0.9
    assert said["small"] == pytest.approx(1 / 8, abs=0.1)
    assert said["other"] < 0.1


def test_chances_are_calibrated_where_nothing_can_be_learned() -> None:
    rng = np.random.default_rng(0)
    rows = [PairRow(f"question {i}", float(rng.random() < 0.3), 1.0) for i in range(400)]
    learned = train_quality(rows)
    said = [learned.predict(f"question {i}")["weak"] for i in range(400, 500)]
    assert np.mean(said) == pytest.approx(0.3, abs=0.06)
    assert np.std(said) < 0.1


def test_its_part_says_what_it_was_trained_on_and_how_well_it_did(pair: QualityPredictor) -> None:
    meta, _ = pair.to_part()
    measured = meta["cross_validation"]
    assert (meta["rows"], meta["seed"], measured["folds"]) == (300, 0, 5)
    assert measured["log_loss"] < measured["log_loss_of_means"]
    rows = [example(i) for i in range(300)]
    assert meta["rows_sha256"] == rows_sha256(rows[::-1])
    assert meta["rows_sha256"] != rows_sha256(rows[1:])


@pytest.mark.parametrize("scores", [(5.0, 5.0), (-1e308, 1e308)])
def test_scores_that_can_not_be_scaled_are_refused(scores: tuple[float, float]) -> None:
    with pytest.raises(ModelyardError, match="they can't be learned from"):
        train_quality([PairRow("hello", *scores)] * 60)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ModelyardError, match="model 'weak' has 10 scores; at least 50"):
        train_quality([example(i) for i in range(10)])
    with pytest.raises(ModelyardError, match="no rows"):
        train_quality([])
    with pytest.raises(ModelyardError, match="65 models; at most 64"):
        train_quality([ScoresRow("hello", {str(m): 1.0 for m in range(65)})] * 60)


def test_rows_of_too_few_prompts_are_refused() -> None:
    rows = [PairRow(f"What is {i % 3}?", weak=float(i % 2), strong=1.0) for i in range(90)]
    with pytest.raises(ModelyardError, match="3 different prompts; at least 5"):
        train_quality(rows)
    with pytest.raises(ModelyardError, match="different prompts; at least 5"):
        cross_validated(rows)


def test_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelyardError, match=r"pip install modelyard\[train\]"):
        train_quality([example(i) for i in range(60)])


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("bias", None, "has no array 'bias'"),
        ("bias", np.zeros(3, np.float32), "array 'bias' is 3, not 2"),
        ("bias", np.zeros(2), "is of float64, not float32"),
        ("bias", np.full(2, np.nan, np.float32), "'bias' has a number that is not finite"),
        ("bucket", np.array([5, 3], np.int32), "not of rising numbers below 262,144"),
        ("bucket", np.array([-1], np.int32), "not of rising numbers"),
        ("bucket", np.array([BUCKETS], np.int32), "not of rising numbers"),
        ("tree_feature", np.full((2, 1, NODES), 999, np.int16), "not of numbers from 0 to"),
        ("tree_leaf", np.zeros((2, 5, LEAVES), np.float32), "array 'tree_leaf' is 2 x 5 x 8"),
        ("table", np.full((1, 3), -1, np.float16), "negative frequency"),
        ("shape_deviation", np.zeros(len(NAMES), np.float32), "not above 0"),
    ],
)
def test_part_that_can_not_be_is_refused(name: str, array: Any, what: str) -> None:
    meta, arrays = TINY.to_part()
    changed = {**arrays, name: array}
    if array is None:
        del changed[name]
    with pytest.raises(ValueError, match=what):
        QualityPredictor.from_part(meta, changed)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("models", [], "has 0 models"),
        ("models", ["a", "a"], "has a text twice"),
        ("models", "weak", "not a list of texts"),
        ("shape", ["length"], "train it"),
    ],
)
def test_metadata_that_can_not_be_is_refused(key: str, value: Any, what: str) -> None:
    meta, arrays = TINY.to_part()
    with pytest.raises(ValueError, match=what):
        QualityPredictor.from_part({**meta, key: value}, arrays)


def test_trees_go_left_up_to_the_threshold() -> None:
    feature = np.zeros((1, 1, NODES), np.int16)
    threshold = np.array([[[4, 2, 6, 1, 3, 5, 7]]], np.float32)
    trees = Trees(feature, threshold, np.arange(8, dtype=np.float32).reshape(1, 1, 8))
    found = [float(trees(np.array([x], np.float32))[0]) for x in (0, 1, 1.5, 3, 4, 5.5, 7, 8)]
    assert found == [0, 0, 1, 2, 3, 5, 6, 7]


def test_words_and_neighbours_are_counted_once_and_numbers_alike() -> None:
    assert buckets(["sum", "12"]) == buckets(["sum", "7"])
    assert len(buckets(["a", "b", "a", "b"])) == 4  # a, b, "a b", "b a"
    assert len(buckets([])) == 0


def test_blend_leaves_out_what_does_not_help() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(0, 1, (2_000, 1))
    targets = (rng.random((2_000, 1)) < 1 / (1 + np.exp(-truth))).astype(float)
    weights = blended(targets, 2 * truth, rng.normal(0, 3, truth.shape))
    assert weights[0, 0] == pytest.approx(0.5, abs=0.1)  # it was said twice as surely as it is
    assert weights[1, 0] < 0.05


def test_log_loss_of_a_coin() -> None:
    targets = np.array([[1.0, np.nan], [0.0, 0.5]])
    assert log_loss(targets, np.zeros((2, 2))) == pytest.approx(np.log(2))


def tiny() -> QualityPredictor:
    """Return a predictor with weights drawn at random."""
    rng = np.random.default_rng(6)
    n = len(NAMES)

    def normal(*size: int) -> Any:
        return rng.normal(0, 1, size).astype(np.float32)

    table = np.zeros((BUCKETS, 3), np.float32)
    used = buckets(["what", "is", "it"])[:1]
    table[used] = np.abs(normal(1, 3))
    return QualityPredictor(
        models=("weak", "strong"),
        table=table,
        shape_mean=normal(n),
        shape_deviation=np.abs(normal(n)) + 0.1,
        shape_weight=normal(n, 2),
        bias=normal(2),
        trees=Trees(
            rng.integers(0, n + 2, (2, 4, NODES)).astype(np.int16),
            normal(2, 4, NODES),
            normal(2, 4, LEAVES),
        ),
        blend=normal(3, 2),
    )


TINY = tiny()
