"""The intent classifier: what it learns from a few rows, and what it makes of any text."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import ModelyardError
from router_worker.learned.calibration import (
    MOST_STOPPED,
    choose_gate,
    fit_temperature,
    wilson,
)
from router_worker.learned.intents import Guess, IntentClassifier
from router_worker.learned.model_file import ModelFileError, Part, load_model, save_model
from router_worker.learned.network import softmax
from router_worker.learned.ngrams import HEAD_CHARS, TAIL_CHARS, gist, pieces, word_keys, words
from router_worker.learned.train_intents import TrainedIntents, TrainingError, deal, train_intents
from router_worker.learned.vocabulary import Vocabulary

SENTENCES = {
    "weather": ["will it {} in {}", "is {} expected in {} today", "forecast of {} for {}"],
    "translate": ["how do you say {} in {}", "translate {} to {}", "what is {} called in {}"],
    "math": ["what is {} plus {}", "multiply {} by {}", "divide {} by {} and round"],
}
FILLERS = {
    "weather": (["rain", "snow", "storm", "hail", "fog"], ["paris", "rome", "oslo", "cairo"]),
    "translate": (["hello", "thanks", "bread", "water"], ["french", "greek", "dutch", "thai"]),
    "math": (["seven", "twelve", "forty", "nine"], ["three", "eleven", "sixty", "two"]),
}
OUT_OF_SCOPE = [
    "who won the chess final last year",
    "recommend me a thriller about spies",
    "my shoes are too small",
    "which trees lose their leaves",
    "how old is the universe",
    "play some jazz please",
    "where did i park",
    "do dogs dream at night",
]


def rows() -> list[tuple[str, str]]:
    """Some texts of each intent, and some of none."""
    made = [
        (sentence.format(first, second), intent)
        for intent, sentences in SENTENCES.items()
        for sentence in sentences
        for first in FILLERS[intent][0]
        for second in FILLERS[intent][1]
    ]
    return made + [(text, "oos") for text in OUT_OF_SCOPE]


@pytest.fixture(scope="module")
def trained() -> TrainedIntents:
    """A classifier of three intents."""
    return train_intents(rows(), folds=3)


@pytest.fixture(scope="module")
def classifier(trained: TrainedIntents) -> IntentClassifier:
    """A classifier of three intents."""
    return trained.classifier


# -- what it learns ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("will it snow in lisbon", "weather"),
        ("WILL IT SNOW IN LISBON", "weather"),
        ("how do you say goodbye in thai", "translate"),
        ("mulitply seven by sixty", "math"),
    ],
)
def test_texts_like_the_rows(classifier: IntentClassifier, text: str, intent: str) -> None:
    guess = classifier.classify(text)

    assert guess.intent == intent
    assert not guess.unknown
    assert guess.confidence > 0.8
    assert guess.runner_up in SENTENCES.keys() - {intent}
    assert 0 < guess.margin < guess.confidence


@pytest.mark.parametrize("text", ["", "  \n", "?!", "\x00", "日本語", "zzyzx qwrk", *OUT_OF_SCOPE])
def test_texts_unlike_the_rows_are_unknown(classifier: IntentClassifier, text: str) -> None:
    assert classifier.classify(text).unknown


def test_out_of_scope_is_never_an_answer(classifier: IntentClassifier) -> None:
    assert set(classifier.labels) == SENTENCES.keys()
    assert {classifier.classify(text).intent for text in OUT_OF_SCOPE} <= SENTENCES.keys()


def test_what_was_measured(trained: TrainedIntents) -> None:
    assert trained.accuracy_low < trained.accuracy <= trained.accuracy_high
    assert trained.accuracy > 0.95
    assert trained.kept_right > 0.8
    assert trained.recall is not None
    meta = trained.part.meta
    assert meta["rows"] == {"math": 48, "oos": 8, "translate": 48, "weather": 60}
    assert meta["cross_validation"]["folds"] == 3


def test_equal_rows_make_equal_classifiers(trained: TrainedIntents) -> None:
    again = train_intents(rows(), folds=3)

    assert again.part.meta == trained.part.meta
    for name, array in trained.part.arrays.items():
        np.testing.assert_array_equal(again.part.arrays[name], array)


def test_equal_texts_make_equal_rows_in_every_process() -> None:
    """Python's hashes of texts differ between processes, and with them the order of sets."""
    program = (
        "from router_worker.learned.vocabulary import Vocabulary;"
        "texts = ['when does my parcel arrive in town', 'my parcel is late, when is it here'];"
        "print([each.tolist() for each in Vocabulary.of(texts * 2, 999).encode(texts[0])])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1


def test_few_rows_of_two_intents_and_nothing_out_of_scope() -> None:
    few = [(f"please refund order {n}", "refund") for n in range(15)]
    few += [(f"where is my parcel {n}", "parcel") for n in range(15)]

    trained = train_intents(few)

    assert trained.classifier.classify("i want a refund").intent == "refund"
    assert trained.accuracy == 1
    assert trained.recall is None


def test_rows_that_say_nothing_are_trained_on_all_the_same() -> None:
    trained = train_intents([("a", "x"), ("?", "x"), ("", "y"), ("b", "y")])

    assert trained.classifier.classify("c").unknown


@pytest.mark.parametrize(
    ("few", "what"),
    [
        ([], "rows of at least two intents are needed, there is none"),
        ([("a", "x"), ("b", "x"), ("c", "oos")], "at least two intents are needed, there is 'x'"),
        ([("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")], "with a single row can't .*: y, z"),
    ],
)
def test_rows_that_nothing_can_be_learned_from(few: list[tuple[str, str]], what: str) -> None:
    with pytest.raises(TrainingError, match=what):
        train_intents(few)


def test_training_without_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)

    with pytest.raises(ModelyardError, match=r"pip install modelyard\[train\]"):
        train_intents(rows())


# -- what it makes of any text -------------------------------------------------------------------


def check(guess: Guess, labels: tuple[str, ...]) -> None:
    """What holds for every guess."""
    assert guess.intent in labels
    assert guess.runner_up in labels
    assert guess.runner_up != guess.intent
    assert 1 / len(labels) - 1e-6 <= guess.confidence <= 1
    assert 0 <= guess.margin <= guess.confidence


@given(st.text())
def test_any_text_gets_a_guess(classifier: IntentClassifier, text: str) -> None:
    check(classifier.classify(text), classifier.labels)


@given(st.lists(st.sampled_from([w for text, _ in rows() for w in text.split()]), max_size=30))
def test_guesses_and_scores_agree(classifier: IntentClassifier, words: list[str]) -> None:
    text = " ".join(words)
    guess = classifier.classify(text)
    (scores,) = classifier.scores([text])

    check(guess, classifier.labels)
    assert scores.sum() == pytest.approx(1, abs=1e-5)
    assert scores.max() == pytest.approx(guess.confidence, abs=1e-5)
    assert scores[classifier.labels.index(guess.intent)] == scores.max()


def test_a_saved_classifier_guesses_the_same(trained: TrainedIntents, tmp_path: Path) -> None:
    save_model(tmp_path, {"intents": trained.part})
    loaded = IntentClassifier.load(tmp_path)

    for text, _ in rows():
        assert loaded.classify(text) == trained.classifier.classify(text)
    assert load_model(tmp_path).part("intents").meta == trained.part.meta


# -- models that are none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "arrays", "what"),
    [
        ({"labels": ["math", "weather"]}, {}, "has 2 labels, and 4 outputs for them"),
        ({"labels": ["math"]}, {}, "has fewer than two labels"),
        ({"labels": ["math", "\ud800"]}, {}, "half a surrogate pair"),
        ({"temperature": 0}, {}, "'temperature' is not a finite number from"),
        ({"gate": None}, {}, "'gate' is not a number"),
        ({}, {"b1": np.zeros(9, np.float32)}, "array 'b1' is 9, not 256"),
        ({}, {"weights": np.ones(5, np.float32)}, "its vocabulary has .* features, and 5 weights"),
        ({}, {"keys": np.zeros(4, np.uint8) + 255}, "its vocabulary 'utf-8' codec can't decode"),
        ({}, {"keys": np.zeros(3, np.int8)}, "array 'keys' is of int8, not uint8"),
        ({}, {"b2": np.full(4, 1e30, np.float32)}, "has weights that are too large"),
    ],
)
def test_a_part_that_is_no_classifier(
    trained: TrainedIntents, meta: dict[str, Any], arrays: dict[str, Any], what: str
) -> None:
    part = Part({**trained.part.meta, **meta}, {**trained.part.arrays, **arrays})

    with pytest.raises(ModelFileError, match=what):
        IntentClassifier(part)


@pytest.mark.parametrize(
    "change", [lambda a: a * 0, lambda a: -a, lambda a: np.where(a == a.max(), 0, a)]
)
def test_features_without_weight(
    trained: TrainedIntents, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> None:
    weights = change(trained.part.arrays["weights"]).astype(np.float32)

    with pytest.raises(ModelFileError, match="has a weight that is not above zero"):
        IntentClassifier(Part(trained.part.meta, {**trained.part.arrays, "weights": weights}))


# -- features ------------------------------------------------------------------------------------


def keys(text: str) -> set[str]:
    """The features of a text that are not pieces of words."""
    read = gist(text)
    return set(word_keys(read, words(read)))


def test_words_their_neighbours_and_their_places() -> None:
    assert keys("Can't I go?") == {
        "=can't", "=i", "=go", "=?",
        "can't i", "i go", "go ?", "can't _ go", "i _ ?",
        "^can't", "^can't i", "$?", "~question",
    }  # fmt: skip


def test_pieces_of_words() -> None:
    assert pieces("cats") == [
        " ca", "cat", "ats", "ts ",
        " cat", "cats", "ats ",
        " cats", "cats ",
    ]  # fmt: skip
    assert pieces("a") == [" a "]
    assert pieces("?") == []


@pytest.mark.parametrize(
    ("text", "trait"),
    [
        ("add 3 apples", "digits"),
        ("what is 3 * 4", "operator"),
        ("solve x = 4(y+1)", "operator"),
        ("fix this:\n```\nx\n```", "code"),
        ("why does print(x) fail", "code"),
        ("how do you say 'good night' in greek", "quote"),
        ("which one?\nA. red\nB. blue", "options"),
        ("sort:\n- pears\n- apples", "list"),
        ("summarize this:\nit was late.", "block"),
        ("was heißt 日本", "foreign"),
        ("why is the sky blue?", "question"),
        ("x" * 300, "200 characters"),
    ],
)
def test_traits_of_a_text(text: str, trait: str) -> None:
    assert f"~{trait}" in keys(text)


def test_a_plain_text_has_no_traits() -> None:
    assert not any(key.startswith("~") for key in keys("don't tell me, it's what we've seen"))


def test_a_long_document_is_read_at_its_ends() -> None:
    document = "translate this " + "filler " * 10_000 + "into dutch"
    found = keys(document)

    assert {"=translate", "=dutch", "into dutch", "$dutch", "~800 characters"} <= found
    assert len(gist(document)) <= HEAD_CHARS + TAIL_CHARS + 2


def test_a_text_that_grows_is_bounded() -> None:
    assert len(gist("ﷺ" * 2_000)) == HEAD_CHARS + TAIL_CHARS + 2


@given(st.text())
def test_features_are_those_of_the_normal_form(text: str) -> None:
    assert all("\n" not in key and key for key in keys(text))
    assert keys(text) == keys(text.replace("’", "'"))


@given(st.lists(st.text(), max_size=20), st.integers(0, 50))
def test_a_vocabulary_comes_back_as_it_was(texts: list[str], limit: int) -> None:
    vocabulary = Vocabulary.of(texts * 2, limit)
    again = Vocabulary.unpack(vocabulary.pack(), vocabulary.weights)

    assert again.keys == vocabulary.keys
    assert len(again) <= limit
    for text in texts:
        ids, values = vocabulary.encode(text)
        assert len(set(ids.tolist())) == len(ids) == len(values)
        assert float(values @ values) <= 2.001


# -- calibration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 3)).astype(np.float32) * 2
    drawn = rng.random((20_000, 1)) < softmax(logits).cumsum(axis=1)

    found = fit_temperature(logits * np.float32(temperature), drawn.argmax(axis=1))

    assert found == pytest.approx(temperature, rel=0.05)


def test_the_gate_stops_what_is_out_of_scope() -> None:
    inside = np.linspace(5, 10, 1000, dtype=np.float32)
    outside = np.linspace(0, 6, 100, dtype=np.float32)

    gate = choose_gate(inside, outside)

    assert (outside < gate).mean() >= 0.93
    assert (inside >= gate).mean() > 0.85


def test_the_gate_lets_most_pass_where_nothing_tells_them_apart() -> None:
    same = np.linspace(0, 1, 1000, dtype=np.float32)

    assert (same >= choose_gate(same, same)).mean() == pytest.approx(1 - MOST_STOPPED, abs=0.01)
    assert (same >= choose_gate(same, same[:0])).mean() == pytest.approx(0.97, abs=0.01)


def test_the_interval_of_a_share() -> None:
    """Agresti & Coull 1998 give 0.2366 to 0.7634 for 5 of 10."""
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(10, 10)[1] == 1
    assert wilson(0, 10)[0] == 0


@given(st.lists(st.integers(0, 4), min_size=1), st.integers(1, 7), st.integers(0, 99))
def test_each_label_is_spread_evenly(labels: list[int], folds: int, seed: int) -> None:
    truth = np.array(labels, dtype=np.intp)
    dealt = deal(truth, folds, np.random.default_rng(seed))

    for label in set(labels):
        sizes = np.bincount(dealt[truth == label], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_created_is_told(trained: TrainedIntents, tmp_path: Path) -> None:
    save_model(tmp_path, {"intents": trained.part}, created=datetime(2026, 1, 2, tzinfo=UTC))

    assert load_model(tmp_path).created == "2026-01-02T00:00:00+00:00"
