"""What wants a person: endpoints that deny, models that nobody answers for, budgets that are spent.

No restart mends any of it, so none of it makes a yard unhealthy. `modelyard.news` reads it. Times
are in seconds since the epoch, by the clock of the Redis server.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from modelyard.finding import Finding, Level
from modelyard.wording import dollars

DENIED: Final = "denied"
LIMITED: Final = "limited"
WHYS: Final = ("failing", LIMITED, DENIED)
"""Why workers leave an endpoint alone: `modelyard.circuit.Reason`."""


@dataclass(frozen=True, slots=True)
class EndpointNews:
    """An endpoint that can be called, here or by workers. `why` it is left alone, '' if it is not;
    since when, and when it may be probed. It is left alone until a probe is answered.

    `since` is when a worker said so last: a probe that fails says it again.
    """

    model: str
    endpoint: str
    why: str = ""
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class BudgetNews:
    """What was spent of a budget today (UTC), and what becomes of new requests once it is spent."""

    tenant: str
    route: str
    spent_usd: float
    usd_per_day: float
    over: str

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.spent_usd >= self.usd_per_day


@dataclass(frozen=True, slots=True)
class News:
    """What Redis knows of the endpoints and the budgets of a catalog, in the catalog's order."""

    endpoints: tuple[EndpointNews, ...] = ()
    budgets: tuple[BudgetNews, ...] = ()


NO_NEWS: Final = News()


def alerts(news: News, now: float) -> Iterable[Finding]:
    """Return what follows from the news. What is only at its limit, or was told to make do with
    cheaper models, is a warning.
    """
    for model, some in groupby(news.endpoints, key=lambda each: each.model):
        yield from endpoint_findings(model, tuple(some), now)
    for budget in news.budgets:
        if budget.is_spent:
            stops = budget.over == "stop"
            yield Finding(
                Level.ALERT if stops else Level.WARNING,
                f"budget {budget.tenant}/{budget.route}",
                f"spent: {dollars(budget.spent_usd, budget.usd_per_day)} today (UTC), new "
                f"requests {'are refused' if stops else 'go to cheaper models'}",
            )


def endpoint_findings(
    model: str, endpoints: Sequence[EndpointNews], now: float
) -> Iterable[Finding]:
    """Return what is wrong with a model's endpoints, given all of them that can be called."""
    for each in endpoints:
        if each.why == DENIED:
            yield Finding(
                Level.ALERT,
                f"{model} at {each.endpoint}",
                f"denies our calls (key, bill, access or name), said so last at "
                f"{clock(each.since)}; {again(each.until, now)}",
            )
    if is_down(endpoints):
        whys = sorted({each.why for each in endpoints})
        first = min(each.until or now for each in endpoints)
        every = "its endpoint" if len(endpoints) == 1 else f"each of its {len(endpoints)} endpoints"
        yield Finding(
            Level.WARNING if LIMITED in whys else Level.ALERT,
            model,
            f"{every} is left alone ({', '.join(whys)}): requests wait or go to other models; "
            f"{again(first, now)}",
        )


def is_down(endpoints: Sequence[EndpointNews]) -> bool:
    """Return whether all of a model's endpoints are left alone."""
    return bool(endpoints) and all(each.why for each in endpoints)


def again(until: float | None, now: float) -> str:
    """Return when an endpoint is asked again, for people."""
    if until is None or until <= now:
        return "the next call asks again"
    return f"asked again at {clock(until)}"


def clock(at: float | None) -> str:
    """Return a time of these hours, for people."""
    if at is None:
        return "a time unknown"
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
