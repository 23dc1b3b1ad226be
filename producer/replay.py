"""The command that tries a policy on the past: `modelyard replay`. It calls nothing."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any

import redis
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from modelyard.catalog_file import load_catalog
from modelyard.decision_ledger import Entry, Kind, read
from modelyard.standings import read_standings, standings
from producer.broker import broker
from producer.display import err, out, plain, print_json
from producer.moments import Since, Until, span
from producer.options import AsJson
from producer.policy_replay import Comparison, Costs
from producer.router_answer import ask_decisions


def replay(
    policy: Annotated[Path, typer.Option(help="The catalog with the new routes.")],
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Decide past requests again, as another catalog would have.

    How many would go elsewhere, and at what cost. No model is called.

    It takes requests whose text was kept (MODELYARD_LEDGER_TEXT).

    What sends dead letters again is `modelyard dead replay`.
    """
    catalog = load_catalog(policy, os.environ)
    first, last = span(since, until, time.time())
    with broker() as client:
        past = Past(client, first, last)
        comparison = Comparison(catalog, past.costs)
        over = [name for name, each in read_standings(standings(client)).items() if each.is_back]
        with closing(ask_decisions(past.lines(), policy.resolve(), over)) as decisions:
            for decided in decisions:
                comparison.add(past.sent.get(), decided)
    said = {**comparison.as_json(), "without_text": past.without_text}
    print_json(said) if as_json else show(said)


class Past:
    """The requests of the ledger in a span of time. `costs` are known before the first is sent."""

    def __init__(self, client: redis.Redis, since: float | None, until: float | None) -> None:
        self._client = client
        self._span = since, until
        self.costs = Costs()
        self.without_text = 0
        self.sent: SimpleQueue[Entry] = SimpleQueue()
        """The requests whose lines were read, in that order, without their text."""
        for entry in self._requests():
            self.costs.add(entry)
            self.without_text += entry.request is None

    def lines(self) -> Iterator[str]:
        """Yield those that kept their text, as the router reads them."""
        for entry in self._requests():
            if entry.request is not None:
                self.sent.put(entry.model_copy(update={"request": None}))
                past = {"id": entry.id, "at": entry.at, "request": entry.request}
                yield json.dumps({**past, "escalated": entry.escalated})

    def _requests(self) -> Iterator[Entry]:
        """Yield what was decided; not what was no request in the first place."""
        return (
            entry
            for entry in read(self._client, *self._span)
            if entry.kind is Kind.REQUEST and entry.plan
        )


def show(said: dict[str, Any]) -> None:
    """Print what the new policy would have changed."""
    if said["requests"]:
        share = said["elsewhere"] / said["requests"]
        plain(f"{said['elsewhere']:,} of {said['requests']:,} requests ({share:.1%}) go elsewhere")
        plain(f"cost: ${said['old_cost_usd']:.6f} was paid, about ${said['new_cost_usd']:.6f} then")
    else:
        plain("no request of that time can be decided again")
    if said["moves"]:
        moves = [(row["from"], row["to"], f"{row['requests']:,}") for row in said["moves"]]
        show_table(("from", "to"), ("requests",), moves)
    if said["by_intent"]:
        parts = [
            (
                row["intent"],
                f"{row['requests']:,}",
                f"{row['elsewhere']:,}",
                f"{row['old_cost_usd']:.6f}",
                f"{row['new_cost_usd']:.6f}",
            )
            for row in said["by_intent"]
        ]
        show_table(("intent",), ("requests", "elsewhere", "$ paid", "$ then"), parts)
    for row in said["refused"]:
        plain(f"{row['requests']:,} refused: {row['why']}")
    if said["without_text"]:
        err.print(
            f"{said['without_text']:,} requests can't be decided again: their text was not kept "
            "(MODELYARD_LEDGER_TEXT)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def show_table(
    names: Sequence[str], numbers: Sequence[str], rows: Sequence[tuple[str, ...]]
) -> None:
    """Print a table whose first columns are names and whose others are numbers."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in names:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # it may hold what looks like markup
    out.print(table)
