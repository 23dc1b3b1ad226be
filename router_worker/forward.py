"""One request through the router: read it, decide, and what is to be sent where."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from modelyard.catalog import Catalog
from modelyard.errors import InvalidRequest
from modelyard.messages import Call, DeadLetter, DeadReason, Request, problems
from modelyard.plan import Decision
from router_worker.budgets import OverBudget
from router_worker.knowledge import NOTHING, Knowledge
from router_worker.policy import decide


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The request goes on to the first model of its plan."""

    call: Call


@dataclass(frozen=True, slots=True)
class Refused:
    """The request ends here."""

    letter: DeadLetter


def forward(
    id: str,
    payload: Any,
    catalog: Catalog,
    now: float,
    expires: float | None = None,
    *,
    knowledge: Knowledge = NOTHING,
    escalated: str | None = None,
) -> Forwarded | Refused:
    """Return where a request goes. Bad input is a dead letter, never an exception.

    `expires` is when its task message does; the earlier of it and the deadline counts. Both and
    `now` are seconds since the epoch. `escalated` is where the request's session got to.
    """
    raw = dict(payload) if isinstance(payload, Mapping) else {"received": payload}
    try:
        request = Request.decode(raw)
    except ValidationError as error:
        return refused(id, DeadReason.INVALID, f"not a request: {problems(error)}", raw, now)
    ends = [end for end in (request.deadline, expires) if end is not None]
    if ends:
        request = request.model_copy(update={"deadline": min(ends)})
    if request.deadline is not None and now >= request.deadline:
        return refused(id, DeadReason.EXPIRED, "its deadline passed before it was routed", raw, now)
    try:
        decision = decide(request, catalog, now, id=id, knowledge=knowledge, escalated=escalated)
    except InvalidRequest as error:
        return refused(id, DeadReason.INVALID, str(error), raw, now)
    except OverBudget as error:
        return refused(id, DeadReason.REFUSED, str(error), raw, now)
    if escalated is not None:
        # A replay decides by it again.
        decision = decision.model_copy(update={"escalated": escalated})
    return Forwarded(Call(request=request, decision=decision))


def refused(
    id: str, reason: DeadReason, message: str, request: dict[str, Any], now: float
) -> Refused:
    """Return the end of a request that was not forwarded."""
    return Refused(DeadLetter(id=id, reason=reason, message=message, request=request, died_at=now))


def broken(id: str, payload: Any, error: Exception, now: float) -> Refused:
    """Return the end of a request on which the router failed; all of it is kept."""
    raw = dict(payload) if isinstance(payload, Mapping) else {"received": payload}
    why = f"the router failed on it: {type(error).__name__}"
    return refused(id, DeadReason.INVALID, why, raw, now)


def summary(decision: Decision) -> str:
    """Return a decision in a few words, for logs, events and Flower."""
    tokens = f"{decision.intent}, about {decision.input_tokens:,} tokens"
    return f"{tokens}, {decision.plan.words}"
