"""What is said of a catalog that could be meant, and still can't work here."""

from typing import Any

from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.catalog_doubts import doubts
from modelyard.routes import Route


def test_a_judge_that_is_off_is_told_once_for_a_route() -> None:
    def catalog(off: str | None) -> Catalog:
        judged = {"models": ["a", "b"], "strategy": "cascade", "accept": {"judge": "j"}}
        combine = {"how": "best", "judge": "j"}
        best = {"models": ["a", "b"], "strategy": "ensemble", "combine": combine}
        rule = {"when": {"keywords": ["x"]}, "intent": "i", **best}
        endpoint = Endpoint(base_url="http://live.example/v1", disabled=off)
        return Catalog(
            models=(
                Model(name="a", provider="extractive"),
                Model(name="b", provider="extractive"),
                Model(name="j", provider="openai", endpoints=(endpoint,)),
            ),
            routes={
                "judged": Route.model_validate({"rules": [rule], "otherwise": judged}),
                "plain": Route.model_validate({"otherwise": ["a"]}),
            },
        )

    (told,) = doubts(catalog("NO_KEY"))
    assert told.startswith("route 'judged': its judge 'j' is off (NO_KEY is not set)")
    assert doubts(catalog(None)) == []


def test_an_experiment_on_a_model_that_nothing_asks_is_told() -> None:
    def catalog(of: str) -> Catalog:
        experiment = {"name": "trial", "of": of, "to": "b", "percent": 50}
        route = {"otherwise": ["a"], "experiments": [experiment]}
        return Catalog(
            models=tuple(Model(name=name, provider="extractive") for name in "abc"),
            routes={"default": Route.model_validate(route)},
        )

    (told,) = doubts(catalog("c"))
    assert "experiment 'trial' never begins: nothing asks 'c' there" in told
    assert doubts(catalog("a")) == []


def test_rules_behind_one_that_matches_everything_are_told_and_the_catalog_loads() -> None:
    def catalog(**route: Any) -> Catalog:
        rules = [
            {"when": when, "intent": intent, "models": ["a"]}
            for when, intent in [
                ({"keywords": ["a"]}, "i"),
                ({"any": [{"keywords": ["b"]}, {"min_tokens": 0}]}, "j"),
                ({"keywords": ["c"]}, "k"),
                ({"max_tokens": 9}, "l"),
            ]
        ]
        found = Route.model_validate({"rules": rules, "otherwise": ["a"], **route})
        models = (Model(name="a", provider="extractive"),)
        return Catalog(models=models, routes={"default": found})

    assert doubts(catalog()) == [
        "route 'default': rule 3 can never match: rule 2 matches every request",
        "route 'default': rule 4 can never match: rule 2 matches every request",
    ]
    # Where several match, the classifier decides between them.
    assert doubts(catalog(classifier="builtin")) == []
