"""Deciding: from a request and the catalog to a plan, with the reasons."""

from collections.abc import Sequence

from modelyard.catalog import Catalog, Model, UnknownName
from modelyard.errors import InvalidRequest
from modelyard.messages import Request
from modelyard.plan import Decision, Excluded, Plan, Step
from router_worker.features import Features, features
from router_worker.rules import first_match

OTHER = "other"
"""The intent of a request that no rule matched."""

PINNED = "pinned"
"""The intent of a request that names its models itself."""


class Unroutable(InvalidRequest):
    """No model can take the request. The message names each candidate and why not."""


def decide(request: Request, catalog: Catalog, now: float) -> Decision:
    """Return the decision for a request.

    `now` is in seconds since the epoch. Raises `Unroutable` for an unknown route or model, and
    when every candidate is excluded.
    """
    seen = features(request)
    rule = None
    if request.models:
        intent, because, names = PINNED, "the request names its models", request.models
    else:
        try:
            route = catalog.route(request.route)
        except UnknownName as error:
            raise Unroutable(str(error)) from error
        match = first_match(route, seen)
        if match is None:
            intent, names = OTHER, route.otherwise.models
            because = f"no rule of route {request.route!r} matched"
        else:
            rule, intent, names = match.position, match.rule.intent, match.rule.models
            because = f"rule {rule + 1} of route {request.route!r}: {match.because}"
    steps, excluded = candidates(names, request, seen, catalog)
    if not steps:
        reasons = "; ".join(f"{each.model}: {each.why}" for each in excluded)
        raise Unroutable(f"no model can take it ({reasons})")
    return Decision(
        route=request.route,
        intent=intent,
        why=because,
        rule=rule,
        input_tokens=seen.input_tokens,
        excluded=tuple(excluded),
        decided_at=now,
        plan=Plan(steps=tuple(steps)),
    )


def candidates(
    names: Sequence[str], request: Request, seen: Features, catalog: Catalog
) -> tuple[list[Step], list[Excluded]]:
    """Return the steps that can be taken, in order, and the candidates that can't, with reasons."""
    steps, excluded = [], []
    for name in dict.fromkeys(names):
        try:
            obstacle = exclusion(catalog.model(name), request, seen)
        except UnknownName as error:
            obstacle = str(error)
        if obstacle is None:
            steps.append(Step(model=name))
        else:
            excluded.append(Excluded(model=name, why=obstacle))
    return steps, excluded


def exclusion(model: Model, request: Request, seen: Features) -> str | None:
    """Return why this model can't take this request, or None if it can."""
    if model.disabled is not None:
        return model.disabled
    asked = request.params.get("max_tokens")
    output = asked if isinstance(asked, int) and asked > 0 else model.max_output_tokens
    room = model.context_tokens - output
    if seen.input_tokens > room:
        return f"about {seen.input_tokens:,} tokens do not fit the {room:,} it has for input"
    return None
