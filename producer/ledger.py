"""The commands for the decision ledger: `modelyard ledger show|export`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from modelyard.decision_ledger import Entry, read
from producer.broker import broker
from producer.display import out, plain, print_json
from producer.ledger_export import Format, export
from producer.ledger_figures import GROUPS, figures
from producer.moments import Since, Until, span
from producer.options import AsJson

OfRoute = Annotated[str | None, typer.Option("--route", help="Only requests to this route.")]

ledger = typer.Typer(
    help="Look at what was decided and what came of it, or export it.", no_args_is_help=True
)


@ledger.command()
def show(
    since: Since = None, until: Until = None, route: OfRoute = None, as_json: AsJson = False
) -> None:
    """Count requests by route, intent, model and arm of an experiment.

    How many were answered, at what mean cost, in what time, and what people thought of it.
    """
    with entries(since, until, route) as found:
        said = figures(found)
    if as_json:
        print_json(said)
        return
    if not said["all"]["requests"]:
        plain("nothing was decided in that time")
        return
    for by in GROUPS:
        if said[by]:
            show_figures(by, said[by])


@ledger.command("export")
def export_entries(
    output: Annotated[Path, typer.Option("-o", "--output", help="A new file.")],
    form: Annotated[
        Format, typer.Option("--format", help="Lines of JSON, or a table for data tools.")
    ] = "jsonl",
    since: Since = None,
    until: Until = None,
    route: OfRoute = None,
    as_json: AsJson = False,
) -> None:
    """Write the entries of the ledger to a file, oldest first.

    The file is there whole or not at all. It has prompts in it only if the yard keeps them.
    """
    with entries(since, until, route) as found:
        count = export(found, output, form)
    if as_json:
        print_json({"file": str(output), "format": form, "exported": count})
    else:
        plain(f"{count:,} exported to {output}")


@contextmanager
def entries(since: str | None, until: str | None, route: str | None) -> Iterator[Iterator[Entry]]:
    """Give the entries that the options mean. Raises `UsageError`."""
    first, last = span(since, until, time.time())
    with broker() as client:
        found = read(client, first, last)
        yield (entry for entry in found if route is None or entry.route == route)


def show_figures(by: str, rows: list[dict[str, Any]]) -> None:
    """Print the figures of one kind of group."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(by, overflow="fold")
    for column in ("requests", "answered", "mean $", "p50 s", "p95 s", "score"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row[by]),  # it may hold what looks like markup
            f"{row['requests']:,}",
            number(row["answered"], ".1%"),
            number(row["cost_usd"], ".6f"),
            number(row["p50_s"], ".2f"),
            number(row["p95_s"], ".2f"),
            number(row["score"], ".2f"),
        )
    out.print(table)


def number(value: float | None, form: str) -> str:
    """Return a number as it is printed, or a dash for none."""
    return "-" if value is None else format(value, form)
