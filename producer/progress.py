"""Progress: what a run has done so far, shown while it works and summed up at its end."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

SHOWN_FAILURES: Final = 10
REFRESH_S: Final = 0.2
PLAIN_S: Final = 5.0
"""How often a line is written where nothing can be drawn, in seconds."""


@dataclass
class Tally:
    """Counts of a run: what it did itself, and what earlier runs of the same job had done."""

    answered: int = 0
    failed: int = 0
    before_answered: int = 0
    before_failed: int = 0
    retriable: int = 0
    """How many of all that failed may end otherwise when they are tried again as they are."""
    cost_usd: float = 0.0
    models: Counter[str] = field(default_factory=Counter)
    costs_usd: dict[str, float] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many have an outcome, now and before."""
        return self.now + self.before_answered + self.before_failed

    @property
    def now(self) -> int:
        """How many got their outcome in this run."""
        return self.answered + self.failed

    @property
    def all_failed(self) -> int:
        """How many failed, now and before."""
        return self.failed + self.before_failed

    def add_answer(self, model: str, cost_usd: float) -> None:
        """Count an answer."""
        self.answered += 1
        self.models[model] += 1
        self.costs_usd[model] = self.costs_usd.get(model, 0.0) + cost_usd
        self.cost_usd += cost_usd

    def add_failure(
        self, name: str, why: str, cost_usd: float = 0.0, *, retriable: bool = True
    ) -> None:
        """Count a failure, and what was paid nevertheless."""
        self.failed += 1
        self.retriable += retriable
        self.cost_usd += cost_usd
        if len(self.failures) < SHOWN_FAILURES:
            self.failures.append((name, why))

    def add_earlier(self, *, failed: bool, retriable: bool = False) -> None:
        """Count an outcome of an earlier run."""
        self.before_answered += not failed
        self.before_failed += failed
        self.retriable += failed and retriable

    @property
    def cost(self) -> str:
        """What this run cost, as people read it: the cost of earlier runs is not counted."""
        this_run = " this run" if self.before_answered or self.before_failed else ""
        return f"{money(self.cost_usd)}{this_run}"

    def as_json(self, elapsed_s: float, **more: Any) -> dict[str, Any]:
        """Return the counts for programs."""
        return {
            "answered": self.answered + self.before_answered,
            "failed": self.all_failed,
            "earlier": self.before_answered + self.before_failed,
            "models": dict(self.models),
            "cost_usd": round(self.cost_usd, 9),
            "elapsed_s": round(elapsed_s, 3),
            **more,
        }


def describe(tally: Tally, total: int, elapsed_s: float) -> str:
    """Return a tally in one line: counts, models, rate, time left and cost."""
    parts = [f"{tally.done:,}/{total:,} done"]
    if tally.all_failed:
        parts.append(f"{tally.all_failed:,} failed")
    if tally.models:
        parts.append(", ".join(f"{name} {count:,}" for name, count in tally.models.most_common()))
    rate = tally.now / elapsed_s if elapsed_s > 0 else 0.0
    if rate:
        parts.append(f"{rate:,.1f}/s")
        if tally.done < total:
            parts.append(f"{duration((total - tally.done) / rate)} left")
    parts.append(tally.cost)
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Return `0:01:05` for 65 seconds."""
    return str(timedelta(seconds=round(seconds)))


def money(usd: float) -> str:
    """Return dollars, with as many places as a small amount needs."""
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.6f}"


class LiveProgress:
    """Shows a tally on `console`: a bar on a terminal, a line now and then elsewhere."""

    def __init__(
        self,
        console: Console,
        tally: Tally,
        total: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._tally = tally
        self._total = total
        self._clock = clock
        self._began = clock()
        self._next = self._began
        self._shown = ""
        self._bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total or None)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self._began

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        else:
            self._next = self._clock() + PLAIN_S
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def restart(self) -> None:
        """Count the time from now: the work begins when the yard is there."""
        self._began = self._clock()

    def tick(self) -> None:
        """Show what has changed, if it is time."""
        now = self._clock()
        if now < self._next:
            return
        text = describe(self._tally, self._total, now - self._began)
        if self._console.is_terminal:
            self._next = now + REFRESH_S
            self._bar.update(self._task, completed=self._tally.done, description=escape(text))
            self._bar.refresh()
        else:
            self._next = now + PLAIN_S
            if text != self._shown:
                self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._shown = text

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something is printed elsewhere on the same terminal."""
        live = self._console.is_terminal and self._bar.live.is_started
        if live:
            self._bar.stop()
        try:
            yield
        finally:
            if live:
                self._bar.start()


def show_summary(
    console: Console, tally: Tally, elapsed_s: float, *, what: str, where: str | None
) -> None:
    """Print the table at the end. `what` is the plural of what was worked on."""
    if tally.models:
        table = Table()
        table.add_column("model")
        table.add_column(what, justify="right")
        table.add_column("cost", justify="right")
        for model, count in tally.models.most_common():
            table.add_row(escape(model), f"{count:,}", money(tally.costs_usd[model]))
        console.print(table)
    rate = f" ({tally.now / elapsed_s:,.1f}/s)" if elapsed_s > 0 and tally.now else ""
    counts = f"{tally.answered:,} answered, {tally.failed:,} failed in {duration(elapsed_s)}{rate}"
    lines = [f"{counts}, {tally.cost}"]
    if tally.before_answered or tally.before_failed:
        lines.append(
            f"before this run: {tally.before_answered:,} answered, {tally.before_failed:,} failed"
        )
    lines += (f"failed: {name}: {why}" for name, why in tally.failures)
    if tally.failed > len(tally.failures):
        lines.append(f"... and {tally.failed - len(tally.failures):,} more that failed")
    if tally.retriable and where is not None:
        lines.append("to try what failed again: the same command with --retry-failed")
    if where is not None:
        lines.append(f"output: {where}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
