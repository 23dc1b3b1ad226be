"""How a member of an ensemble ended: what `Join` carries, and what who joins them all reads."""

import time
from collections.abc import Mapping, Sequence

from modelyard.budgets import bill
from modelyard.claims import Join
from modelyard.messages import Attempt, DeadReason, Draft
from modelyard.names import member_of
from modelyard.plan import Decision
from modelyard.wire import Wire


class Member(Wire):
    """A draft, or why there is none. `attempts` are the member's own."""

    draft: Draft | None = None
    attempts: tuple[Attempt, ...] = ()
    reason: DeadReason | None = None
    message: str = ""


def ended(
    member: Member,
    *,
    claim: str,
    id: str,
    parent_id: str | None,
    decision: Decision | None = None,
    queue: str = "",
    entry: str = "",
    entries: int = 0,
) -> Join | None:
    """Return how a member's message ends, or None if the message is that of no member.

    `decision` is the one in the message, None if that can't be read.
    """
    found = member_of(id, parent_id)
    if found is None:
        return None
    return Join(
        claim=claim,
        id=found[0],
        number=found[1],
        ended=member.model_dump_json(exclude_defaults=True),
        answered=member.draft is not None,
        queue=queue,
        entry=entry,
        entries=entries,
        round=round_of(decision) if decision is not None else "",
        bill=bill(decision, member.attempts, time.time()),
    )


def round_of(decision: Decision) -> str:
    """Return what tells the members of one decision from those of another about the same request.

    A request that was replayed may have members of its former life, in a queue or in a call.
    """
    return repr(decision.decided_at)


def members_of(fields: Mapping[bytes, bytes]) -> tuple[Member, ...]:
    """Return the members that have ended, in the plan's order, from the fields of a join."""
    return tuple(numbered(fields).values())


def numbered(fields: Mapping[bytes, bytes]) -> dict[int, Member]:
    """Return the members that have ended by their numbers from 1, in order."""
    numbers = {
        int(name[1:]): value
        for name, value in fields.items()
        if name.startswith(b"m") and name[1:].isdigit()
    }
    return {number: Member.model_validate_json(numbers[number]) for number in sorted(numbers)}


def attempts_of(members: Sequence[Member]) -> tuple[Attempt, ...]:
    """Return all calls that were made, in the order in which they began."""
    every = (attempt for member in members for attempt in member.attempts)
    return tuple(sorted(every, key=lambda attempt: attempt.started_at))
