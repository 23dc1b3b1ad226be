"""Aliases: other names of models, which the catalog can turn to another version in one place.

Where the catalog names a model by an alias, its parts have the model's own name once it is read: so
have plans, attempts and answers, and what is under way stays with the version that it was given.
"""

from collections.abc import Mapping

from modelyard.budgets import Budget
from modelyard.plan import Accept, Combine
from modelyard.routes import Experiment, Route, Rule, Target

Names = Mapping[str, str]
"""The model of each alias."""


def check_aliases(aliases: Names, models: frozenset[str]) -> None:
    """Raise `ValueError` for an alias of nothing, or one that is a model's name."""
    for alias, model in aliases.items():
        if alias in models:
            raise ValueError(f"alias {alias!r}: a model has this name")
        if model in aliases:
            raise ValueError(f"alias {alias!r}: {model!r} is an alias itself; name the model")
        if model not in models:
            raise ValueError(f"alias {alias!r}: unknown model {model!r}")


def of_route(route: Route, names: Names) -> Route:
    """Return a route in which each alias is its model."""
    return route.model_copy(
        update={
            "rules": tuple(_of_rule(rule, names) for rule in route.rules),
            "intents": {key: of_target(each, names) for key, each in route.intents.items()},
            "otherwise": of_target(route.otherwise, names),
            "predicts": {key: names.get(name, name) for key, name in route.predicts.items()},
            "experiments": tuple(_of_experiment(each, names) for each in route.experiments),
        }
    )


def of_target(target: Target, names: Names) -> Target:
    """Return a target in which each alias is its model; none of them is there twice."""
    if not names:
        return target
    return target.model_copy(update=_changes(target, names))


def of_budget(budget: Budget, names: Names) -> Budget:
    """Return a budget in which each alias is its model."""
    return budget.model_copy(update={"downgrade_to": _each(budget.downgrade_to, names)})


def _of_rule(rule: Rule, names: Names) -> Rule:
    return rule.model_copy(update=_changes(rule, names))


def _changes(target: Target, names: Names) -> dict[str, object]:
    changes: dict[str, object] = {"models": _each(target.models, names)}
    judges: tuple[tuple[str, Accept | Combine | None], ...] = (
        ("accept", target.accept),
        ("combine", target.combine),
    )
    for key, part in judges:
        if part is not None and part.judge is not None:
            changes[key] = part.model_copy(update={"judge": names.get(part.judge, part.judge)})
    return changes


def _of_experiment(experiment: Experiment, names: Names) -> Experiment:
    said = {"of": experiment.of, "to": experiment.to}
    changed = {key: names.get(name, name) for key, name in said.items() if name is not None}
    return experiment.model_copy(update=changed)


def _each(models: tuple[str, ...], names: Names) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names.get(name, name) for name in models))
