"""An ensemble's members, or the pieces of a request: what follows from what they came to."""

from collections.abc import Mapping, Sequence

from model_workers.combine import Combined
from modelyard.advance import Die
from modelyard.member import Member
from modelyard.messages import DeadReason, Draft


def drafts_of(members: Sequence[Member]) -> list[Draft]:
    """Return what was answered, in the plan's order."""
    return [member.draft for member in members if member.draft is not None]


def death(members: Sequence[Member], of: int) -> Die:
    """Return what an ensemble of `of` members died of, none of which has answered."""
    reasons = {member.reason for member in members if member.reason is not None}
    alike = reasons.pop() if len(reasons) == 1 and len(members) == of else DeadReason.EXHAUSTED
    told = [member.message for member in members if member.message]
    late = of - len(members)
    if late:
        told.append(f"{late} of {of} did not answer in time")
    return Die(alike, f"no member of the ensemble answered ({'; '.join(told)})")


def missing(members: Mapping[int, Member], of: int) -> Die | None:
    """Return what a request in `of` pieces died of, or None if each of them has its answer."""
    for number, member in members.items():
        if member.draft is None:
            reason = member.reason or DeadReason.EXHAUSTED
            return Die(reason, f"piece {number} of {of}: {member.message}")
    late = [number for number in range(1, of + 1) if number not in members]
    if not late:
        return None
    which = f"piece {late[0]}" + (f" and {len(late) - 1} more" if len(late) > 1 else "")
    return Die(DeadReason.EXPIRED, f"{which} of {of} did not end in time")


def as_draft(combined: Combined) -> Draft:
    """Return the combined answer as one."""
    return Draft(
        model=combined.model,
        provider_model=combined.provider_model,
        text=combined.text,
        finish_reason=combined.finish_reason,
    )


def without(combined: Combined, drafts: Sequence[Draft]) -> list[Draft]:
    """Return the drafts beside the one that was taken, if one was."""
    others = list(drafts)
    for draft in drafts:
        if (draft.model, draft.text) == (combined.model, combined.text):
            others.remove(draft)
            break
    return others
