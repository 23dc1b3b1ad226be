"""What a catalog asks of its routes that can't come true: refused, or only doubted.

Refused is what no request could ever have. What hangs on a key that is not set here is said.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from modelyard.plan import Strategy
from modelyard.routes import Route, Target

if TYPE_CHECKING:
    from modelyard.catalog import Catalog


def check_experiments(name: str, route: Route, people: Collection[str]) -> None:
    """Raise `ValueError` for an experiment that would change what the route's plans are."""
    for each in route.experiments:
        where = f"route {name!r}: experiment {each.name!r}"
        if each.kind == "shadow" and each.to in people:
            raise ValueError(f"route {name!r}: people can't be a shadow")
        of = [target for target in route.targets if each.of in target.models]
        ensembles = [target for target in of if target.strategy is Strategy.ENSEMBLE]
        if each.kind == "shadow":
            if ensembles and len(ensembles) == len(of):
                raise ValueError(f"{where}: an ensemble has no shadow, so {each.to!r} is not asked")
        elif ensembles and len(ensembles) == len(of) and each.to in people:
            raise ValueError(f"{where}: people can't be one of an ensemble")
        elif ensembles and all(target in ensembles and each.to in target.models for target in of):
            raise ValueError(
                f"{where}: the ensemble that asks {each.of!r} asks {each.to!r} already, and would "
                "be one answer short"
            )


def doubts(catalog: "Catalog") -> list[str]:
    """Return in words what will not happen: judging where the judge is off, experiments on models
    that their route never asks, and rules behind one that matches every request.
    """
    told = [
        f"route {name!r}: its judge {judge!r} is off ({off}): what is to be judged is refused, or "
        "goes to `otherwise` where `if_none` says so"
        for name, route in catalog.routes.items()
        for target in route.targets
        for judge in judges(target)
        if (off := catalog.model(judge).disabled) is not None
    ]
    told += [
        f"route {name!r}: experiment {each.name!r} never begins: nothing asks {each.of!r} there"
        for name, route in catalog.routes.items()
        for each in route.experiments
        if not any(each.of in target.models for target in route.targets)
    ]
    told += [
        f"route {name!r}: rule {n} can never match: rule {m} matches every request"
        for name, route in catalog.routes.items()
        for n, m in never_reached(route)
    ]
    return list(dict.fromkeys(told))


def never_reached(route: Route) -> list[tuple[int, int]]:
    """Return the numbers, from 1, of the rules that come too late, each with that of the rule that
    leaves it nothing. In a hybrid route both would count.
    """
    always = (m for m, rule in enumerate(route.rules, 1) if rule.when.is_always)
    first = next(always, None)
    if first is None or route.mode == "hybrid":
        return []
    return [(n, first) for n in range(first + 1, len(route.rules) + 1)]


def judges(target: Target) -> tuple[str, ...]:
    """Return the models that judge a target's answers."""
    parts = (target.accept, target.combine)
    return tuple(part.judge for part in parts if part is not None and part.judge is not None)
