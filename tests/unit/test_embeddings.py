"""Embeddings beside the words: what they teach, where they come from, and what is refused."""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import write_classifier, write_embeddings

from modelyard.catalog import Catalog, Model
from modelyard.errors import ModelyardError
from modelyard.messages import Request
from modelyard.routes import Route
from router_worker.learned.commands import evaluate, train
from router_worker.learned.embeddings import (
    BATCH_TEXTS,
    PROBED_WORDS,
    PROBES,
    Embedder,
    EmbeddingsError,
    open_embedder,
    probes,
)
from router_worker.learned.evaluate_intents import cross_validated
from router_worker.learned.intents import IntentClassifier
from router_worker.learned.model_file import ModelFileError, Part, load_model, save_model
from router_worker.learned.ngrams import gist
from router_worker.learned.rows import IntentRow
from router_worker.learned.train_intents import MAX_SHORTCUTS, TrainedIntents, train_intents
from router_worker.normal import normal
from router_worker.oracles.shelf import LOOK_EVERY_S, Shelf
from router_worker.policy import decide

MONEY, PARCEL = (1.0, 0.0, 0.1, 0.0), (0.0, 1.0, 0.0, 0.1)
VECTORS = {
    **dict.fromkeys(("refund", "cashback", "compensation"), MONEY),
    **dict.fromkeys(("parcel", "mail", "shipment"), PARCEL),
}
TURNED = {word: vector[::-1] for word, vector in VECTORS.items()}
LONGER = {word: (*vector, 0.5) for word, vector in VECTORS.items()}
SENTENCES = ("about my {}", "what about the {}", "a {} now", "{} is late", "any {} yet", "{}")
INTENT_OF = {"refund": "money", "cashback": "money", "parcel": "delivery", "mail": "delivery"}
OUT_OF_SCOPE = ("who won", "play some jazz", "do dogs dream", "how old are you", "is it cold")
NEVER_SEEN = {"compensation": "money", "shipment": "delivery"}


def rows() -> list[tuple[str, str]]:
    made = [
        (sentence.format(word), intent)
        for word, intent in INTENT_OF.items()
        for sentence in SENTENCES
    ]
    return made + [(text, "oos") for text in OUT_OF_SCOPE]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of vectors that words of one meaning share."""
    folder = tmp_path_factory.mktemp("embeddings") / "tiny"
    write_embeddings(folder, VECTORS)
    return folder


@pytest.fixture(scope="module")
def embedder(vectors: Path) -> Embedder:
    return open_embedder(str(vectors))


@pytest.fixture(scope="module")
def trained(embedder: Embedder) -> TrainedIntents:
    return train_intents(rows(), folds=2, embedder=embedder)


def from_vectors(folder: Path, found: Mapping[str, Sequence[float]]) -> Embedder:
    write_embeddings(folder, found)
    return open_embedder(str(folder))


# -- what they teach -----------------------------------------------------------------------------


def test_a_synonym_that_was_never_seen_is_right_with_embeddings_and_a_guess_without(
    trained: TrainedIntents,
) -> None:
    without = train_intents(rows(), folds=2).classifier

    for sentence in SENTENCES:
        texts = {sentence.format(word): intent for word, intent in NEVER_SEEN.items()}
        for text, intent in texts.items():
            assert trained.classifier.classify(text).intent == intent
        # To the one that only knows words, the two texts are the same.
        assert len({without.classify(text).intent for text in texts}) == 1


def test_a_text_of_which_only_the_embedding_says_something_is_not_unknown_for_that(
    trained: TrainedIntents,
) -> None:
    guess = trained.classifier.classify("shipment")

    assert (guess.intent, guess.unknown) == ("delivery", False)
    assert trained.classifier.classify("zzyzx").unknown


def test_they_teach_many_intents_as_well() -> None:
    names = [f"intent{n}" for n in range(MAX_SHORTCUTS + 2)]
    turned = np.random.default_rng(0).normal(size=(len(names), 32))

    def by_name(texts: list[str]) -> list[list[float]]:
        at = [[n for n, name in enumerate(names) if text.endswith(f" {name}")] for text in texts]
        return [turned[each[0]].tolist() if each else [0.0] * 32 for each in at]

    many = [(f"{start} {name}", name) for name in names for start in ("a", "the", "my")]
    trained = train_intents(many, folds=2, embedder=Embedder("names", by_name))

    assert trained.classifier.classify("some intent7").intent == "intent7"


def test_a_saved_classifier_guesses_the_same(
    trained: TrainedIntents, embedder: Embedder, vectors: Path, tmp_path: Path
) -> None:
    save_model(tmp_path, {"intents": trained.part})
    loaded = IntentClassifier.load(tmp_path, embedder)

    for text in [text for text, _ in rows()] + list(NEVER_SEEN):
        assert loaded.classify(text) == trained.classifier.classify(text)
    assert str(vectors.parent) not in (tmp_path / "model.json").read_text()


def test_without_embeddings_nothing_of_them_is_in_a_model() -> None:
    part = train_intents(rows(), folds=2).part

    assert "embeddings" not in part.meta
    assert not {"embedding", "probes"} & part.arrays.keys()


def test_embeddings_alone_can_be_learned_from() -> None:
    """Where no word comes twice, there is no vocabulary."""

    def length(texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0] if len(text) > 1 else [0.0, 1.0] for text in texts]

    few = [("ab", "long"), ("cd", "long"), ("ef", "long"), ("x", "short"), ("y", "short")]
    found = train_intents(few, embedder=Embedder("length", length)).classifier

    assert [found.classify(text).intent for text in ("gh", "z")] == ["long", "short"]


# -- what is embedded ----------------------------------------------------------------------------


class Noting:
    """A function that notes what it is asked about."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        return [[float(len(text)), 1.0] for text in texts]

    @property
    def texts(self) -> list[str]:
        return [text for texts in self.asked for text in texts]


def test_what_the_vocabulary_reads_is_embedded_in_the_form_that_a_router_asks_about() -> None:
    noting = Noting()
    embed = Embedder("noting", noting)
    document = "Translate  THIS " + "filler " * 10_000 + "into Dutch"

    embed(["Where's  my\tparcel? ", document, normal(document)])

    short, long, asked = noting.texts
    assert short == "where's my parcel?"
    assert long.startswith("translate this filler")
    assert long.endswith("into dutch")
    assert len(long) <= len(gist(document))
    assert asked.endswith("into dutch")


def test_of_a_long_text_the_end_is_embedded_too(embedder: Embedder) -> None:
    (long,) = embedder(["unheard " * 900 + "parcel"])
    (short,) = embedder(["parcel"])

    np.testing.assert_allclose(long, short, atol=1e-6)


def test_rows_have_length_one_or_none(embedder: Embedder) -> None:
    found = embedder(["parcel", "parcel refund", "unheard"])

    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0], atol=1e-6)


def test_a_function_is_asked_about_some_texts_at_a_time() -> None:
    noting = Noting()
    found = Embedder("noting", noting)([str(n) for n in range(BATCH_TEXTS + 1)])

    assert [len(texts) for texts in noting.asked] == [BATCH_TEXTS, 1]
    assert found.shape == (BATCH_TEXTS + 1, 2)


def test_each_text_is_embedded_once_however_often_it_is_trained_on() -> None:
    noting = Noting()
    data = [IntentRow(text, intent) for text, intent in rows()]
    cross_validated(data, folds=2, embedder=Embedder("noting", noting).remembering())

    assert len(noting.texts) == len(set(noting.texts))
    assert {text for text, _ in rows()} <= set(noting.texts)


# -- what is no embedder -------------------------------------------------------------------------


def broken(texts: list[str]) -> list[list[float]]:
    raise ZeroDivisionError("a fault")


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (broken, "failed: ZeroDivisionError: a fault"),
        (lambda texts: [[1.0], [1.0, 2.0]], "failed: ValueError"),
        (lambda texts: [["a"], ["b"]], "failed: ValueError"),
        (lambda texts: None, "failed: TypeError|gives a single number"),
        (lambda texts: 1.0, "gives a single number for 2 texts"),
        (lambda texts: [1.0, 2.0], "gives 2 for 2 texts, not a row for each"),
        (lambda texts: [[1.0]], "gives 1 x 1 for 2 texts"),
        (lambda texts: [[], []], "gives 2 x 0 for 2 texts"),
        (lambda texts: [[1.0], [float("nan")]], "not finite"),
        (lambda texts: [[1.0], [float("inf")]], "not finite"),
        (lambda texts: [[1.0], [1e200]], "too large"),
    ],
)
def test_a_function_that_gives_no_embeddings(
    function: Callable[[list[str]], Any], what: str
) -> None:
    with pytest.raises(EmbeddingsError, match=f"embeddings mine: .*({what})"):
        Embedder("mine", function)(["one", "two"])


def test_a_function_whose_rows_change_their_length() -> None:
    embed = Embedder("mine", lambda texts: [[1.0] * len(texts)] * len(texts))
    with pytest.raises(EmbeddingsError, match="rows of several lengths"):
        embed(["x"] * (BATCH_TEXTS + 1))


def test_a_function_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_embeddings.py").write_text(
        "number = 7\n"
        "class Place:\n"
        "    @staticmethod\n"
        "    def embed(texts):\n"
        "        return [[float(len(text)), 0.0] for text in texts]\n"
        "embed = Place.embed\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for place in ("own_embeddings:embed", "own_embeddings:Place.embed"):
        assert open_embedder(place)(["abc"]).tolist() == [[1.0, 0.0]]
        assert open_embedder(place).label == place

    for place, what in (
        ("own_embeddings:number", "is not a function"),
        ("own_embeddings:none", "can't be imported: AttributeError"),
        ("no_embeddings:embed", "can't be imported: ModuleNotFoundError"),
    ):
        with pytest.raises(EmbeddingsError, match=f"embeddings {place}: {what}"):
            open_embedder(place)


@pytest.mark.parametrize("place", ["none", "minishlab/potion-base-8M", "a:b:c", "own:", ":own", ""])
def test_what_is_no_folder_and_no_function_is_not_looked_for_anywhere_else(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model2vec", None)  # it would say that this is missing
    with pytest.raises(EmbeddingsError, match="Nothing is downloaded"):
        open_embedder(place, tmp_path / "nowhere")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsError, match="is no folder that model2vec can read"):
        open_embedder(str(tmp_path))


def test_a_folder_without_the_extra(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model2vec", None)

    with pytest.raises(EmbeddingsError, match=r"pip install modelyard\[embeddings\]"):
        open_embedder(str(vectors))


# -- the right ones ------------------------------------------------------------------------------


def test_a_classifier_that_wants_embeddings_says_so(trained: TrainedIntents) -> None:
    with pytest.raises(ModelFileError, match=r"with embeddings \('tiny'\), and none are given"):
        IntentClassifier(trained.part)


def test_other_embeddings_are_refused(trained: TrainedIntents, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"other embeddings \('tiny'\), and turned is given"):
        IntentClassifier(trained.part, from_vectors(tmp_path / "turned", TURNED))
    with pytest.raises(ModelFileError, match="of 4 numbers, not of 5, and longer is given"):
        IntentClassifier(trained.part, from_vectors(tmp_path / "longer", LONGER))


def test_other_embeddings_of_a_single_word_that_it_was_trained_on_are_refused(
    trained: TrainedIntents, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match="other embeddings"):
        IntentClassifier(trained.part, from_vectors(tmp_path, {**VECTORS, "mail": MONEY}))


def test_the_same_embeddings_from_another_machine_are_not(
    trained: TrainedIntents, embedder: Embedder
) -> None:
    rng = np.random.default_rng(0)

    def elsewhere(texts: list[str]) -> Any:
        rows = embedder.function(texts)
        return (rows + rng.normal(size=rows.shape) * 1e-3 * (rows != 0)).astype(np.float16)

    found = IntentClassifier(trained.part, Embedder("elsewhere", elsewhere))
    assert found.classify("about my shipment").intent == "delivery"


def test_probes_are_of_the_classifier_s_own_field() -> None:
    words = [f"=word{n:03}" for n in range(100)]

    found = probes(["two words", *words, "~digits"])

    assert found[: len(PROBES)] == [*PROBES]
    assert len(found) == len(PROBES) + PROBED_WORDS
    assert probes(["=refund"]) == [*PROBES, "refund"]


def test_a_classifier_that_wants_none_leaves_them_alone() -> None:
    part = train_intents(rows(), folds=2).part
    found = IntentClassifier(part, Embedder("broken", broken))

    assert found.classify("about my refund").intent == "money"


@pytest.mark.parametrize(
    ("meta", "arrays", "what"),
    [
        ({"embeddings": ["tiny"]}, {}, "'embeddings' is not a text"),
        ({}, {"embedding": np.zeros((4, 9), np.float32)}, "array 'embedding' is 4 x 9, not any x"),
        ({}, {"embedding": np.full((4, 256), 1e30, np.float32)}, "weights that are too large"),
        ({}, {"probes": np.zeros((2, 4), np.float32)}, "array 'probes' is 2 x 4, not"),
        ({}, {"probes": np.zeros((12, 4), np.float64)}, "array 'probes' is of float64"),
    ],
)
def test_a_part_that_is_no_classifier(
    trained: TrainedIntents,
    embedder: Embedder,
    meta: dict[str, Any],
    arrays: dict[str, Any],
    what: str,
) -> None:
    part = Part({**trained.part.meta, **meta}, {**trained.part.arrays, **arrays})

    with pytest.raises(ModelFileError, match=what):
        IntentClassifier(part, embedder)


# -- in a router ---------------------------------------------------------------------------------


def catalog(*, embeddings: str | None = "tiny", **more: dict[str, Any]) -> Catalog:
    route = {
        "classifier": "mine",
        "embeddings": embeddings,
        "rules": [{"when": {"keywords": ["hello"]}, "intent": "greeting", "models": ["small"]}],
        "intents": {"money": ["small"], "delivery": ["large"]},
        "otherwise": ["small"],
    }
    return Catalog(
        models=tuple(Model(name=name, provider="extractive") for name in ("small", "large")),
        routes={"default": Route.model_validate(route), **more},
    )


def shelf_of(base: Path, found: Catalog) -> Shelf:
    times = iter(range(1_000))
    return Shelf(base, found, clock=lambda: next(times) * LOOK_EVERY_S)


def intents_of(shelf: Shelf, found: Catalog, texts: Sequence[str]) -> list[str]:
    knowledge = shelf.knowledge()
    return [decide(Request.of(each), found, 1.0, knowledge=knowledge).intent for each in texts]


@pytest.fixture
def base(tmp_path: Path, trained: TrainedIntents) -> Path:
    """The folder of a catalog, with embeddings and a classifier that wants them."""
    write_embeddings(tmp_path / "tiny", VECTORS)
    save_model(tmp_path / "mine", {"intents": trained.part})
    return tmp_path


def test_a_router_decides_with_them_and_models_are_swapped_as_ever(
    base: Path, trained: TrainedIntents, caplog: pytest.LogCaptureFixture
) -> None:
    found = catalog()
    shelf = shelf_of(base, found)
    texts = ["About my  SHIPMENT", "about my compensation"]
    assert intents_of(shelf, found, texts) == ["delivery", "money"]

    write_classifier(base / "mine", {"shipment": "money", "compensation": "delivery"})
    assert intents_of(shelf, found, texts) == ["money", "delivery"]

    save_model(base / "mine", {"intents": trained.part})
    assert intents_of(shelf, found, texts) == ["delivery", "money"]
    assert shelf.failures == 0
    assert not caplog.records


@pytest.mark.parametrize(
    ("embeddings", "what"),
    [
        (None, "none are given: name them by `embeddings:`"),
        ("turned", "was trained with other embeddings"),
        ("nowhere", "there is no folder"),
    ],
)
def test_without_the_right_ones_rules_carry_on(
    embeddings: str | None, what: str, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_embeddings(base / "turned", TURNED)
    found = catalog(embeddings=embeddings)
    shelf = shelf_of(base, found)

    for _ in range(3):
        assert intents_of(shelf, found, ["hello", "a shipment"]) == ["greeting", "other"]

    report = shelf.report()["classifiers"]["mine"]
    assert what in report["problem"]
    assert report["refused"] == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "rules carry on" in caplog.text


def test_one_that_fails_while_deciding_is_a_failure_and_rules_carry_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "away_service.py").write_text(
        "MONEY = {'refund', 'cashback', 'compensation'}\n"
        "def embed(texts):\n"
        "    if 'hello break' in texts:\n"
        "        raise ConnectionError('the service is away')\n"
        "    return [[float(bool(MONEY & {*text.split()})), 0.5] for text in texts]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = train_intents(rows(), folds=2, embedder=open_embedder("away_service:embed"))
    save_model(tmp_path / "mine", {"intents": made.part})
    found = catalog(embeddings="away_service:embed")
    shelf = shelf_of(tmp_path, found)
    asked = ["hello break", "a compensation"]

    assert intents_of(shelf, found, asked) == ["greeting", "money"]
    assert shelf.knowledge().classifiers["mine"].classify(asked[0]) is None
    assert shelf.failures == 1
    assert "the service is away" in caplog.text


def test_a_model_that_wants_none_does_not_need_what_is_named(base: Path) -> None:
    write_classifier(base / "mine", {"sum": "money", "poem": "delivery"})
    found = catalog(embeddings="not_there:yet")

    assert intents_of(shelf_of(base, found), found, ["a sum"]) == ["money"]


def test_embeddings_belong_to_a_classifier() -> None:
    with pytest.raises(ValueError, match="embeddings need a classifier"):
        Route.model_validate({"embeddings": "tiny", "otherwise": ["small"]})


def test_one_classifier_has_one_kind_of_them() -> None:
    other = {"classifier": "mine", "embeddings": "turned", "otherwise": ["small"]}
    with pytest.raises(ValueError, match="routes 'default' and 'other' have the classifier 'mine'"):
        catalog(other=other)


# -- training and measuring ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [json.dumps({"text": text, "intent": intent}) for text, intent in rows()]
    path.write_text("\n".join(lines))
    return path


def test_a_model_is_trained_and_measured_with_them(
    data: Path, vectors: Path, tmp_path: Path
) -> None:
    train([data], tmp_path, embeddings=str(vectors))
    by_model = evaluate([data], str(tmp_path), embeddings=str(vectors))
    unseen = evaluate([data], embeddings=str(vectors))

    assert load_model(tmp_path).part("intents").meta["embeddings"] == "tiny"
    assert by_model["accuracy"] == 1
    assert by_model["how"] == f"by the model {tmp_path}, with embeddings tiny"
    assert unseen["how"] == "cross-validated in 5 folds, with embeddings tiny"
    with pytest.raises(ModelFileError, match="or by --embeddings"):
        evaluate([data], str(tmp_path))


def test_rows_of_models_answers_have_no_use_for_them(tmp_path: Path, vectors: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "weak": 0, "strong": 1}\n')

    with pytest.raises(ModelyardError, match="--embeddings are for rows of intents"):
        train([path], tmp_path / "model", embeddings=str(vectors))
    with pytest.raises(ModelyardError, match="--embeddings are for rows of intents"):
        evaluate([path], embeddings=str(vectors))
