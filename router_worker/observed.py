"""What calls of each model took lately, and how long its answers were."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from modelyard.decision_ledger import Entry, Kind
from modelyard.plan import Strategy

WEIGHT: Final = 0.05
"""What the newest observation counts: half of a mean is of the last 14."""
LEAST: Final = 5
"""With fewer observations than that, the catalog knows better."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Means by model, and by model and intent; models that were hardly called are not there."""

    latency_s: Mapping[str, float] = field(default_factory=dict)
    output_tokens: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(slots=True)
class Recent:
    """A mean in which what is older counts less and less."""

    mean: float = 0.0
    count: int = 0

    def add(self, observed: float) -> None:
        """Take one observation. The first ones count alike, or the very first would stay long."""
        self.count += 1
        self.mean += max(WEIGHT, 1.0 / self.count) * (observed - self.mean)


class Observer:
    """Learns from the entries of the ledger, in their order."""

    def __init__(self) -> None:
        self._latency_s: dict[str, Recent] = {}
        self._output_tokens: dict[tuple[str, str], Recent] = {}

    def add(self, entry: Entry) -> None:
        """Take one entry: of a request, or of a part of one."""
        joined = {Strategy.ENSEMBLE, Strategy.MAP_REDUCE}
        if entry.kind is Kind.REQUEST and entry.strategy in joined:
            return  # its members have told
        for model, calls in entry.calls.items():
            answers = calls.made - calls.failed
            if answers:
                recent = self._latency_s.setdefault(model, Recent())
                recent.add(calls.answered_s / answers)
        # With drafts, the tokens are those of several models; of the answer cache there are none.
        # How long the answer to a piece is was the router's to say.
        told = entry.strategy is not Strategy.MAP_REDUCE and not entry.drafts and not entry.cached
        if entry.answered and entry.model and told:
            place = (entry.model, entry.intent)
            self._output_tokens.setdefault(place, Recent()).add(entry.output_tokens)

    def observed(self) -> Observed:
        """Return what is known now."""
        return Observed(
            latency_s={
                model: recent.mean
                for model, recent in self._latency_s.items()
                if recent.count >= LEAST
            },
            output_tokens={
                place: recent.mean
                for place, recent in self._output_tokens.items()
                if recent.count >= LEAST
            },
        )
