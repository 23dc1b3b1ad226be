"""The command for budgets: `modelyard budgets`."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from modelyard.budgets import Budget
from modelyard.catalog_file import default_catalog
from modelyard.spent import spent_usd
from producer.broker import broker
from producer.display import out, plain, print_json
from producer.options import AsJson


def budgets(as_json: AsJson = False) -> None:
    """Say what today's requests (UTC) have cost, by the budgets of the catalog."""
    catalog, now = default_catalog(), time.time()
    with broker() as client:
        spent = spent_usd(client, now)
    said = [told(budget, spent) for budget in catalog.budgets]
    if as_json:
        print_json(said)
    elif not said:
        plain("the catalog has no budgets")
    else:
        show(said, now)


def told(budget: Budget, spent: Mapping[str, float]) -> dict[str, Any]:
    """Return how a budget stands, as plain JSON values."""
    used = spent.get(budget.label, 0.0)
    return {
        "tenant": budget.tenant,
        "route": budget.route,
        "spent_usd": used,
        "usd_per_day": budget.usd_per_day,
        "is_spent": used >= budget.usd_per_day,
        "over": budget.over,
        "downgrade_to": list(budget.downgrade_to),
    }


def show(said: Sequence[Mapping[str, Any]], now: float) -> None:
    """Print budgets for people. `now` is in seconds since the epoch."""
    plain(f"{datetime.fromtimestamp(now, UTC).date().isoformat()} (UTC)")
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("tenant", "route"):
        table.add_column(name)
    for name in ("spent $", "of $"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for each in said:
        stops = "refused" if each["over"] == "stop" else f"to {', '.join(each['downgrade_to'])}"
        table.add_row(
            # What is in brackets is no markup here.
            *(Text(each[name]) for name in ("tenant", "route")),
            f"{each['spent_usd']:.6f}",
            f"{each['usd_per_day']:g}",
            Text(f"spent: {stops}" if each["is_spent"] else ""),
        )
    out.print(table)
