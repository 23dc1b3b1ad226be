"""What deciding knows besides the request and the catalog: what was learned and what was seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol


class Guess(Protocol):
    """What a classifier makes of a text. `confidence` is the chance that `intent` is right."""

    @property
    def intent(self) -> str: ...

    @property
    def confidence(self) -> float: ...

    @property
    def unknown(self) -> bool:
        """Whether the text is like nothing that the classifier was trained on."""
        ...


class Classifier(Protocol):
    """Tells the intent of a text."""

    def classify(self, text: str) -> Guess | None:
        """Return a guess, or None if it failed: rules carry on."""
        ...


class Predictor(Protocol):
    """Tells how good each model's answer will be."""

    def predict(self, text: str) -> Mapping[str, float]:
        """Return the chance from 0 to 1 that a model's answer is good enough; {} if it failed."""
        ...


class Observed(Protocol):
    """What was observed of models, as `Knowledge` has it."""

    @property
    def latency_s(self) -> Mapping[str, float]: ...

    @property
    def output_tokens(self) -> Mapping[tuple[str, str], float]: ...


class Seen(Protocol):
    """What was seen so far while requests were answered."""

    @property
    def observed(self) -> Observed: ...

    @property
    def taken_back(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All of it at one moment.

    `classifiers` and `predictors` are by the names that routes give them; one that can't be loaded
    is missing. `latency_s` is what calls of a model took lately; `output_tokens` how long its
    answers were, by model and intent. `taken_back`: experiments that are over. `spent_usd`: what
    was spent today, by the labels of budgets.
    """

    classifiers: Mapping[str, Classifier] = field(default_factory=dict)
    predictors: Mapping[str, Predictor] = field(default_factory=dict)
    latency_s: Mapping[str, float] = field(default_factory=dict)
    output_tokens: Mapping[tuple[str, str], float] = field(default_factory=dict)
    taken_back: frozenset[str] = frozenset()
    spent_usd: Mapping[str, float] = field(default_factory=dict)

    def having(self, seen: Seen) -> "Knowledge":
        """Return the same models with what was seen."""
        return replace(
            self,
            latency_s=seen.observed.latency_s,
            output_tokens=seen.observed.output_tokens,
            taken_back=seen.taken_back,
        )


NOTHING = Knowledge()
"""A router that has just started and has no models."""
