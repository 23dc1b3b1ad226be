"""The catalog's file while it is read, and what is wrong with the names in it."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from modelyard.catalog import suggestion
from modelyard.errors import CatalogError

Loc: TypeAlias = tuple[str | int, ...]
"""Keys and positions from the top of the file down to a value, as pydantic has them."""


@dataclass
class Sheet:
    """The file while it is read: its values so far, where they stand, what is wrong with them."""

    file: str
    data: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[tuple[int, Loc, str]] = field(default_factory=list)

    def report(self, loc: Loc, what: str, line: int | None = None) -> None:
        """Note a problem of the value at `loc`, on its line or the one that is given."""
        self.problems.append((self.line(loc) if line is None else line, loc, what))

    def refusal(self, line: int, what: str) -> CatalogError:
        """Return the error for a file that can't be read to its end."""
        return CatalogError([f"{self.file}:{line}: catalog: {what}"])

    def line(self, loc: Loc) -> int:
        """Return the line of the value at `loc`, or of the nearest one around it."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def error(self) -> CatalogError:
        """Return the error with all problems, in the file's order, each once."""
        ordered = sorted(self.problems, key=lambda problem: problem[0])
        told = (f"{self.file}:{line}: {self._where(loc)}: {what}" for line, loc, what in ordered)
        # A quoted "\ud800" in the file would make a message that no terminal can print.
        printable = (what.encode(errors="backslashreplace").decode() for what in told)
        return CatalogError(list(dict.fromkeys(printable)))

    def _where(self, loc: Loc) -> str:
        """Return `model 'small', endpoint 2` and the like."""
        match loc:
            case ("models", int(index), *rest):
                model = self.data["models"][index]
                name = model.get("name") if isinstance(model, dict) else None
                parts = [f"model {name!r}" if isinstance(name, str) else f"model {index + 1}"]
            case ("routes", str(name), *rest):
                parts = [f"route {name!r}"]
            case _:
                return "catalog"
        for step in rest:
            if isinstance(step, str):
                parts.append(step)
            else:
                parts[-1] = f"{parts[-1].removesuffix('s')} {step + 1}"
        return ", ".join(parts)


def items(data: Any, key: str) -> list[Any]:
    """Return the list under `key`; empty if there is none: pydantic tells what is wrong."""
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def below(data: Any, key: str) -> Mapping[str, Any]:
    """Return the mapping under `key`; empty if there is none."""
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def check_names(sheet: Sheet) -> None:
    """Report names that are used twice and names that don't exist."""
    data = sheet.data if isinstance(sheet.data, dict) else {}
    first: dict[str, int] = {}
    for index, model in enumerate(items(data, "models")):
        name = model.get("name") if isinstance(model, dict) else None
        if not isinstance(name, str):
            continue
        line = sheet.line(("models", index, "name"))
        if name in first:
            what = f"the model on line {first[name]} has the same name"
            sheet.report(("models", index), what, line)
        first.setdefault(name, line)
    if first:
        check_aliases(sheet, first)
        first |= {name: sheet.line(("aliases", name)) for name in below(data, "aliases")}
    routes = data.get("routes")
    if not isinstance(routes, dict) or not routes:
        return
    if "default" not in routes:
        near = difflib.get_close_matches("default", routes, n=1)
        hint = f" (is {near[0]!r} meant to be it?)" if near else ""
        sheet.report(("routes",), f"there is no route 'default', and there must be{hint}")
    for owner, loc, names in candidates(routes):
        for index, name in enumerate(names):
            line = sheet.line((*loc, index))
            if isinstance(name, str) and first and name not in first:
                sheet.report(owner, f"unknown model {name!r}{suggestion(name, first)}", line)
            elif isinstance(name, str) and name in names[:index]:
                sheet.report(owner, f"model {name!r} is in the list twice", line)
    for loc, name in single_names(routes):
        known = routes if loc[-1] == "route" else first
        if known and name not in known:
            what = "route" if loc[-1] == "route" else "model"
            found = f"unknown {what} {name!r}{suggestion(name, known)}"
            sheet.report(loc[:-1], found, sheet.line(loc))
    check_people(sheet, routes)
    check_experiments(sheet, routes)


def check_aliases(sheet: Sheet, models: Mapping[str, int]) -> None:
    """Report aliases of nothing, and those that are models' names."""
    aliases = below(sheet.data, "aliases")
    for alias, model in aliases.items():
        loc: Loc = ("aliases", alias)
        if alias in models:
            what = f"the model on line {models[alias]} has the same name"
            sheet.report(loc, what, sheet.line(loc))
        if isinstance(model, str) and model in aliases:
            sheet.report(loc, f"{model!r} is an alias itself: name the model", sheet.line(loc))
        elif isinstance(model, str) and model not in models:
            what = f"unknown model {model!r}{suggestion(model, models)}"
            sheet.report(loc, what, sheet.line(loc))


def check_people(sheet: Sheet, routes: Mapping[str, Any]) -> None:
    """Report people who are named where only a program can answer at once."""
    people = [
        model.get("name")
        for model in items(sheet.data, "models")
        if isinstance(model, dict) and model.get("provider") == "people"
    ]
    aliases = below(sheet.data, "aliases")
    people += [alias for alias, model in aliases.items() if model in people]
    places: list[tuple[Loc, Any, str]] = []
    for owner, target in targets(routes):
        for part in ("accept", "combine"):
            loc = (*owner, part, "judge")
            places.append((loc, below(target, part).get("judge"), "a judge"))
        if isinstance(target, dict) and target.get("strategy") == "ensemble":
            for index, name in enumerate(items(target, "models")):
                places.append(((*owner, "models", index), name, "one of an ensemble"))
    for loc, experiment in experiments(routes):
        if experiment.get("kind") == "shadow":
            places.append(((*loc, "to"), experiment.get("to"), "a shadow"))
    for loc, name, what in places:
        if name is not None and name in people:
            owner = loc[:-2] if isinstance(loc[-1], int) else loc[:-1]
            sheet.report(owner, f"{name!r} is people, who can't be {what}", sheet.line(loc))


def check_experiments(sheet: Sheet, routes: Mapping[str, Any]) -> None:
    """Report experiments that share a name with one of another route, or change nothing."""
    tried: dict[str, str] = {}
    for loc, experiment in experiments(routes):
        route, name = str(loc[1]), experiment.get("name")
        if experiment.get("route") == route:
            what = "its route is the one that it is in: there is nothing to try"
            sheet.report(loc, what, sheet.line((*loc, "route")))
        if isinstance(name, str) and tried.setdefault(name, route) != route:
            what = (
                f"route {tried[name]!r} has an experiment {name!r}, too: its figures would be "
                "those of both"
            )
            sheet.report(loc, what, sheet.line((*loc, "name")))


def targets(routes: Mapping[str, Any]) -> Iterator[tuple[Loc, Any]]:
    """Yield where each target is, and the target."""
    for name, route in routes.items():
        for index, rule in enumerate(items(route, "rules")):
            yield ("routes", name, "rules", index), rule
        for intent, target in below(route, "intents").items():
            yield ("routes", name, "intents", intent), target
        if isinstance(route, dict):
            yield ("routes", name, "otherwise"), route.get("otherwise")


def candidates(routes: Mapping[str, Any]) -> Iterator[tuple[Loc, Loc, list[Any]]]:
    """Yield every list of models in the routes: whose it is, where it is, the list."""
    for owner, target in targets(routes):
        if isinstance(target, list):
            yield owner, owner, target
        else:
            yield owner, (*owner, "models"), items(target, "models")


def experiments(routes: Mapping[str, Any]) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """Yield where each experiment is, and the experiment."""
    for name, route in routes.items():
        for index, experiment in enumerate(items(route, "experiments")):
            if isinstance(experiment, dict):
                yield ("routes", name, "experiments", index), experiment


def single_names(routes: Mapping[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Yield every other name of a model or of a route: where it is, the name."""
    for owner, target in targets(routes):
        for part in ("accept", "combine"):
            yield from _texts(below(target, part), (*owner, part), ("judge",))
    for name, route in routes.items():
        loc: Loc = ("routes", name)
        for key, model in below(route, "predicts").items():
            if isinstance(model, str):
                yield (*loc, "predicts", key), model
        for index, experiment in enumerate(items(route, "experiments")):
            here = (*loc, "experiments", index)
            yield from _texts(experiment, here, ("of", "to", "route"))


def _texts(data: Any, loc: Loc, keys: tuple[str, ...]) -> Iterator[tuple[Loc, str]]:
    for key in keys:
        found = data.get(key) if isinstance(data, dict) else None
        if isinstance(found, str):
            yield (*loc, key), found
