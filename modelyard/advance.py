"""What comes after an attempt: `advance`, a pure function that every kind of failover is made of.

The waits follow "full jitter": drawn evenly from nothing to a bound that doubles, so that calls
that failed together do not come back together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.catalog import Retry
from modelyard.circuit import Hold, Reason
from modelyard.errors import FailureKind
from modelyard.messages import Attempt, Call, DeadReason, Lane, Part

JITTER_OVER_RETRY_AFTER_S = 1.0
"""Calls that were told the same Retry-After spread over this much time after it."""

LONGEST_WAIT_S = 900.0
"""A Retry-After beyond this is not waited for; a limit is asked about again after so long."""

MOST_LIMITED = 50
"""A request that met so many limits of its last model is given up: its message may not grow for
ever."""

LONGEST_HELD_S = 2.0
"""A call that no endpoint takes waits for so long in the worker: the room is for others, too."""

GO_ON = frozenset({Part.ANSWER, Part.MAP, Part.REDUCE})
"""What another model may do as well."""

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


@dataclass(frozen=True, slots=True)
class Later:
    """Put the request back to the head of its queue, and take none from there for `wait_s` seconds;
    with 0 to the queue's end, and what is behind it comes first.
    """

    wait_s: float
    why: str


Move = CallNow | NextStep | Later | Die


def advance(
    call: Call,
    attempts: Sequence[Attempt],
    retry: Retry,
    now: float,
    draw: float,
    *,
    elsewhere: bool = False,
) -> Move:
    """Return what to do next for `call`, given all attempts so far.

    `attempts` starts with those that the call came with, which were made elsewhere; `now` is in
    seconds since the epoch; `draw` is a random number from 0 to 1; `elsewhere`: another endpoint of
    the model can take the call at once. A success never comes here: what follows it is the plan's
    strategy to say. Who answers the request itself, or a piece of it, may have a next step; who has
    none waits for a limit, without spending one of its calls on it.
    """
    deadline = call.request.deadline
    if deadline is not None and now >= deadline:
        return Die(DeadReason.EXPIRED, "its deadline passed before the next call")
    here = attempts[len(call.attempts) :]
    if not here:
        return CallNow()
    last = here[-1]
    tried = f"{call.model}: {last.message}"
    failures = in_a_row(call, attempts)
    wait_s = 0.0 if elsewhere else wait(last, len(failures), retry, draw)
    has_next = has_next_step(call)
    limits = sum(each.kind is FailureKind.LIMITED for each in failures)
    waits = last.kind is FailureKind.LIMITED and not has_next
    asked_s = 0.0 if elsewhere else last.retry_after_s or 0.0
    patient = asked_s <= LONGEST_WAIT_S and (not has_next or asked_s <= retry.patience_s)
    mendable = {FailureKind.RETRYABLE, FailureKind.LIMITED}
    if elsewhere:
        # Another endpoint has another key, or another name for the model.
        mendable.add(FailureKind.DENIED)
    spent = len(failures) if has_next else len(failures) - limits
    again = last.kind in mendable and spent < retry.calls and patient
    if waits:
        again, wait_s = limits < MOST_LIMITED, min(wait_s, LONGEST_WAIT_S)
    in_time = deadline is None or now + wait_s < deadline
    if again and in_time:
        if waits and wait_s > LONGEST_HELD_S:
            return Later(wait_s, tried)
        return CallNow(wait_s)
    if has_next and last.kind is not FailureKind.INVALID:
        return NextStep(call.step + 1, brief(last))
    if again:
        return Die(DeadReason.EXPIRED, f"its deadline passes before the next call ({tried})")
    return Die(ENDS.get(last.kind or FailureKind.PERMANENT, DeadReason.EXHAUSTED), tried)


def in_a_row(call: Call, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the last attempts, as far as they are failures of the model that failed last: the one
    whose turn it is, by its own name, where the plan may have what is an alias by now.

    Those from before the request was put back count, too. A request that picks one of its members'
    answers never is, and comes with what its members tried.
    """
    failures: list[Attempt] = []
    since = len(call.attempts) if call.part is Part.COMBINE else 0
    for each in reversed(attempts[since:]):
        if each.kind is None or each.model != attempts[-1].model:
            break
        failures.append(each)
    return failures


def held(call: Call, held: Hold, retry: Retry, now: float, waited_s: float = 0.0) -> Move:
    """Return what to do while no endpoint of the model takes the call. No attempt is spent on it.

    Who has a next step does not wait for what is down, nor for a limit beyond `retry.patience_s`:
    in the interactive lane that is all of its wait since it was decided.
    `waited_s`: for how long the call has waited in the worker. What is put back comes next only if
    those behind it would have to wait as well.
    """
    deadline = call.request.deadline
    why = f"{call.model}: {held.message}"
    if deadline is not None and now >= deadline:
        return Die(DeadReason.EXPIRED, f"its deadline passed before the next call ({why})")
    if held.why is Reason.DENIED and not has_next_step(call):
        return Die(DeadReason.EXHAUSTED, why)
    if has_next_step(call) and not held.everywhere:
        # Somebody waits for it: all that it has waited counts. A batch rather waits than pays more.
        urgent = call.request.lane is Lane.INTERACTIVE
        so_far_s = max(0.0, now - call.decision.decided_at) if urgent else 0.0
        down = held.why in {Reason.FAILING, Reason.DENIED}
        if down or so_far_s + held.wait_s > retry.patience_s:
            return NextStep(call.step + 1, why)
    if deadline is not None and now + held.wait_s >= deadline:
        return Die(DeadReason.EXPIRED, f"its deadline passes before the next call ({why})")
    rest_s = LONGEST_HELD_S - waited_s
    if held.wait_s <= rest_s:
        return CallNow(held.wait_s)
    patient = held.why is Reason.LIMITED and held.wait_s <= retry.patience_s
    if not held.own and (held.why is None or patient):
        return Later(held.wait_s, why)
    # Not at once: a queue of nothing else would turn as fast as the worker can.
    return CallNow(rest_s) if rest_s > 0 else Later(0.0, why)


def has_next_step(call: Call) -> bool:
    """Return whether another model may answer it: the members of an ensemble have none."""
    return call.part in GO_ON and call.step + 1 < len(call.decision.plan.steps)


def brief(attempt: Attempt) -> str:
    """Return a failed attempt in a few words, none of them the provider's."""
    return f"{attempt.model}: {attempt.kind}" + (f" {attempt.status}" if attempt.status else "")


def wait(last: Attempt, calls: int, retry: Retry, draw: float) -> float:
    """Return for how many seconds to wait after the last of `calls` failed calls."""
    if last.retry_after_s is not None:
        return last.retry_after_s + draw * JITTER_OVER_RETRY_AFTER_S
    return draw * min(retry.cap_s, retry.base_s * 2.0**calls)
