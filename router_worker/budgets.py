"""What budgets say of a request. Pure functions."""

from collections.abc import Mapping

from modelyard.budgets import Budget, concerned
from modelyard.catalog import Catalog
from modelyard.errors import ModelyardError
from modelyard.messages import Request


class OverBudget(ModelyardError):
    """What may be spent today is spent. The message says which budget, and how much it is."""


def over(budgets: tuple[Budget, ...], spent_usd: Mapping[str, float]) -> Budget | None:
    """Return the budget that decides of those that are spent, or None: one that stops comes first.

    Of several that downgrade it is the first in the catalog.
    """
    spent = [each for each in budgets if spent_usd.get(each.label, 0.0) >= each.usd_per_day]
    return min(spent, key=lambda budget: budget.over != "stop", default=None)


def of_request(request: Request, catalog: Catalog) -> tuple[Budget, ...]:
    """Return the budgets that a request counts against."""
    if not catalog.budgets:
        return ()
    return concerned(catalog.budgets, request.metadata.get("tenant", ""), request.route)


def is_spent(budget: Budget) -> str:
    """Return in words that nothing of a budget is left."""
    return f"the budget {budget.label} of ${budget.usd_per_day:g} a day (UTC) is spent"
