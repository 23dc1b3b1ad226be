"""What comes after an attempt: `advance`, a pure function that every kind of failover is made of.

The waits follow "full jitter": drawn evenly from nothing to a bound that doubles, so that calls
that failed together do not come back together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.catalog import Retry
from modelyard.errors import FailureKind
from modelyard.messages import Attempt, Call, DeadReason, Part

JITTER_OVER_RETRY_AFTER_S = 1.0
"""Calls that were told the same Retry-After spread over this much time after it."""

LONGEST_WAIT_S = 900.0
"""A Retry-After beyond this is not waited for: the broker would give the request out again."""

ENDS = {FailureKind.INVALID: DeadReason.INVALID, FailureKind.REFUSED: DeadReason.REFUSED}
"""What a request died of, where its last attempt tells more than that all were tried."""


@dataclass(frozen=True, slots=True)
class CallNow:
    """Call this step's model, after `wait_s` seconds."""

    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class NextStep:
    """Hand the request to the model of the plan's step number `step`."""

    step: int
    why: str


@dataclass(frozen=True, slots=True)
class Die:
    """Nothing is left to try."""

    reason: DeadReason
    message: str


Move = CallNow | NextStep | Die


def advance(call: Call, attempts: Sequence[Attempt], retry: Retry, now: float, draw: float) -> Move:
    """Return what to do next for `call`, given all attempts so far.

    `attempts` starts with those that the call came with, which were made elsewhere; `now` is in
    seconds since the epoch; `draw` is a random number from 0 to 1. A success never comes here: what
    follows it is the plan's strategy to say. Only who answers the request itself has a next step.
    """
    deadline = call.request.deadline
    if deadline is not None and now >= deadline:
        return Die(DeadReason.EXPIRED, "its deadline passed before the next call")
    here = attempts[len(call.attempts) :]
    if not here:
        return CallNow()
    last = here[-1]
    tried = f"{call.model}: {last.message}"
    wait_s = wait(last, len(here), retry, draw)
    has_next = call.part is Part.ANSWER and call.step + 1 < len(call.decision.plan.steps)
    bearable = (last.retry_after_s or 0.0) <= LONGEST_WAIT_S
    patient = bearable and (not has_next or (last.retry_after_s or 0.0) <= retry.patience_s)
    again = (
        last.kind in {FailureKind.RETRYABLE, FailureKind.LIMITED}
        and len(here) < retry.calls
        and patient
    )
    in_time = deadline is None or now + wait_s < deadline
    if again and in_time:
        return CallNow(wait_s)
    if has_next and last.kind is not FailureKind.INVALID:
        return NextStep(call.step + 1, brief(last))
    if again:
        return Die(DeadReason.EXPIRED, f"its deadline passes before the next call ({tried})")
    return Die(ENDS.get(last.kind or FailureKind.PERMANENT, DeadReason.EXHAUSTED), tried)


def brief(attempt: Attempt) -> str:
    """Return a failed attempt in a few words, none of them the provider's."""
    return f"{attempt.model}: {attempt.kind}" + (f" {attempt.status}" if attempt.status else "")


def wait(last: Attempt, calls: int, retry: Retry, draw: float) -> float:
    """Return for how many seconds to wait after the last of `calls` failed calls."""
    if last.retry_after_s is not None:
        return last.retry_after_s + draw * JITTER_OVER_RETRY_AFTER_S
    return draw * min(retry.cap_s, retry.base_s * 2.0**calls)
