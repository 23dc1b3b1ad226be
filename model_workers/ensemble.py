"""An ensemble: what its members came to. Pure functions on what the join keeps."""

from collections.abc import Mapping, Sequence

from model_workers.advance import Die
from model_workers.combine import Combined
from modelyard.member import Member
from modelyard.messages import Attempt, DeadReason, Draft


def members_of(fields: Mapping[bytes, bytes]) -> tuple[Member, ...]:
    """Return the members that have ended, in the plan's order, from the fields of a join."""
    numbers = {
        int(name[1:]): value
        for name, value in fields.items()
        if name.startswith(b"m") and name[1:].isdigit()
    }
    return tuple(Member.model_validate_json(numbers[number]) for number in sorted(numbers))


def attempts_of(members: Sequence[Member]) -> tuple[Attempt, ...]:
    """Return all calls that were made, in the order in which they began."""
    every = (attempt for member in members for attempt in member.attempts)
    return tuple(sorted(every, key=lambda attempt: attempt.started_at))


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
