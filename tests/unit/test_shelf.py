"""Models are taken from their folders while the router runs, and what is wrong changes nothing."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small_models import (
    classifier_part,
    predictor_part,
    write_classifier,
    write_predictor,
)

from modelyard.catalog import Catalog, Model
from modelyard.messages import Request
from modelyard.routes import Cache, Route
from router_worker.knowledge import Knowledge
from router_worker.learned.intents import Guess, IntentClassifier
from router_worker.learned.model_file import save_model
from router_worker.oracles.shelf import LOOK_EVERY_S, Shelf, strictest
from router_worker.policy import decide

ONE = {"poem": "creative", "sum": "math"}
OTHER = {"poem": "math", "sum": "creative"}


class Clock:
    """A clock by which it is time to look again whenever it is asked, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += LOOK_EVERY_S
        return self.now


def catalog(**routes: Mapping[str, Any]) -> Catalog:
    small, large = (Model(name=name, provider="extractive") for name in ("small", "large"))
    made = {name: Route.model_validate(route) for name, route in routes.items()}
    return Catalog(models=(small, large), routes=made)


LEARNED = {
    "classifier": "models/mine",
    "rules": [{"when": {"keywords": ["hi"]}, "intent": "greeting", "models": ["small"]}],
    "intents": {"creative": ["large"], "math": ["small"]},
    "otherwise": ["small"],
}


def shelf_of(folder: Path, *, clock: Any = None, **options: Any) -> Shelf:
    return Shelf(folder, catalog(default=LEARNED), clock=clock or Clock(), **options)


def said(knowledge: Knowledge, text: str, name: str = "models/mine") -> str | None:
    guess = knowledge.classifiers[name].classify(text)
    return guess.intent if guess is not None else None


def test_a_path_is_seen_from_the_catalog_s_folder(tmp_path: Path) -> None:
    write_classifier(tmp_path / "models" / "mine", ONE)
    assert said(shelf_of(tmp_path).knowledge(), "a poem") == "creative"


def test_a_new_model_is_in_use_at_the_next_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "models" / "mine"
    write_classifier(folder, ONE)
    shelf = shelf_of(tmp_path)
    assert said(shelf.knowledge(), "a poem") == "creative"

    write_classifier(folder, OTHER)

    assert said(shelf.knowledge(), "a poem") == "math"  # and not what is remembered of the old one
    assert caplog.text.count("is in use") == 2


def test_folders_are_looked_at_once_a_second(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    write_classifier(folder, ONE)
    now = 0.0
    shelf = shelf_of(tmp_path, clock=lambda: now)
    before = shelf.knowledge()
    write_classifier(folder, OTHER)

    now = 0.9 * LOOK_EVERY_S
    assert shelf.knowledge() is before
    now = LOOK_EVERY_S
    assert said(shelf.knowledge(), "a poem") == "math"


def test_the_same_model_written_again_keeps_what_is_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    write_classifier(folder, ONE)
    shelf = shelf_of(tmp_path)
    said(shelf.knowledge(), "a poem")

    write_classifier(folder, ONE)
    said(shelf.knowledge(), "a poem")

    cache = shelf.report()["classifiers"]["models/mine"]["cache"]
    assert (cache["hits"], cache["misses"]) == (1, 1)


@pytest.mark.parametrize("harm", ["missing", "truncated", "foreign", "no part"])
def test_a_folder_that_can_t_be_used_is_told_once_and_rules_carry_on(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "models" / "mine"
    harm_it(folder, harm)
    shelf = shelf_of(tmp_path)
    for _ in range(3):
        knowledge = shelf.knowledge()

    assert knowledge.classifiers == {}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "classifier 'models/mine' can't be used, rules carry on: " in caplog.text
    report = shelf.report()["classifiers"]["models/mine"]
    assert report["refused"] == 1
    assert report["problem"]
    decision = decide(Request.of("hi, a poem"), catalog(default=LEARNED), 1.0, knowledge=knowledge)
    assert decision.intent == "greeting"


@pytest.mark.parametrize("harm", ["missing", "truncated", "foreign", "no part"])
def test_the_old_model_stays_in_use_until_there_is_a_good_one(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "models" / "mine"
    write_classifier(folder, ONE)
    shelf = shelf_of(tmp_path)
    shelf.knowledge()

    harm_it(folder, harm)

    assert said(shelf.knowledge(), "a poem") == "creative"
    assert "the one from before stays in use" in caplog.text
    write_classifier(folder, OTHER)
    assert said(shelf.knowledge(), "a poem") == "math"
    assert shelf.report()["classifiers"]["models/mine"]["problem"] == ""


def harm_it(folder: Path, harm: str) -> None:
    """Do to a model folder what happens to folders."""
    folder.mkdir(parents=True, exist_ok=True)
    if harm == "no part":
        save_model(folder, {"quality": predictor_part({"small": 0.5})})
        return
    for path in folder.iterdir():
        if harm == "missing":
            path.unlink()
        elif path.suffix == ".npz":
            path.write_bytes(path.read_bytes()[:-40])
    if harm != "missing":
        (folder / "model.json").write_text('{"format"' if harm == "truncated" else '{"a": 1}')


def test_the_builtin_classifier_may_not_have_been_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    routes = catalog(default={**LEARNED, "classifier": "builtin"})
    assert Shelf(tmp_path, routes, builtin=tmp_path / "none").knowledge().classifiers == {}
    assert "classifier 'builtin' can't be used, rules carry on" in caplog.text

    write_classifier(tmp_path / "made", ONE)
    knowledge = Shelf(tmp_path, routes, builtin=tmp_path / "made").knowledge()
    assert said(knowledge, "a poem", "builtin") == "creative"


def test_intents_that_the_classifier_does_not_know_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_classifier(tmp_path / "models" / "mine", ONE)
    typo = {**LEARNED, "intents": {"maths": ["large"], "creative": ["small"]}}
    Shelf(tmp_path, catalog(default=typo)).knowledge()

    told = "route 'default': its classifier knows no intent 'maths' (did you mean 'math'?)"
    assert told in caplog.text


@pytest.mark.parametrize(
    ("predicts", "told"),
    [
        ({}, "says nothing of 'small', 'large', whose quality is the catalog's; it knows 'strong'"),
        ({"weak": "small", "strnog": "large"}, "predicts has 'strnog', which its predictor does"),
        ({"weak": "small"}, "says nothing of 'large', whose quality is the catalog's"),
    ],
)
def test_names_of_a_predictor_that_are_no_models_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, predicts: dict[str, str], told: str
) -> None:
    write_predictor(tmp_path / "quality", {"weak": 0.25, "strong": 0.75})
    route = {"predictor": "quality", "predicts": predicts, "otherwise": ["small", "large"]}
    complaints = Shelf(tmp_path, catalog(default=route)).complaints()

    assert told in complaints[0]
    assert told in caplog.text


@pytest.mark.parametrize(
    ("chances", "predicts"),
    [
        ({"weak": 0.25, "strong": 0.75}, {"weak": "small", "strong": "large"}),
        ({"small": 0.25, "large": 0.75, "another": 0.5}, {}),
        ({"small": 0.25}, {}),
    ],
)
def test_a_predictor_may_know_more_models_or_fewer(
    tmp_path: Path, chances: dict[str, float], predicts: dict[str, str]
) -> None:
    write_predictor(tmp_path / "quality", chances)
    route = {"predictor": "quality", "predicts": predicts, "otherwise": ["small", "large"]}
    assert Shelf(tmp_path, catalog(default=route)).complaints() == []


def test_one_folder_may_have_a_classifier_and_a_predictor(tmp_path: Path) -> None:
    parts = {"intents": classifier_part(ONE), "quality": predictor_part({"small": 0.75})}
    save_model(tmp_path / "both", parts)
    routes = catalog(default={**LEARNED, "classifier": "both", "predictor": "both"})

    knowledge = Shelf(tmp_path, routes).knowledge()

    assert said(knowledge, "a sum", "both") == "math"
    assert knowledge.predictors["both"].predict("x") == {"small": pytest.approx(0.75)}


def test_a_predictor_is_replaced_like_a_classifier(tmp_path: Path) -> None:
    write_predictor(tmp_path / "quality", {"small": 0.25})
    routes = catalog(default={"predictor": "quality", "otherwise": ["small"]})
    shelf = Shelf(tmp_path, routes, clock=Clock())
    assert shelf.knowledge().predictors["quality"].predict("x") == {"small": pytest.approx(0.25)}

    (tmp_path / "quality" / "model.json").write_text("{}")
    assert shelf.knowledge().predictors["quality"].predict("y") == {"small": pytest.approx(0.25)}
    write_predictor(tmp_path / "quality", {"small": 0.5})
    assert shelf.knowledge().predictors["quality"].predict("x") == {"small": pytest.approx(0.5)}


def test_failures_outlive_the_model_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classify = IntentClassifier.classify

    def faulty(self: IntentClassifier, text: str) -> Guess:
        if text == "break":
            raise ZeroDivisionError("a fault")
        return classify(self, text)

    monkeypatch.setattr(IntentClassifier, "classify", faulty)
    folder = tmp_path / "models" / "mine"
    write_classifier(folder, ONE)
    shelf = shelf_of(tmp_path)
    knowledge = shelf.knowledge()
    assert said(knowledge, "break") is None

    write_classifier(folder, OTHER)
    assert said(shelf.knowledge(), "a poem") == "math"
    assert shelf.failures == shelf.report()["classifiers"]["models/mine"]["failures"] == 1


@dataclass
class Means:
    latency_s: Mapping[str, float] = field(default_factory=dict)
    output_tokens: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass
class Watched:
    observed: Means
    taken_back: frozenset[str]


def test_what_was_seen_is_added(tmp_path: Path) -> None:
    write_classifier(tmp_path / "models" / "mine", ONE)
    shelf = shelf_of(tmp_path)

    seen = Watched(Means({"small": 2.0}, {("small", "math"): 9.0}), frozenset({"trial"}))
    knowledge = shelf.knowledge(seen)

    assert said(knowledge, "a poem") == "creative"
    assert knowledge.latency_s == {"small": 2.0}
    assert knowledge.output_tokens == {("small", "math"): 9.0}
    assert knowledge.taken_back == {"trial"}
    assert shelf.knowledge().latency_s == {}


def test_routes_with_one_model_remember_what_all_agree_to() -> None:
    assert strictest([Cache(similar=0.8), Cache()]).similar is None
    agreed = strictest(
        [Cache(similar=0.8, ttl_s=60, entries=5), Cache(similar=0.9, shared=True, entries=9)]
    )
    assert agreed == Cache(similar=0.9, ttl_s=60, shared=True, entries=9)


def test_a_cache_of_no_entries_remembers_nothing(tmp_path: Path) -> None:
    write_classifier(tmp_path / "models" / "mine", ONE)
    shelf = Shelf(tmp_path, catalog(default={**LEARNED, "cache": {"entries": 0}}))
    for _ in range(2):
        assert said(shelf.knowledge(), "a poem") == "creative"
    cache = shelf.report()["classifiers"]["models/mine"]["cache"]
    assert (cache["hits"], cache["entries"]) == (0, 0)
