"""An experiment for people: how it stands, its two arms side by side, and what is tested."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich import box
from rich.table import Table

from producer.display import out, plain

ROWS: Final = {
    "error_rate": ("calls that fail", "{:.1%}"),
    "latency_s": ("seconds of a call", "{:.2f}"),
    "cost_usd": ("$ of an answer", "{:.6f}"),
    "score": ("score", "{:.2f}"),
}


def show_experiment(said: Mapping[str, Any]) -> None:
    """Print one experiment as the router tells of it."""
    what = f"{said['of']} -> {said['to']}" if said["of"] else f"by route {said['to']}"
    plain(
        f"{said['name']}: {said['kind']} in route {said['route']}, {what}, "
        f"{said['percent']:g} %, {said['state']}"
    )
    if since := said.get("since"):
        at = datetime.fromtimestamp(since["at"], UTC).isoformat(sep=" ", timespec="seconds")
        who = "by its rollback" if since["by"] == "test" else "by hand"
        plain(f"  {at} {who}" + (f": {since['why']}" if since["why"] else ""))
    show_arms(said["arms"])
    for test in said["tests"]:
        name, form = ROWS[test["what"]]
        side = "at least" if test["what"] == "score" else "at most"
        plain(
            f"  {name}: {side} {form.format(test['bound'])} is wanted, "
            f"evidence against it {test['evidence']:.0%}"
        )
    plain("")


def show_arms(arms: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of the arms, with what holds of them at all times, 95 times in 100."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("")
    for arm in arms:
        table.add_column(arm, justify="right", no_wrap=True)
    table.add_row("requests", *(f"{figures['requests']:,}" for figures in arms.values()))
    for what, (name, form) in ROWS.items():
        if any(what in figures for figures in arms.values()):
            table.add_row(name, *(cell(figures.get(what), form) for figures in arms.values()))
    out.print(table)


def cell(mean: Mapping[str, Any] | None, form: str) -> str:
    """Return a mean and its interval, or a dash for none."""
    if mean is None:
        return "-"
    bounds = mean["interval"]
    around = f" ({form.format(bounds[0])} to {form.format(bounds[1])})" if bounds else ""
    return form.format(mean["mean"]) + around
