"""Budgets: what a tenant's requests to a route may cost in a day, and what they have cost.

The router writes into a decision which budgets it counts against; whoever ends a request, or a part
of one, adds what its calls cost, in the same step in Redis. Days are those of UTC.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from modelyard.catalog_part import Part
from modelyard.messages import Attempt
from modelyard.names import SPENT_KEY_PREFIX
from modelyard.plan import Decision

ANY: Final = "*"
KEEP_S: Final = 8 * 24 * 3600
"""For how long a day's sums are kept after the last of it was spent."""


class Budget(Part):
    """What may be spent in a day (UTC) on the requests of a tenant to a route.

    `tenant` is the request's metadata `tenant`; `"*"` stands for all tenants, or routes, together.
    Once it is spent, new requests are refused (`over: stop`) or go to the models `downgrade_to`,
    first choice and then failover (`over: downgrade`).
    """

    tenant: Annotated[str, Field(min_length=1)] = ANY
    route: Annotated[str, Field(min_length=1)] = ANY
    usd_per_day: Annotated[float, Field(ge=0.0)]
    over: Literal["stop", "downgrade"] = "stop"
    downgrade_to: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_where_to(self) -> Self:
        if (self.over == "downgrade") != bool(self.downgrade_to):
            raise ValueError("downgrade_to, a list of models, belongs to over: downgrade")
        return self

    @property
    def label(self) -> str:
        """What it is called where it is counted, and for people: tenant and route."""
        return f"{self.tenant}/{self.route}"

    def concerns(self, tenant: str, route: str) -> bool:
        """Return whether the requests of a tenant ('' for none) to a route count against it."""
        return self.tenant in {ANY, tenant} and self.route in {ANY, route}


def concerned(budgets: Iterable[Budget], tenant: str, route: str) -> tuple[Budget, ...]:
    """Return the budgets that such a request counts against."""
    return tuple(budget for budget in budgets if budget.concerns(tenant, route))


def check_budgets(budgets: Sequence[Budget], models: Iterable[str], routes: Iterable[str]) -> None:
    """Raise `ValueError` for a budget that is there twice or names what there is not."""
    known_models, known_routes, seen = set(models), set(routes), set()
    for budget in budgets:
        if budget.label in seen:
            raise ValueError(f"two budgets are for {budget.label}")
        seen.add(budget.label)
        if budget.route != ANY and budget.route not in known_routes:
            raise ValueError(f"budget {budget.label}: unknown route {budget.route!r}")
        for model in budget.downgrade_to:
            if model not in known_models:
                raise ValueError(f"budget {budget.label}: unknown model {model!r}")


def bill(decision: Decision | None, attempts: Iterable[Attempt], now: float) -> str:
    """Return what `settle.lua` is told of the cost of these calls, as JSON; '' if it is nothing.

    `now` is in seconds since the epoch. Sums are whole billionths of a dollar, so that none is
    rounded away, and in text: Lua writes large numbers as 1e+15.
    """
    if decision is None or not decision.budgets:
        return ""
    nano_usd = round(1e9 * sum(attempt.cost_usd for attempt in attempts))
    if not nano_usd:
        return ""
    return json.dumps(
        {
            "key": spent_key(now),
            "budgets": decision.budgets,
            "nano_usd": str(nano_usd),
            "keep_s": KEEP_S,
        }
    )


def spent_key(now: float) -> str:
    """Return the key of a day's sums; `now` is in seconds since the epoch."""
    return SPENT_KEY_PREFIX + datetime.fromtimestamp(now, UTC).date().isoformat()
