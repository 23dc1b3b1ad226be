"""Telling what a request wants: by rules, by what was learned, or by both.

Rules are clear when all of those that match name one intent. Where they name several, or none
matches, they are ambiguous, and a `hybrid` route asks its classifier.
"""

from dataclasses import dataclass

from modelyard.routes import Route, Target
from router_worker.knowledge import Knowledge
from router_worker.rules import Match, View, matches

OTHER = "other"
"""The intent of a request that no rule matched."""

UNKNOWN = "unknown"
"""The intent of a request that is like nothing that was learned."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request wants, where such requests go, and what told so.

    `rule` is the position of the rule that decided, from 0; `confidence` the classifier's.
    """

    intent: str
    target: Target
    because: str
    rule: int | None = None
    confidence: float | None = None


def tell(name: str, route: Route, view: View, knowledge: Knowledge) -> Verdict:
    """Return what a request of the route called `name` wants."""
    mode = route.mode
    if mode == "rules":
        match = next(matches(route, view), None)
        return by_rule(name, match) if match else nothing(name, route)
    matched = [] if mode == "learned" else list(matches(route, view))
    if matched and len({match.rule.intent for match in matched}) == 1:
        return by_rule(name, matched[0])
    return learned(name, route, view, knowledge, matched)


def learned(
    name: str, route: Route, view: View, knowledge: Knowledge, matched: list[Match]
) -> Verdict:
    """Return what the classifier says, or the first rule where it says nothing of use."""
    classifier = knowledge.classifiers.get(route.classifier or "")
    guess = classifier.classify(view.features.text) if classifier else None
    if guess is None:
        # Rules carry on, whatever became of the classifier: also those that only stand in for it.
        first_match = next(iter(matched or matches(route, view)), None)
        return by_rule(name, first_match) if first_match else nothing(name, route, "no classifier")
    said = f"the classifier says {guess.intent!r}, sure to {guess.confidence:.2f}"
    unsure = guess.unknown or guess.confidence < route.min_confidence
    if not unsure:
        for match in matched:
            if match.rule.intent == guess.intent:
                because = f"{said}, as does {by_rule(name, match).because}"
                return Verdict(guess.intent, match.rule, because, match.position, guess.confidence)
        target = route.intents.get(guess.intent)
        if target is not None:
            return Verdict(guess.intent, target, said, confidence=guess.confidence)
    if matched:
        first = by_rule(name, matched[0])
        why = f"{first.because}, the first of several; {said}"
        return Verdict(first.intent, first.target, why, first.rule, guess.confidence)
    if unsure:
        why = "it is like nothing it knows" if guess.unknown else "which is not sure enough"
        return Verdict(UNKNOWN, route.otherwise, f"{said}: {why}", confidence=guess.confidence)
    why = f"{said}, which has no place in route {name!r}"
    return Verdict(guess.intent, route.otherwise, why, confidence=guess.confidence)


def by_rule(name: str, match: Match) -> Verdict:
    """Return what a rule says."""
    because = f"rule {match.position + 1} of route {name!r}: {match.because}"
    return Verdict(match.rule.intent, match.rule, because, match.position)


def nothing(name: str, route: Route, also: str = "") -> Verdict:
    """Return what is left where no rule matched."""
    because = f"no rule of route {name!r} matched" + (
        f", and {also} could be asked" if also else ""
    )
    return Verdict(OTHER, route.otherwise, because)
