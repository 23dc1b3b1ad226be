"""What the decision ledger says in figures: how many, how good, how fast, for how much."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.decision_ledger import Entry, Kind

GROUPS: Final = ("route", "intent", "model", "arm")
"""By what requests are counted."""
UNROUTED: Final = "(not routed)"


@dataclass(slots=True)
class Group:
    """The requests that have something in common."""

    requests: int = 0
    answered: int = 0
    cost_usd: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Count one request, or the feedback on one, of which the last counts."""
        if entry.kind is Kind.FEEDBACK:
            if entry.score is not None:
                self.scores[entry.id] = entry.score
            return
        self.requests += 1
        self.cost_usd += entry.cost_usd
        if entry.answered:
            self.answered += 1
            self.latencies_s.append(entry.latency_s)

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON; what there is none of is null."""
        scores = self.scores.values()
        return {
            "requests": self.requests,
            "answered": self.answered / self.requests if self.requests else None,
            "cost_usd": self.cost_usd / self.requests if self.requests else None,
            "p50_s": quantile(self.latencies_s, 0.50),
            "p95_s": quantile(self.latencies_s, 0.95),
            "score": sum(scores) / len(scores) if scores else None,
            "scores": len(scores),
        }


def figures(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the figures of all requests, and by route, intent, model and arm, most first.

    Members, shadows and what was thought of an answer that nobody got are parts of requests and
    only in the figures of their models.
    """
    whole = Group()
    groups: dict[str, dict[str, Group]] = {by: {} for by in GROUPS}
    for entry in entries:
        if not is_part(entry):
            whole.add(entry)
        for by, names in names_of(entry).items():
            for name in names:
                groups[by].setdefault(name, Group()).add(entry)
    said: dict[str, Any] = {"all": whole.figures()}
    for by, group in groups.items():
        rows = sorted(group.items(), key=lambda row: (-row[1].requests, row[0]))
        said[by] = [{by: name, **each.figures()} for name, each in rows]
    return said


def names_of(entry: Entry) -> dict[str, tuple[str, ...]]:
    """Return in which groups an entry is counted."""
    model = (entry.model,) if entry.model else ()
    if is_part(entry):
        return {"model": model}
    return {
        "route": (entry.route or UNROUTED,),
        "intent": (entry.intent or UNROUTED,),
        "model": model,
        "arm": tuple(f"{arm.experiment}/{arm.arm}" for arm in entry.arms),
    }


def is_part(entry: Entry) -> bool:
    """Return whether an entry is about a part of a request, and not about all of it."""
    return entry.kind in {Kind.SHADOW, Kind.MEMBER} or not entry.given


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of them does not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
