"""One dead letter as it lies in the store, and which of them are meant: pure functions."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from modelyard.messages import DeadLetter, DeadReason, problems


@dataclass(frozen=True, slots=True)
class Entry:
    """One dead letter as it lies in the store.

    `died_at` is in seconds since the epoch. `letter` is None and `problem` says why if `raw` is
    none that this version can read.
    """

    id: str
    died_at: float
    raw: bytes
    letter: DeadLetter | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: those to which all of it applies; by default every one.

    `models`: one of them was called, or the request waited for it when it died. `since` and
    `before` bound when it died: `since <= died_at < before`, in seconds since the epoch.
    """

    ids: tuple[str, ...] = ()
    reasons: frozenset[DeadReason] = frozenset()
    models: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)
    since: float = -math.inf
    before: float = math.inf

    def matches(self, entry: Entry) -> bool:
        """Return whether this letter is meant. What can't be read has no reason, model or route."""
        if self.ids and entry.id not in self.ids:
            return False
        if not self.since <= entry.died_at < self.before:
            return False
        if not (self.reasons or self.models or self.routes or self.metadata):
            return True
        letter = entry.letter
        if letter is None:
            return False
        given = letter.request.get("metadata")
        metadata = given if isinstance(given, Mapping) else {}
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.models or not self.models.isdisjoint(models_of(letter)))
            and (not self.routes or route_of(letter) in self.routes)
            and all(metadata.get(key) == value for key, value in self.metadata.items())
        )


EVERY: Final = Filter()


def read_entry(id: str, died_at: float, raw: bytes) -> Entry:
    """Return what is stored under `id`, whatever it is."""
    try:
        return Entry(id, died_at, raw, DeadLetter.model_validate_json(raw))
    except ValidationError as error:
        return Entry(id, died_at, raw, None, f"not a dead letter: {problems(error)}")


def read_died_at(raw: bytes) -> float:
    """Return when a letter died, in seconds since the epoch; 0 if it does not say."""
    try:
        died_at = float(json.loads(raw)["died_at"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0.0
    return died_at if math.isfinite(died_at) else 0.0


def route_of(letter: DeadLetter) -> str:
    """Return the route that the request named, or the default one; nothing if it named no name."""
    route = letter.request.get("route", "default")
    return route if isinstance(route, str) else ""


def models_of(letter: DeadLetter) -> tuple[str, ...]:
    """Return the models that were called, and the one that the request waited for, if any."""
    called = list(dict.fromkeys(attempt.model for attempt in letter.attempts))
    plan = [step.model for step in letter.decision.plan.steps] if letter.decision else []
    waiting = [model for model in plan if model not in called][:1]
    # A letter does not say which step it was at: in doubt it was on the way to the next.
    if not called or letter.reason in {DeadReason.EXPIRED, DeadReason.POISON}:
        return (*called, *waiting)
    return tuple(called)
