"""Numbers and names in sentences for people."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

NOT_CALLED: Final = "none"
"""The endpoint of an attempt that called nobody."""


def counted(number: int, what: str, several: str = "") -> str:
    """Return `1 route`, `2 routes`; `several` is the plural that is no plain one."""
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"


def are_not_set(variables: Iterable[str]) -> str:
    """Return which environment variables are missing. Each may be several, with commas."""
    names = sorted({name for each in variables for name in each.split(", ")})
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not set"


def calls_in(attempts: Iterable[Mapping[str, Any] | Any]) -> int:
    """Return how many attempts called somebody: those of a request, or the same as JSON values."""
    return sum(
        (each.get("endpoint") if isinstance(each, Mapping) else each.endpoint) != NOT_CALLED
        for each in attempts
    )


def dollars(spent: float, limit: float) -> str:
    """Return `$5.20 of $5.00`: both with as many digits as the limit needs, from cents on."""
    fraction = f"{limit:.9f}".rstrip("0").partition(".")[2]
    digits = max(2, len(fraction))
    return f"${spent:,.{digits}f} of ${limit:,.{digits}f}"
