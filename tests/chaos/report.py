"""The reports of many storms as one page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.results import machine, markdown_table
from chaos.checker import Report, percentile
from chaos.storms import Storm

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"


@dataclass(frozen=True, slots=True)
class Ran:
    """One storm that ran over one system."""

    storm: Storm
    system: str
    lease_s: float
    seed: int
    report: Report
    failures: tuple[str, ...] = ()


HEAD: Final = (
    "storm", "system", "accepted", "answered", "dead letters", "**lost**", "**stranded**",
    "**doubled**", "paid twice (in flight at a fault)", "kills", "died alone",
    "takeover p50 / p99, s", "recovery p50 / p99, s", "requests/s", "seed",
)  # fmt: skip


def row(ran: Ran) -> tuple[str, ...]:
    """Return one line of the table."""
    report = ran.report
    lost = str(len(report.lost))
    if report.accepted_unsynced:
        promised = len(report.lost_as_promised)
        lost += f" (+{promised} of {report.accepted_unsynced} that were not promised)"
    doubled = str(len(report.doubled))
    if report.ended_again_as_promised:
        doubled += f" (+{len(report.ended_again_as_promised)} not promised)"
    stranded = len(report.stranded) + report.unknown_left
    lease = f", lease {ran.lease_s:g} s"
    return (
        ran.storm.name + lease,
        ran.system,
        f"{report.accepted:,}",
        f"{report.answered:,}",
        f"{report.dead_lettered:,}",
        lost,
        str(stranded),
        doubled,
        f"{len(report.paid_twice):,} ({report.in_flight:,})",
        str(report.kills),
        str(report.died_alone),
        times(report.takeovers_s),
        times(report.recoveries_s),
        f"{report.requests_per_s:.0f}",
        str(ran.seed),
    )


def times(values: Sequence[float]) -> str:
    """Return p50 and p99, or a dash if there is nothing."""
    if not values:
        return "–"
    return f"{percentile(values, 50):.1f} / {percentile(values, 99):.1f}"


def table(runs: Sequence[Ran]) -> str:
    """Return the Markdown table of these runs."""
    return markdown_table(HEAD, [row(ran) for ran in runs])


def calm(runs: Sequence[Ran]) -> list[str]:
    """Return what the runs without faults say about memory and duplicates."""
    return [
        f"- {ran.system}: {ran.report.accepted:,} requests without faults, "
        f"{ran.report.executions:,} calls, {len(ran.report.paid_twice)} of them paid twice; the "
        f"memory of no worker grew by more than {ran.report.memory_growth:.1%} after the first "
        "fifth."
        for ran in runs
        if ran.storm.flat
    ]


def measured(runs: Sequence[Ran], measured_at: str) -> str:
    """Return the part of the page that a run writes."""
    here = machine()
    libraries = ", ".join(f"{name} {number}" for name, number in here["libraries"].items())
    storms = {ran.storm.name: ran.storm.about for ran in runs}
    broken = [
        f"- {ran.storm.name}, {ran.system}: {failure}" for ran in runs for failure in ran.failures
    ]
    parts = [
        f"{measured_at} · {here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB, "
        f"{here['system']}, Python {here['python']} · {libraries}",
        table(runs),
        *(["\n".join(calm(runs))] if calm(runs) else []),
        "Broken promises:\n\n" + "\n".join(broken) if broken else "No promise was broken.",
        "The storms:\n\n" + "\n".join(f"- `{name}`: {about}" for name, about in storms.items()),
    ]
    return "\n\n".join(parts)


def write(page: Path, text: str) -> None:
    """Put `text` between the marks of the page. Raises `ValueError` if it has none."""
    whole = page.read_text(encoding="utf-8")
    marks = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not marks.search(whole):
        raise ValueError(f"{page.name}: nowhere to write to: {BEGIN} ... {END} is missing")
    new = f"{BEGIN}\n{text}\n{END}"
    page.write_text(marks.sub(lambda _: new, whole), encoding="utf-8")
