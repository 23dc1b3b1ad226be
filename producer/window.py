"""Window: how long a text may be so that some model takes it, as the catalog's routes say.

The router decides which model gets a text. Here is only what a producer must know before: which
models may get it at all, and whether it has to be cut into pieces first.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.catalog import Catalog
from modelyard.routes import When


@dataclass(frozen=True, slots=True)
class Door:
    """One list of candidates and when it is used (None: it may always be).

    `room_tokens` is for input. `is_told`: whether its length alone tells if a text goes there.
    """

    when: When | None
    room_tokens: int
    is_told: bool = False

    def may_open(self, text: str, tokens: int) -> bool:
        """Return whether the list may be used for this text; True if that can't be told here."""
        if self.when is None:
            return True
        if self.when.min_tokens is not None and tokens < self.when.min_tokens:
            return False
        if self.when.max_tokens is not None and tokens > self.when.max_tokens:
            return False
        if not self.when.keywords:
            return True
        folded = text.casefold()
        return any(keyword.casefold() in folded for keyword in self.when.keywords)

    def surely_opens(self, text: str, tokens: int) -> bool:
        """Return whether the list is used for this text if none before it is."""
        return self.is_told and self.may_open(text, tokens)


@dataclass(frozen=True, slots=True)
class Window:
    """What the models of a route take. `in_order`: the first list that opens is used."""

    doors: tuple[Door, ...]
    in_order: bool = True

    @property
    def safe_tokens(self) -> int:
        """A text of so many tokens fits a model of whatever list it is routed to."""
        return min(door.room_tokens for door in self.doors)

    def takes(self, text: str, tokens: int) -> bool:
        """Return whether a text that `tokens` is the estimate of fits wherever it may go."""
        if tokens <= self.safe_tokens:
            return True
        for door in self.doors:
            if door.may_open(text, tokens) and tokens > door.room_tokens:
                return False
            if self.in_order and door.surely_opens(text, tokens):
                break
        return True


def json_bytes(text: str) -> int:
    """Return how many bytes a text has as a JSON string: its part of a message."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def candidates(catalog: Catalog, route: str, models: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all models that a request may go to, in the catalog's order.

    `models` are those that the request pins, if it does. Raises `UnknownName`.
    """
    names = {name for _, some in _lists(catalog, route, models) for name in some}
    return tuple(model.name for model in catalog.models if model.name in names)


def window(
    catalog: Catalog, route: str, models: Sequence[str] = (), max_tokens: int | None = None
) -> Window:
    """Return the window of a route, or of pinned models. Raises `UnknownName`.

    `max_tokens` is the longest answer that is asked for; by default each model's own. A model
    that can't be called here counts only where no other is left: somebody else's workers may
    know more keys than we do. People count where there is nobody else: what is too long for the
    models before them is cut, and not a person's to read.
    """
    live = {model.name for model in catalog.live_models}
    people = {model.name for model in catalog.models if model.is_people}
    lists = list(_lists(catalog, route, models))
    known = [
        (
            when,
            [name for name in names if name in live] or [name for name in names if name in people],
        )
        for when, names in lists
    ]
    usable = [(when, names) for when, names in known if names] or lists
    return Window(
        tuple(
            Door(when, max(_room(catalog, name, max_tokens) for name in names), _is_told(when))
            for when, names in usable
        ),
        in_order=bool(models) or _in_order(catalog, route),
    )


def _lists(
    catalog: Catalog, route: str, models: Sequence[str]
) -> Sequence[tuple[When | None, Sequence[str]]]:
    if models:
        return [(None, [catalog.model(name).name for name in models])]
    # A classifier may choose any intent, and an experiment another route.
    names = [route, *(each.route for each in catalog.route(route).experiments if each.route)]
    lists: list[tuple[When | None, Sequence[str]]] = []
    for found in map(catalog.route, names):
        lists += [(rule.when, rule.models) for rule in found.rules]
        lists += [(None, target.models) for target in found.intents.values()]
        lists.append((None, found.otherwise.models))
    return lists


def _in_order(catalog: Catalog, route: str) -> bool:
    found = catalog.route(route)
    return found.mode == "rules" and not any(each.route for each in found.experiments)


def _is_told(when: When | None) -> bool:
    return when is not None and when.model_fields_set <= {"min_tokens", "max_tokens"}


def _room(catalog: Catalog, name: str, max_tokens: int | None) -> int:
    model = catalog.model(name)
    return max(1, model.context_tokens - (max_tokens or model.max_output_tokens))
