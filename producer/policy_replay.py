"""What another policy would have done with requests of the past: where they go, what they cost.

The cost of a request that stays where it was is what it did cost. One that goes elsewhere costs
what answers of that model to requests of its intent did on average, or to any request; of a model
that never answered alone, what the catalog's prices say.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.catalog import Catalog, UnknownName
from modelyard.decision_ledger import Entry
from modelyard.messages import Usage
from modelyard.plan import Strategy

REFUSED: Final = "(refused)"
"""Where a request goes that no model can take."""


@dataclass(slots=True)
class Part:
    """Some of the requests, under the old and the new policy."""

    requests: int = 0
    elsewhere: int = 0
    old_cost_usd: float = 0.0
    new_cost_usd: float = 0.0

    def add(self, *, moved: bool, old_usd: float, new_usd: float) -> None:
        """Count one request."""
        self.requests += 1
        self.elsewhere += moved
        self.old_cost_usd += old_usd
        self.new_cost_usd += new_usd

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "requests": self.requests,
            "elsewhere": self.elsewhere,
            "old_cost_usd": self.old_cost_usd,
            "new_cost_usd": self.new_cost_usd,
        }


@dataclass(slots=True)
class Mean:
    """A sum and of how many."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Take one value."""
        self.total += value
        self.count += 1


class Costs:
    """What answers of each model did cost, by intent and in all."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str | None], Mean] = {}

    def add(self, entry: Entry) -> None:
        """Take one entry, if one model alone made its cost."""
        if entry.answered and entry.strategy is Strategy.SINGLE and not entry.drafts:
            for place in ((entry.model, entry.intent), (entry.model, None)):
                self._seen.setdefault(place, Mean()).add(entry.cost_usd)

    def expected_usd(self, model: str, intent: str, usage: Usage, catalog: Catalog) -> float:
        """Return what one answer of a model is expected to cost."""
        for place in ((model, intent), (model, None)):
            if seen := self._seen.get(place):
                return seen.total / seen.count
        try:
            return catalog.model(model).price.cost_usd(usage)
        except UnknownName:
            return 0.0


@dataclass(slots=True)
class Comparison:
    """The old and the new policy, compared on requests of the past."""

    catalog: Catalog
    costs: Costs
    all: Part = field(default_factory=Part)
    intents: dict[str, Part] = field(default_factory=dict)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    intents_changed: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Entry, decided: Mapping[str, Any]) -> None:
        """Take one request of the past and what is decided about it now."""
        old = place(entry.strategy.value, entry.plan)
        if "error" in decided:
            new, new_usd = REFUSED, 0.0
            self.refused[decided["error"]] += 1
        else:
            new = place(decided["strategy"], decided["plan"])
            self.intents_changed += decided["intent"] != entry.intent
            new_usd = entry.cost_usd if new == old else self.expected_usd(entry, decided)
        moved = new != old
        if moved:
            self.moves[old, new] += 1
        for part in (self.all, self.intents.setdefault(entry.intent, Part())):
            part.add(moved=moved, old_usd=entry.cost_usd, new_usd=new_usd)

    def expected_usd(self, entry: Entry, decided: Mapping[str, Any]) -> float:
        """Return what the new plan is expected to cost: of an ensemble all, else its first model.

        A cascade may cost more: nobody knows which of its answers would not have been accepted.
        """
        usage = Usage(
            input_tokens=decided["input_tokens"],
            # The same answer as then, or the guess where there was none.
            output_tokens=entry.output_tokens or decided["output_tokens"],
        )
        models = decided["plan"]
        called = models if decided["strategy"] == Strategy.ENSEMBLE else models[:1]
        return sum(
            self.costs.expected_usd(model, decided["intent"], usage, self.catalog)
            for model in called
        )

    def as_json(self) -> dict[str, Any]:
        """Return what came of it."""
        return {
            **self.all.as_json(),
            "intents_changed": self.intents_changed,
            "moves": [
                {"from": old, "to": new, "requests": count}
                for (old, new), count in self.moves.most_common()
            ],
            "by_intent": [
                {"intent": intent, **part.as_json()}
                for intent, part in sorted(
                    self.intents.items(), key=lambda row: (-row[1].requests, row[0])
                )
            ],
            "refused": [
                {"why": why, "requests": count} for why, count in self.refused.most_common()
            ],
        }


def place(strategy: str, plan: tuple[str, ...] | list[str]) -> str:
    """Return where a plan sends a request: to whom first, or to whom at once."""
    if not plan:
        return REFUSED
    match strategy:
        case Strategy.ENSEMBLE:
            return f"ensemble of {', '.join(plan)}"
        case Strategy.CASCADE:
            return f"cascade {' then '.join(plan)}"
        case Strategy.MAP_REDUCE:
            return f"in pieces to {plan[0]}"
        case _:
            return plan[0]
