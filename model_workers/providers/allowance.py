"""What is left of a provider's limits, from the headers of its answers.

OpenAI and compatible, Azure: https://platform.openai.com/docs/guides/rate-limits
Anthropic: https://docs.anthropic.com/en/api/rate-limits#response-headers
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from model_workers.providers.base import Allowance
from model_workers.providers.http import duration_s

_OURS: Final = "x-ratelimit-"
_ANTHROPIC: Final = "anthropic-ratelimit-"


class _Limit(NamedTuple):
    """One limit: how much in all, how much is left, and when it is whole again."""

    whole: float | None = None
    left: float | None = None
    reset_s: float | None = None

    @property
    def share(self) -> float:
        """How much of it is left, from 0 to 1; what is not known is no worry."""
        if self.left is None:
            return math.inf
        return self.left / self.whole if self.whole else math.inf


def read_allowance(headers: Mapping[str, str], now: float) -> Allowance | None:
    """Return what the headers of an answer say, or None if they say nothing.

    `now` is seconds since the epoch, for limits that are reset at a date. Of Anthropic's limits for
    tokens it is the one that is in force, or the one of which the smaller share is left.
    """
    said = {name.lower(): value for name, value in headers.items() if "ratelimit-" in name.lower()}
    if not said:
        return None
    requests, tokens = _openai(said, "requests"), _openai(said, "tokens")
    tokens_of_all = True
    if requests == tokens == _Limit():
        requests = _anthropic(said, "requests", now)
        tokens = _anthropic(said, "tokens", now)
        if tokens == _Limit():
            kinds = (_anthropic(said, kind, now) for kind in ("input-tokens", "output-tokens"))
            tokens = min(kinds, key=lambda limit: limit.share)
            tokens_of_all = tokens == _Limit()
    if requests == tokens == _Limit():
        return None
    return Allowance(*requests, *tokens, tokens_of_all)


def _openai(said: Mapping[str, str], kind: str) -> _Limit:
    return _limit(
        said.get(f"{_OURS}limit-{kind}"),
        said.get(f"{_OURS}remaining-{kind}"),
        duration_s(said.get(f"{_OURS}reset-{kind}", "").strip()),
    )


def _anthropic(said: Mapping[str, str], kind: str, now: float) -> _Limit:
    return _limit(
        said.get(f"{_ANTHROPIC}{kind}-limit"),
        said.get(f"{_ANTHROPIC}{kind}-remaining"),
        _until_s(said.get(f"{_ANTHROPIC}{kind}-reset", "").strip(), now),
    )


def _limit(whole: str | None, left: str | None, reset_s: float | None) -> _Limit:
    in_all = _count(whole)
    # Azure sends -1 or 0 for a limit that it does not know; what goes with it means nothing.
    if whole is not None and not in_all:
        return _Limit()
    return _Limit(in_all, _count(left), reset_s)


def _count(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until_s(text: str, now: float) -> float | None:
    """Return in how many seconds an RFC 3339 date is; a date that has passed is in 0."""
    try:
        date = datetime.fromisoformat(text)
        return max(0.0, date.timestamp() - now) if date.tzinfo else None
    except (ValueError, OverflowError):
        return None
