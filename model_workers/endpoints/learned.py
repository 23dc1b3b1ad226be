"""What an endpoint bears that has no quota in the catalog, learned from its answers.

*Told*: the headers of an answer say how much there is in all, how much is left, and in how many
seconds it is whole again. For a limit that refills all the time (a bucket) `reset / used share` is
how long all of it takes, whatever is left; for one that begins anew each minute it is that or less
near the end, and more near the begin. So a limit is taken to be for the longest such time of the
last one to two minutes, and for no longer than a minute. What takes longer to be whole is the limit
of an hour or a day: no pace, it may be used at once, and `remaining` tells when it was.

*Slowed*: a 429, or little left though we keep to what we were told, says that the pace is too high:
others have a part in it, or it tells nothing. The pace becomes a share of what went through of
late, rises slowly while nothing happens, and is forgotten after a while ("additive increase,
multiplicative decrease", as TCP does: D. Chiu, R. Jain, 1989).
"""

import json
import math
from dataclasses import dataclass, replace
from typing import Any, Final

from model_workers.providers.base import Allowance
from modelyard.catalog import Quota
from modelyard.quota import Meter, Scope

LONGEST_S: Final = 60.0
"""A limit is for a minute, unless it is whole again sooner."""

LATE_S: Final = 5.0
"""By so much a date may be off that is told in whole seconds, and a clock."""

MOST_PER_S: Final = 10_000.0
"""A higher limit than this is none for a worker."""

SLOT_S: Final = 60.0
"""How long the longest time counts at least, and at most twice that."""

PLENTY: Final = 0.5
"""While more than this share of a limit is left, calls need not keep to its pace."""

FRESH_S: Final = 10.0
"""For so long an answer says how much is left."""

LOW: Final = 0.1
"""The share of a limit below which what is left is little."""

CUT: Final = 0.9
"""The pace becomes this share of what went through. It went through while calls were refused: it is
about what the endpoint bears."""

SETTLE_S: Final = 3.0
"""For so long after a cut the calls that were on their way may still be refused."""

RISE_PER_S: Final = 0.0015
"""By so great a share the pace rises in a second, at first. It rises faster the longer nothing is
refused: by 20 % in a minute, by 70 % in two, and to 15 times as much in five.
"""

FORGET_S: Final = 600.0
"""A cut is forgotten after so long without another one."""

KNOWN_S: Final = 3600.0
"""What an endpoint told is forgotten if it does not tell it again for so long."""

LONGEST_CUT_S: Final = 60.0
"""A 429 that asks for a longer wait is about a limit that no pace helps with."""

FEW: Final = 5.0
"""From fewer calls a minute nothing is learned of a pace: it was not theirs that was too high."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So `much` may be asked for in some time, as the endpoint told.

    `before_s` and `now_s`: the longest time it seemed to be for, in the slot of a minute before the
    one that began `since`, and in that one.
    """

    much: float
    before_s: float
    now_s: float
    since: float

    @property
    def window_s(self) -> float:
        """How long it is for."""
        return max(self.before_s, self.now_s)

    @property
    def per_s(self) -> float:
        """The pace that it allows."""
        return self.much / self.window_s


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of one endpoint. Times are seconds since the epoch, by Redis's clock.

    `slowed_per_s`: to how many calls a second all workers were slowed at `slowed_at`; 0 if not.
    """

    requests: Limit | None = None
    tokens: Limit | None = None
    slowed_per_s: float = 0.0
    slowed_at: float = 0.0


NOTHING: Final = Learned()


def told(learned: Learned, said: Allowance, now: float) -> Learned:
    """Return what is known after an answer that told of its limits."""
    return replace(
        learned,
        requests=limit(
            learned.requests,
            said.limit_requests,
            said.remaining_requests,
            said.reset_requests_s,
            now,
        ),
        # Where input or output alone is limited, both together keep to no pace that follows.
        tokens=limit(
            learned.tokens, said.limit_tokens, said.remaining_tokens, said.reset_tokens_s, now
        )
        if said.tokens_of_all
        else None,
    )


def limit(
    known: Limit | None,
    much: float | None,
    left: float | None,
    reset_s: float | None,
    now: float,
) -> Limit | None:
    """Return what is known of one limit after an answer that told of it, or that did not."""
    known = known if known is not None and now < known.since + KNOWN_S else None
    if much is None or not 1.0 <= much < math.inf:
        return known
    if reset_s is not None and reset_s > LONGEST_S + LATE_S:
        return None
    seems_s = 0.0
    if reset_s and left is not None and 0.0 <= left < much:
        seems_s = min(LONGEST_S, reset_s * much / (much - left))
    if known is None or known.much != much:
        longest_s = max(seems_s, known.window_s if known is not None else 0.0)
        found = Limit(much, 0.0, longest_s, now) if longest_s else None
    elif now >= known.since + SLOT_S and seems_s:
        found = Limit(much, known.now_s, seems_s, now)
    else:
        found = replace(known, now_s=max(known.now_s, seems_s))
    return found if found is not None and found.per_s < MOST_PER_S else None


def runs_short(learned: Learned, said: Allowance) -> bool:
    """Return whether little is left and it will not last: others than we take part of it.

    Where a limit begins anew each minute little is left at its end, and that is enough until then.
    """
    for known, much, left, reset_s in (
        (learned.requests, said.limit_requests, said.remaining_requests, said.reset_requests_s),
        (learned.tokens, said.limit_tokens, said.remaining_tokens, said.reset_tokens_s),
    ):
        if not much or left is None or not reset_s or reset_s > LONGEST_S + LATE_S:
            continue
        per_s = known.per_s if known is not None else much / LONGEST_S
        if left < LOW * much and left / reset_s < per_s / 2.0:
            return True
    return False


def slowed(learned: Learned, passed: float, passed_per_s: float, now: float) -> Learned:
    """Return what is known after a sign that the pace is too high, where `passed` calls of all
    workers went through in the last minute, `passed_per_s` a second since they began.
    """
    if passed < FEW or now < learned.slowed_at + SETTLE_S:
        return learned
    pace = pace_per_s(learned, now)
    pace = passed_per_s if pace is None else min(pace, passed_per_s)
    return replace(learned, slowed_per_s=CUT * pace, slowed_at=now)


def pace_per_s(learned: Learned, now: float) -> float | None:
    """Return to how many calls a second the workers are slowed now, or None if they are not."""
    since_s = now - learned.slowed_at
    if not learned.slowed_per_s or since_s >= FORGET_S:
        return None
    since_s = max(0.0, since_s)
    pace = learned.slowed_per_s * math.exp(RISE_PER_S * since_s * (1.0 + since_s / 60.0))
    return pace if pace < MOST_PER_S else None


def requests_per_s(learned: Learned, now: float) -> float | None:
    """Return how many calls a second it bears, as far as is known."""
    pace, known = pace_per_s(learned, now), learned.requests
    if known is None or now >= known.since + KNOWN_S:
        return pace
    return known.per_s if pace is None else min(pace, known.per_s)


def scope_of(
    key: str,
    learned: Learned,
    quota: Quota,
    now: float,
    *,
    left: tuple[float, float] = (0.0, 0.0),
) -> Scope | None:
    """Return the limits that calls are under besides `quota`, which is the endpoint's own: what the
    catalog says of a meter counts, and nothing is learned of it.

    `left`: so many requests and tokens are left at least. While that is plenty there is no pace,
    and so a few calls that come together need not wait.
    """
    requests = tokens = None
    if quota.requests_per_min is None:
        if not is_plenty(learned.requests, left[0]):
            requests = meter(learned.requests, now)
        pace = pace_per_s(learned, now)
        if pace is not None:
            slow = Meter.of(60.0 * pace, 60.0)
            if requests is None or requests.interval_s < slow.interval_s:
                requests = slow
    if quota.tokens_per_min is None and not is_plenty(learned.tokens, left[1]):
        tokens = meter(learned.tokens, now)
    if requests is None and tokens is None:
        return None
    return Scope(key, requests, tokens, None, quota.interactive_share)


def is_plenty(known: Limit | None, left: float) -> bool:
    """Return whether much of a limit is left."""
    return known is not None and left > PLENTY * known.much


def meter(known: Limit | None, now: float) -> Meter | None:
    """Return the meter of a limit that was told."""
    if known is None or now >= known.since + KNOWN_S:
        return None
    return Meter.of(known.much, known.window_s)


def is_over(learned: Learned, now: float) -> bool:
    """Return whether nothing of it counts any more."""
    return (
        pace_per_s(learned, now) is None
        and meter(learned.requests, now) is None
        and meter(learned.tokens, now) is None
    )


# -- what the workers tell each other


def newest(mine: Learned, theirs: Learned) -> Learned:
    """Return of each part what was learned last."""
    ours, other = mine.slowed_at, theirs.slowed_at
    slow = theirs if other > ours else mine
    return Learned(
        newest_limit(mine.requests, theirs.requests),
        newest_limit(mine.tokens, theirs.tokens),
        slow.slowed_per_s,
        slow.slowed_at,
    )


def learned_after(learned: Learned, at: float) -> Learned:
    """Return what of it was learned after a moment."""
    requests, tokens = learned.requests, learned.tokens
    known = learned if learned.slowed_at > at else NOTHING
    return Learned(
        requests if requests is not None and requests.since > at else None,
        tokens if tokens is not None and tokens.since > at else None,
        known.slowed_per_s,
        known.slowed_at,
    )


def newest_limit(mine: Limit | None, theirs: Limit | None) -> Limit | None:
    """Return the one that is known since later; of two that begin together the longer one."""
    if mine is None or theirs is None:
        return mine or theirs
    return max(mine, theirs, key=lambda each: (each.since, each.window_s))


def encode(learned: Learned) -> str:
    """Return it as JSON."""
    data: dict[str, Any] = {}
    for name, known in (("requests", learned.requests), ("tokens", learned.tokens)):
        if known is not None:
            data[name] = {
                "limit": known.much,
                "window_s": round(known.now_s, 3),
                "before_s": round(known.before_s, 3),
                "since": round(known.since, 3),
            }
    if learned.slowed_per_s:
        data["slowed"] = {
            "per_s": round(learned.slowed_per_s, 6),
            "at": round(learned.slowed_at, 3),
        }
    return json.dumps(data)


def decode(text: bytes) -> Learned | None:
    """Return what was learned, or None for what no worker of this version writes."""
    try:
        said = json.loads(text)
        slow = said.get("slowed") or {"per_s": 0.0, "at": 0.0}
        return Learned(
            decode_limit(said.get("requests")),
            decode_limit(said.get("tokens")),
            positive(slow["per_s"]),
            positive(slow["at"]),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def decode_limit(said: Any) -> Limit | None:
    """Return a limit, or None for none. Raises `ValueError`, `TypeError` and `LookupError`."""
    if said is None:
        return None
    known = Limit(
        *(positive(said[name]) for name in ("limit", "before_s", "window_s", "since")),
    )
    if not known.much or not known.window_s:
        raise ValueError("a limit of nothing")
    return known


def positive(said: Any) -> float:
    """Return a finite number that is not negative. Raises `ValueError` and `TypeError`."""
    value = float(said)
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"not a number from 0: {value}")
    return value
