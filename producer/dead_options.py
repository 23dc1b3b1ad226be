"""Options of the commands for dead letters: which letters are meant, as one writes it."""

import math
import re
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from modelyard.catalog import suggestion
from modelyard.dead_entries import Filter
from modelyard.messages import DeadReason
from producer.output import UsageError

Ids = Annotated[list[str] | None, typer.Option("--id", help="The letter of this request.")]
Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help=f"Died of this: {', '.join(DeadReason)}.")
]
TriedModels = Annotated[
    list[str] | None, typer.Option("--model", help="This model was called, or waited for.")
]
Routes = Annotated[list[str] | None, typer.Option("--route", help="Submitted to this route.")]
OlderThan = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Died before that: 90s, 15m, 2h, 3d.")
]
NewerThan = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Died since: 90s, 15m, 2h, 3d.")
]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", help="KEY=VALUE; all that are given must be so.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="No more than so many, oldest first.")]

UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])")


def seconds(duration: str) -> float:
    """Return a duration such as 90s, 15m, 2h or 3d in seconds. Raises `UsageError`."""
    found = DURATION.fullmatch(duration.strip())
    if found is None:
        raise UsageError(f"{duration!r} is no duration: write 90s, 15m, 2h or 3d")
    return float(found[1]) * UNITS_S[found[2]]


def short_duration(duration_s: float) -> str:
    """Return a duration in its largest whole unit, such as 3h."""
    duration_s = max(0.0, duration_s)
    for unit in ("d", "h", "m"):
        if duration_s >= UNITS_S[unit]:
            return f"{int(duration_s // UNITS_S[unit]):,}{unit}"
    return f"{int(duration_s)}s"


def reason(name: str) -> DeadReason:
    """Return the reason of this name. Raises `UsageError` that suggests the nearest."""
    try:
        return DeadReason(name.strip().lower())
    except ValueError:
        raise UsageError(
            f"unknown reason {name!r}{suggestion(name, map(str, DeadReason))}"
        ) from None


def key_values(given: Sequence[str]) -> dict[str, str]:
    """Return KEY=VALUE arguments as a mapping. Raises `UsageError`."""
    found: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--metadata takes KEY=VALUE, not {pair!r}")
        if found.setdefault(key, value) != value:
            raise UsageError(f"--metadata {key} can't be both {found[key]!r} and {value!r}")
    return found


def chosen(
    *,
    ids: Sequence[str] | None = None,
    reasons: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    routes: Sequence[str] | None = None,
    older_than: str | None = None,
    newer_than: str | None = None,
    metadata: Sequence[str] | None = None,
    now: float,
) -> Filter:
    """Return what the options mean. `now` is in seconds since the epoch. Raises `UsageError`.

    Of an option that is given several times one must apply; of `metadata` all.
    """
    since = now - seconds(newer_than) if newer_than is not None else -math.inf
    before = now - seconds(older_than) if older_than is not None else math.inf
    if since >= before:
        raise UsageError(f"nothing is both older than {older_than} and newer than {newer_than}")
    return Filter(
        ids=tuple(ids or ()),
        reasons=frozenset(map(reason, reasons or ())),
        models=frozenset(models or ()),
        routes=frozenset(routes or ()),
        metadata=key_values(metadata or ()),
        since=since,
        before=before,
    )
