"""Aliases: in routes, experiments and budgets they stand for models, and plans have the models."""

import os
from pathlib import Path

import pytest

from modelyard.catalog import Catalog, UnknownName
from modelyard.catalog_file import load_catalog
from modelyard.errors import CatalogError
from modelyard.messages import Request
from router_worker.policy import decide

MODELS = """
models:
  - {name: "small@1", provider: extractive}
  - {name: "small@2", provider: extractive}
  - {name: large, provider: extractive}
  - {name: boss, provider: people}
"""


def loaded(folder: Path, text: str) -> Catalog:
    path = folder / "catalog.yaml"
    path.write_text(MODELS + text)
    return load_catalog(path, os.environ)


def problems(folder: Path, text: str) -> str:
    with pytest.raises(CatalogError) as found:
        loaded(folder, text)
    return str(found.value)


def test_each_place_that_names_a_model_may_name_it_by_an_alias(tmp_path: Path) -> None:
    catalog = loaded(
        tmp_path,
        """
aliases: {small: "small@2", strong: large, person: boss}
routes:
  default:
    rules:
      - {when: {keywords: [hard]}, intent: hard, models: [small, strong], strategy: cascade,
         accept: {judge: strong}}
      - {when: {keywords: [all]}, intent: all, models: [small, strong], strategy: ensemble,
         combine: {how: best, judge: strong}}
      - {when: {keywords: [help]}, intent: help, models: [person]}
    intents: {}
    otherwise: [small, "small@2", strong]
    experiments: [{name: try, of: small, to: strong, percent: 100}]
budgets: [{usd_per_day: 1, over: downgrade, downgrade_to: [small]}]
""",
    )
    route = catalog.route("default")
    cascade, ensemble, handoff = route.rules
    assert cascade.models == ensemble.models == ("small@2", "large")
    assert cascade.accept is not None and cascade.accept.judge == "large"
    assert ensemble.combine is not None and ensemble.combine.judge == "large"
    assert handoff.models == ("boss",)
    assert route.otherwise.models == ("small@2", "large")  # each once
    assert (route.experiments[0].of, route.experiments[0].to) == ("small@2", "large")
    assert catalog.budgets[0].downgrade_to == ("small@2",)
    assert catalog.model("small").name == "small@2"
    said = decide(Request.of("hello", models=("small",)), catalog, 0.0)
    assert [step.model for step in said.plan.steps] == ["small@2"]


def test_a_name_that_is_none_suggests_aliases_too(tmp_path: Path) -> None:
    catalog = loaded(
        tmp_path, 'aliases: {fastest: "small@1"}\nroutes: {default: {otherwise: [fastest]}}'
    )
    with pytest.raises(UnknownName, match="did you mean 'fastest'"):
        catalog.model("fastst")


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        ("{small: smal@1}", "8: catalog: unknown model 'smal@1' (did you mean 'small@1'?)"),
        ("{large: small@1}", "8: catalog: the model on line 5 has the same name"),
        ("{a: b, b: large}", "8: catalog: 'b' is an alias itself: name the model"),
        ("{a b: large}", "must start with a letter or digit"),
        ("[large]", "must be a mapping"),
        ("{small: [large]}", "8: catalog: 'small' must be text"),
        ("{person: boss}", "'person' is people, who can't be a judge"),
    ],
)
def test_a_wrong_alias_is_told_with_its_line(tmp_path: Path, aliases: str, told: str) -> None:
    routes = "routes: {default: {otherwise: [large]}}"
    if "person" in aliases:
        routes = """
routes:
  default:
    otherwise: {models: [large, "small@1"], strategy: cascade, accept: {judge: person}}"""
    assert told in problems(tmp_path, f"\naliases: {aliases}\n{routes}")


def test_a_catalog_that_is_made_in_python_is_checked_as_well() -> None:
    model = {"name": "m", "provider": "extractive"}
    routes = {"default": {"otherwise": ["a"]}}
    made = Catalog.model_validate({"models": [model], "aliases": {"a": "m"}, "routes": routes})
    assert made.route("default").otherwise.models == ("m",)
    for aliases in ({"a": "other"}, {"m": "m"}, {"a": "b", "b": "m"}):
        with pytest.raises(ValueError, match="alias"):
            Catalog.model_validate({"models": [model], "aliases": aliases, "routes": routes})
