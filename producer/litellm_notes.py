"""What an import has to say: findings, and mistakes, each with its place in the file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from producer.litellm_file import ConfigFile, Loc, where

MOST: Final = 1e12
"""A larger number is no limit that anybody means."""


@dataclass(frozen=True)
class Finding:
    """Something in the file that is not in the catalog as it was, and what to do."""

    path: str
    line: int
    what: str


@dataclass
class Notes:
    """The config and what is said of it so far. Nothing that is said holds a value of it."""

    config: ConfigFile
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, loc: Loc, what: str) -> None:
        """Say what to do about the value at `loc`."""
        self.findings.append(Finding(where(loc), self.config.line(loc), what))

    def problem(self, loc: Loc, what: str) -> None:
        """Say that the value at `loc` is wrong: nothing will be imported."""
        place = where(loc) or "config"
        self.problems.append(f"{self.config.name}:{self.config.line(loc)}: {place}: {what}")

    def section(self, name: str) -> Mapping[str, Any]:
        """Return a mapping at the top of the file; empty if there is none."""
        found = self.config.data.get(name)
        if found is not None and not isinstance(found, dict):
            self.problem((name,), "must be a mapping of keys to values")
        return found if isinstance(found, dict) else {}

    def positive(
        self, source: Mapping[str, Any], at: Loc, key: str, *, whole: bool = False
    ) -> int | float | None:
        """Return a number above 0, or None; what is given and is no such number is noted."""
        if source.get(key) is None:
            return None
        number = as_number(source[key])
        if number is not None and whole:
            number = math.floor(number)
        if number is None or not 0 < number <= MOST:
            self.note((*at, key), "is not a number above 0: left out")
            return None
        return int(number) if number == int(number) else number


def as_number(value: object) -> float | None:
    """Return a finite number, which may be written as text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
