"""Moments as one writes them: so long ago, or a date."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from producer.dead_options import DURATION, seconds
from producer.output import UsageError

Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Not before that: 30m, 12h, 1d ago, or 2026-11-23T09:00Z."),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Before that: 30m, 12h, 1d ago, or 2026-11-23T09:00Z."),
]


def moment(written: str, now: float) -> float:
    """Return when it was, in seconds since the epoch, as `now`. Raises `UsageError`.

    A date without a time zone is one in UTC, as all times of the yard are.
    """
    if DURATION.fullmatch(written.strip()):
        return now - seconds(written)
    try:
        found = datetime.fromisoformat(written.strip())
    except ValueError:
        raise UsageError(
            f"{written!r} is no time: write 30m, 12h or 1d ago, or 2026-11-23T09:00Z"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def span(since: str | None, until: str | None, now: float) -> tuple[float | None, float | None]:
    """Return from when to when; None is without end. Raises `UsageError`."""
    first = None if since is None else moment(since, now)
    last = None if until is None else moment(until, now)
    if first is not None and last is not None and first >= last:
        raise UsageError(f"nothing is since {since} and until {until}")
    return first, last
