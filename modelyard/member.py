"""How one member of an ensemble ended: what `Join` carries, and the combiner reads."""

import time

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
