"""What the workers learned of an endpoint's limits, for `modelyard endpoints`.

What it reads is written by the workers, `model_workers/endpoints/learned.py`.
"""

from dataclasses import dataclass
from typing import Any, Final

from modelyard.catalog import Quota

KNOWN_S: Final = 3600.0
"""For so long counts what an endpoint told."""

FORGET_S: Final = 600.0
"""For so long counts that the workers were slowed."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What the workers keep to where the catalog has no quota; None for what was not learned.

    `requests_per_min` and `tokens_per_min` are what the endpoint told. `slowed_to_per_min`: to so
    many requests they were slowed `slowed_ago_s` ago; since then it rises.
    """

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    slowed_to_per_min: float | None = None
    slowed_ago_s: float | None = None


def learned_of(quota: Quota, said: Any, now: float) -> Learned | None:
    """Return what was learned besides an endpoint's own `quota`, or None for nothing.

    `said` is what stands in Redis; `now` is in seconds since the epoch, by its clock.
    """
    if not isinstance(said, dict):
        return None
    requests = tokens = slowed_to = ago_s = None
    try:
        if quota.requests_per_min is None:
            requests = per_min(said.get("requests"), now)
            slowed = said.get("slowed")
            if slowed is not None and now < slowed["at"] + FORGET_S:
                slowed_to = round(60.0 * slowed["per_s"], 1)
                ago_s = max(0.0, round(now - slowed["at"], 1))
        if quota.tokens_per_min is None:
            tokens = per_min(said.get("tokens"), now)
    except (LookupError, TypeError, ArithmeticError):
        return None  # no worker of this version wrote it
    learned = Learned(requests, tokens, slowed_to, ago_s)
    return None if learned == Learned() else learned


def per_min(said: Any, now: float) -> float | None:
    """Return a limit that was told. Raises `LookupError`, `TypeError` and `ArithmeticError`."""
    if said is None or now >= said["since"] + KNOWN_S:
        return None
    limit: float = said["limit"] * 60.0 / max(said["window_s"], said["before_s"])
    return round(limit, 1)


def words(learned: Learned | None) -> str:
    """Return what was learned in a few words."""
    if learned is None:
        return "-"
    said = []
    if learned.requests_per_min is not None:
        said.append(f"{learned.requests_per_min:,.0f} requests")
    if learned.tokens_per_min is not None:
        said.append(f"{learned.tokens_per_min:,.0f} tokens")
    if learned.slowed_to_per_min is not None:
        ago = f"{learned.slowed_ago_s:.0f} s ago"
        said.append(f"slowed to {learned.slowed_to_per_min:,.0f} requests {ago}")
    return ", ".join(said)
