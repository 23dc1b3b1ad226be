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
FRESH_S: Final = 300.0
"""So long after the last answer of a model its latency is not that of now, in seconds. Who was too
slow for what is asked is not called, and could never show that it is faster again."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Means by model, and by model and intent; models that were hardly called are not there.

    Nor is the latency of a model that has not answered lately.
    """

    latency_s: Mapping[str, float] = field(default_factory=dict)
    output_tokens: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(slots=True)
class Recent:
    """A mean in which what is older counts less and less. `at` is when its newest was, in seconds
    since the epoch, where that is kept.
    """

    mean: float = 0.0
    count: int = 0
    at: float = 0.0

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
                if not is_fresh(recent, entry.at):
                    # Beside the mean of another time, one answer would change nothing, and the
                    # model would be left alone again.
                    recent = self._latency_s[model] = Recent()
                recent.add(calls.answered_s / answers)
                recent.at = max(recent.at, entry.at)
        # With drafts, the tokens are those of several models; of the answer cache there are none.
        # How long the answer to a piece is was the router's to say.
        told = entry.strategy is not Strategy.MAP_REDUCE and not entry.drafts and not entry.cached
        if entry.answered and entry.model and told:
            place = (entry.model, entry.intent)
            self._output_tokens.setdefault(place, Recent()).add(entry.output_tokens)

    def observed(self, now: float) -> Observed:
        """Return what is known now, in seconds since the epoch."""
        return Observed(
            latency_s={
                model: recent.mean
                for model, recent in self._latency_s.items()
                if recent.count >= LEAST and is_fresh(recent, now)
            },
            output_tokens={
                place: recent.mean
                for place, recent in self._output_tokens.items()
                if recent.count >= LEAST
            },
        )


def is_fresh(recent: Recent, now: float) -> bool:
    """Return whether the newest observation is of these minutes."""
    return now - recent.at <= FRESH_S
