"""Which models a worker serves, and what of a changed catalog it does not take."""

from typing import Any

import pytest

from model_workers.serving import (
    concurrency,
    going_on,
    known_again,
    queue_limits,
    unknown_models,
)
from modelyard.catalog import Catalog, Model
from modelyard.errors import ModelyardError
from modelyard.names import in_lane

BATCH = in_lane("model.b", batch=True)


def model(name: str, **fields: Any) -> Model:
    return Model(name=name, provider="extractive", **fields)


def off(name: str) -> Model:
    endpoint = {"base_url": "http://a.test", "disabled": "A_KEY"}
    return Model.model_validate({"name": name, "provider": "openai", "endpoints": [endpoint]})


def on(name: str, **fields: Any) -> Model:
    endpoints = [{"base_url": "http://a.test"}]
    return Model.model_validate(
        {"name": name, "provider": "openai", "endpoints": endpoints, **fields}
    )


def catalog(*models: Model, **aliases: str) -> Catalog:
    route = {"default": {"otherwise": [models[0].name]}}
    return Catalog.model_validate({"models": models, "aliases": aliases, "routes": route})


def names(given: Catalog) -> list[str]:
    return sorted(each.name for each in given.models)


def test_what_is_served_here_and_gone_stays_and_nothing_else_does() -> None:
    before = catalog(model("a"), model("b"), model("c"))
    after = catalog(model("a"), model("d"))
    assert names(going_on(after, before, ["model.b"])) == ["a", "b", "d"]
    assert going_on(after, before, ["model.a"]) is after
    assert names(going_on(after, before, [])) == ["a", "b", "c", "d"]


def test_what_stays_stays_over_several_changes() -> None:
    before = catalog(model("a"), model("b", concurrency=7))
    once = going_on(catalog(model("a")), before, ["model.b", BATCH])
    twice = going_on(catalog(model("a", concurrency=3)), once, ["model.b", BATCH])
    assert names(twice) == ["a", "b"]
    assert concurrency(twice, ["model.b", BATCH]) == 7


def test_an_alias_in_place_of_a_model_takes_over_its_queue() -> None:
    before = catalog(model("a"), model("b"))
    after = going_on(catalog(model("a"), b="a"), before, ["model.b"])
    assert names(after) == ["a"]
    assert after.model("b").name == "a"


def test_a_model_whose_key_is_not_here_stays_as_it_was() -> None:
    before = catalog(on("a", concurrency=3), on("b"))
    after = going_on(catalog(off("a"), off("b")), before, ["model.a"])
    assert (after.model("a").disabled, after.model("a").concurrency) == (None, 3)
    assert after.model("b").disabled is not None


def test_a_model_that_changed_is_the_new_one() -> None:
    before, after = catalog(model("a", concurrency=3)), catalog(model("a", concurrency=9))
    assert going_on(after, before, ["model.a"]) is after
    assert concurrency(after, ["model.a"]) == 9


def test_a_worker_does_without_models_that_are_unknown_unless_all_are() -> None:
    given = catalog(model("a"), on("b"), alias="a")
    some = ["model.a", "model.x", in_lane("model.x", batch=True), "somebody-elses"]
    assert list(unknown_models(given, some)) == ["x"]
    assert "unknown model 'x'" in unknown_models(given, some)["x"]
    assert unknown_models(given, ["model.x", "model.y", "somebody-elses"]) == {}
    assert unknown_models(given, ["model.a", "model.alias"]) == {}
    assert unknown_models(given, []) == {}


def test_a_queue_is_taken_up_once_its_model_can_be_called_here() -> None:
    left = {"model.b", BATCH}
    assert known_again(catalog(model("a")), left) == []
    assert known_again(catalog(model("a"), off("b")), left) == []
    assert known_again(catalog(model("a"), on("b")), left) == sorted(left)
    assert known_again(catalog(model("a"), b="a"), left) == sorted(left)


def test_a_worker_of_several_is_bounded_for_each() -> None:
    given = catalog(model("a", concurrency=3), model("b", concurrency=4), model("c"))
    assert queue_limits(given, ["model.a", in_lane("model.a", batch=True)]) == {}
    assert queue_limits(given, ["model.a", "model.b"]) == {"model.a": 3, "model.b": 4}
    assert concurrency(given, ["model.a", "model.b", "somebody-elses"]) == 7
    with pytest.raises(ModelyardError, match="unknown model 'd'"):
        concurrency(given, ["model.d"])
