"""What is submitted in a storm: ids, texts and their pace, the same in each process that asks."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

ID_MARK: Final = "chaos-"
"""Begins every id, so that it is found in any message by its text."""

ROUTES: Final = ("cascade", "judged", "vote", "best")
"""The routes whose plans ask several models; a prompt that holds `[route=NAME]` takes it."""

CRASH: Final = "[crash]"
"""A prompt that holds this ends the process that would call for it."""


@dataclass(frozen=True, slots=True)
class Load:
    """`count` requests of `chunk` at a time, `per_s` in a second (0: as fast as they are taken).

    Each `crash_every`th request crashes its worker, each `sleep_every`th is answered after
    `sleep_s` seconds; 0: none. `strategies`: they take the routes of `ROUTES` in turn.
    """

    storm: str
    count: int
    chunk: int = 20
    per_s: float = 0.0
    crash_every: int = 0
    sleep_every: int = 0
    sleep_s: float = 0.0
    strategies: bool = False

    @property
    def prefix(self) -> str:
        """Begins the ids of this storm."""
        return f"{ID_MARK}{self.storm}-"

    def id(self, number: int) -> str:
        """Return the id of a request."""
        return f"{self.prefix}{number:06d}"

    def text(self, number: int) -> str:
        """Return the prompt of a request."""
        text = f"Question {number} of {self.storm}: which track does this wagon go to?"
        if self.crash_every and number % self.crash_every == self.crash_every // 2:
            return f"{text} {CRASH}"
        if self.sleep_every and number % self.sleep_every == 0:
            return f"{text} [sleep={self.sleep_s:g}]"
        if self.strategies:
            return f"{text} [route={ROUTES[number % len(ROUTES)]}]"
        return text

    @property
    def crashing(self) -> set[str]:
        """The ids of the requests that crash their worker."""
        return {self.id(number) for number in range(self.count) if CRASH in self.text(number)}

    def due_s(self, number: int) -> float:
        """Return when a request is to be submitted, in seconds from the begin."""
        return number / self.per_s if self.per_s else 0.0


@dataclass(frozen=True, slots=True)
class Task:
    """What a submitter or waiter is started with. `system` names a client in `chaos.clients`."""

    system: str
    url: str
    submits: Path
    outcomes: Path
    load: Load | None = None
    start_at: float = 0.0

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), default=str))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote."""
        data = json.loads(path.read_text())
        load = Load(**data.pop("load")) if data["load"] else data.pop("load")
        submits, outcomes = Path(data.pop("submits")), Path(data.pop("outcomes"))
        return cls(**data, submits=submits, outcomes=outcomes, load=load)
