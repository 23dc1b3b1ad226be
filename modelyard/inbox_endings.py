"""How a request ends that waited for a person: what `settle` writes. Pure functions."""

from dataclasses import dataclass
from typing import Final

from modelyard.budgets import bill
from modelyard.claims import Ack, Claimed, End, Join, Record
from modelyard.decision_ledger import answered_entry, died_entry, part_entry
from modelyard.endings import answered, buried, died, reply_channel
from modelyard.errors import FailureKind
from modelyard.inbox_item import Item
from modelyard.member import Member, ended
from modelyard.messages import (
    Answer,
    Attempt,
    Call,
    DeadLetter,
    DeadReason,
    Draft,
    Part,
    Timings,
    Usage,
)
from modelyard.names import session_key
from modelyard.settings import Settings

INBOX: Final = "inbox"
"""The endpoint of a person's attempt."""

NOBODY_ANSWERED: Final = "its deadline passed before a person answered"

Ending = End | Join | Record | Ack


@dataclass(frozen=True, slots=True)
class Endings:
    """The ways in which an item ends. `now` is in seconds since the epoch; `late` tells of one that
    expired.
    """

    item: Item
    claim: str
    now: float
    settings: Settings
    late: str = NOBODY_ANSWERED

    def answered(self, text: str, by: str) -> Ending:
        """Return the end of what a person answered."""
        call, draft = self._call, Draft(model=self.item.model, provider_model=by, text=text)
        attempts = (*call.attempts, self._attempt())
        if call.part.is_apart:
            return self._apart(draft, attempts)
        answer = answer_of(self.item.id, call, attempts, draft, self.now)
        return answered(
            answer,
            claim=self.claim,
            ttl_s=self.settings.result_ttl_s,
            channel=reply_channel(self.item.reply_to),
            now=self.now,
            entry=self._kept(answered_entry(answer, call, keep_text=self.settings.ledger_text)),
            entries=self.settings.ledger_entries,
            session=escalated_session(call),
            joined=call.part.joins,
        )

    def declined(self, why: str, by: str) -> Ending:
        """Return the end of what a person does not want to answer: a dead letter, `refused`."""
        said = f"declined by {by}: {why}"
        attempt = self._attempt().model_copy(update={"kind": FailureKind.REFUSED, "message": said})
        attempts = (*self._call.attempts, attempt)
        return self._dead(DeadReason.REFUSED, f"{self.item.model}: {said}", attempts)

    def expired(self) -> Ending:
        """Return the end of what nobody answered in time."""
        return self._dead(DeadReason.EXPIRED, self.late, self._call.attempts)

    def unreadable(self) -> Ending:
        """Return the end of what is no call."""
        claimed = Claimed(self.claim, self.item.queue, self.item.message)
        return buried(claimed, self.item.problem, self.item.id)

    @property
    def _call(self) -> Call:
        assert self.item.call is not None
        return self.item.call

    def _attempt(self) -> Attempt:
        """Return a person's attempt: what there was before it is a wait in a queue."""
        return Attempt(model=self.item.model, endpoint=INBOX, started_at=self.now, duration_ms=0.0)

    def _kept(self, entry: str) -> str:
        return entry if self.settings.ledger_entries else ""

    def _dead(self, reason: DeadReason, message: str, attempts: tuple[Attempt, ...]) -> Ending:
        call = self._call
        if call.part.is_apart:
            return self._apart(None, attempts, reason, message)
        letter = DeadLetter(
            id=self.item.id,
            reason=reason,
            message=message,
            request=call.request.encode(),
            decision=call.decision,
            attempts=attempts,
            died_at=self.now,
            reply_to=reply_channel(self.item.reply_to),
        )
        return died(
            letter,
            claim=self.claim,
            ttl_s=self.settings.result_ttl_s,
            channel=letter.reply_to,
            entry=self._kept(died_entry(letter, call, keep_text=self.settings.ledger_text)),
            entries=self.settings.ledger_entries,
            joined=call.part.joins,
        )

    def _apart(
        self,
        draft: Draft | None,
        attempts: tuple[Attempt, ...],
        reason: DeadReason | None = None,
        message: str = "",
    ) -> Ending:
        """Return the end of a member of an ensemble, or of a shadow."""
        entry = self._kept(
            part_entry(
                self.item.request_id,
                self._call,
                draft,
                attempts,
                self.now,
                keep_text=self.settings.ledger_text,
            )
        )
        if self._call.part is Part.SHADOW:
            paid = bill(self._call.decision, attempts, self.now)
            return Record(self.claim, entry, self.settings.ledger_entries, paid)
        join = ended(
            Member(draft=draft, attempts=attempts, reason=reason, message=message),
            claim=self.claim,
            id=self.item.id,
            parent_id=self.item.parent_id,
            decision=self._call.decision,
            # No queue: nobody would join the answers in a queue that no worker reads.
            entry=entry,
            entries=self.settings.ledger_entries,
        )
        return join or Ack(self.claim)


def answer_of(
    id: str, call: Call, attempts: tuple[Attempt, ...], draft: Draft, now: float
) -> Answer:
    """Return the answer that a person's draft is.

    The answers of models that were not accepted before are told with it: they are paid for.
    """
    decided = call.decision.decided_at
    submitted = call.request.submitted_at or decided
    first_call = min(attempt.started_at for attempt in attempts)
    return Answer(
        id=id,
        text=draft.text,
        model=draft.model,
        provider_model=draft.provider_model,
        decision=call.decision,
        usage=sum((each.usage for each in call.drafts), Usage()),
        cost_usd=sum(each.cost_usd for each in call.drafts),
        attempts=attempts,
        drafts=call.drafts,
        timings=Timings(
            routing_ms=ms(submitted, decided),
            queued_ms=ms(decided, first_call),
            calling_ms=ms(first_call, now),
            total_ms=ms(submitted, now),
        ),
    )


def ms(start: float, end: float) -> float:
    """Return the milliseconds between two times in seconds; clocks may differ a little."""
    return max(0.0, round(1000 * (end - start), 3))


def escalated_session(call: Call) -> str:
    """Return the key of the session that came to a person as answers were not accepted, or ''.

    Where the route is `sticky`, the next requests of the session go to people at once.
    """
    session = call.request.metadata.get("session")
    turned_down = call.part is Part.ANSWER and any(draft.verdict for draft in call.drafts)
    if not session or not turned_down or call.step == 0:
        return ""
    return session_key(call.request.metadata.get("tenant"), session)
