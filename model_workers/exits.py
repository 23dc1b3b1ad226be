"""How a call leaves its pool: what is written, in one step, and what Flower and logs are told."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery.exceptions import Ignore

from model_workers.answer import brief, is_extractive, to_answer
from model_workers.cascade import escalated_session
from model_workers.coroutine_task import Settled
from model_workers.origin import Origin
from modelyard.advance import Die
from modelyard.budgets import bill
from modelyard.catalog import Catalog
from modelyard.claims import Ack, Back, Hop, Record
from modelyard.decision_ledger import answered_entry, died_entry, part_entry
from modelyard.endings import answered, as_error, died, reply_channel
from modelyard.errors import RequestFailed
from modelyard.holdings import pause
from modelyard.member import Member, ended
from modelyard.messages import Attempt, Call, DeadLetter, DeadReason, Draft, Lane, Part
from modelyard.names import CALL_TASK, is_shadow, model_queue, session_key
from modelyard.publish import envelope

logger = logging.getLogger("modelyard.calls")


@dataclass(frozen=True, slots=True)
class Exits:
    """The ways out. `entries`: how many the decision ledger keeps, 0 for none.

    Budgets hear of each call's cost once: of a member's or a piece's when it ends. Who joins them
    tells all attempts, of which the budgets know the first `billed`.
    """

    catalog: Catalog
    result_ttl_s: int
    entries: int
    keep_text: bool

    def answered(
        self,
        origin: Origin,
        call: Call,
        attempts: tuple[Attempt, ...],
        draft: Draft,
        *,
        paid: Sequence[Draft] = (),
        others: Sequence[Draft] = (),
        billed: int = 0,
    ) -> Settled:
        """Return the end of a request whose answer is `draft`; see `to_answer`."""
        now = time.time()
        extractive = is_extractive(self.catalog, draft)
        answer = to_answer(
            origin.id,
            call,
            attempts,
            draft,
            now,
            paid=paid,
            others=others,
            extractive=extractive,
        )
        end = answered(
            answer,
            claim=origin.claim,
            ttl_s=self.result_ttl_s,
            channel=reply_channel(origin.reply_to),
            now=now,
            entry=answered_entry(answer, call, keep_text=self.keep_text) if self.entries else "",
            entries=self.entries,
            session=escalated_session_key(call, draft),
            joined=call.part.joins,
            billed=billed,
        )
        seen = brief(answer)
        log = f"request {origin.id}: {seen} in {answer.timings.calling_ms:.0f} ms"
        return Settled(end, seen, log=log)

    def hop(self, origin: Origin, onward: Call, why: str) -> Settled:
        """Return the hop to the next model, or to a judge, under the same id."""
        queue, message = self._message(origin, onward, why)
        # Not Celery's Retry: its event could reach Flower after the next model's end.
        return Settled(Hop(origin.claim, queue, message), error=Ignore(why))

    def later(self, origin: Origin, call: Call, wait_s: float, why: str) -> Settled:
        """Return a call to the head of its queue, from which this worker takes none for a while.

        Without a wait it goes to the queue's end: what is behind it can be done.
        """
        # Another model begins anew; the same one does not: the call may be what kills its workers.
        queue, message = self._message(origin, call, why, origin.deliveries)
        if wait_s <= 0:
            return Settled(Back(origin.claim, queue, message, "last"), error=Ignore(why))
        pause(queue, wait_s)
        return Settled(Back(origin.claim, queue, message, "next"), error=Ignore(why))

    def _message(
        self, origin: Origin, onward: Call, why: str, deliveries: int = 0
    ) -> tuple[str, str]:
        queue = model_queue(onward.model, batch=onward.request.lane is Lane.BATCH)
        decision = onward.decision
        message = envelope(
            task=CALL_TASK,
            id=origin.id,
            payload=onward.model_dump_json(exclude_defaults=True),
            queue=queue,
            summary=f"{decision.intent}, about {decision.input_tokens:,} tokens, {why}",
            reply_to=origin.reply_to,
            parent_id=origin.parent_id,
            shadow=queue,
            redelivered=origin.redelivered,
            deliveries=deliveries,
        )
        return queue, message

    def buried(
        self, origin: Origin, letter: DeadLetter, call: Call | None = None, billed: int = 0
    ) -> Settled:
        """Return the end of a request that is a dead letter."""
        logger.warning(
            "request %s is a dead letter: %s: %s", letter.id, letter.reason, letter.message
        )
        entry = died_entry(letter, call, keep_text=self.keep_text) if self.entries else ""
        end = died(
            letter,
            claim=origin.claim,
            ttl_s=self.result_ttl_s,
            channel=letter.reply_to,
            entry=entry,
            entries=self.entries,
            joined=call is not None and call.part.joins,
            billed=billed,
        )
        return Settled(end, error=as_error(letter))

    def dead(
        self,
        origin: Origin,
        call: Call,
        attempts: tuple[Attempt, ...],
        die: Die,
        traceback: str = "",
        *,
        billed: int = 0,
    ) -> Settled:
        """Return the end of a request that nobody could answer."""
        letter = DeadLetter(
            id=origin.id,
            reason=die.reason,
            message=die.message,
            request=call.request.encode(),
            decision=call.decision,
            attempts=attempts,
            died_at=time.time(),
            traceback=traceback,
            reply_to=reply_channel(origin.reply_to),
        )
        return self.buried(origin, letter, call, billed)

    def unreadable(self, origin: Origin, payload: Any, die: Die, traceback: str = "") -> Settled:
        """Return the end of a message that holds no call: `payload` may be anything."""
        if is_shadow(origin.id, origin.parent_id):
            logger.warning("%s is given up: %s", origin.id, die.message)
            return Settled(Ack(origin.claim), f"no answer: {die.reason}")
        member = Member(reason=die.reason, message=die.message)
        join = ended(member, claim=origin.claim, id=origin.id, parent_id=origin.parent_id)
        if join is not None:
            return Settled(join, error=no_answer(origin, die, ()))
        letter = DeadLetter(
            id=origin.id,
            reason=die.reason,
            message=die.message,
            request=payload if isinstance(payload, dict) else {"received": payload},
            died_at=time.time(),
            traceback=traceback,
            reply_to=reply_channel(origin.reply_to),
        )
        return self.buried(origin, letter)

    def apart(
        self,
        origin: Origin,
        call: Call,
        attempts: tuple[Attempt, ...],
        draft: Draft | None,
        die: Die | None = None,
    ) -> Settled:
        """Return the end of a member, a piece or a shadow; without a draft `die` says why."""
        entry = ""
        if self.entries:
            request_id = call.origin or origin.id
            entry = part_entry(
                request_id, call, draft, attempts, time.time(), keep_text=self.keep_text
            )
        if draft is not None:
            seen = f"{draft.model} answered {draft.usage.output_tokens:,} tokens as {call.part}"
        else:
            assert die is not None
            seen = f"{call.model} gave no answer as {call.part}: {die.reason}"
        logger.info("%s: %s", origin.id, seen)
        if call.part is Part.SHADOW:
            paid = bill(call.decision, attempts, time.time())
            return Settled(Record(origin.claim, entry, self.entries, paid), seen)
        member = Member(draft=draft, attempts=attempts)
        if die is not None:
            member = Member(attempts=attempts, reason=die.reason, message=die.message)
        join = ended(
            member,
            claim=origin.claim,
            id=origin.id,
            parent_id=origin.parent_id,
            decision=call.decision,
            queue=model_queue(call.model, batch=call.request.lane is Lane.BATCH),
            entry=entry,
            entries=self.entries,
        )
        # Nobody waits for a member that is none.
        settlement = join or Ack(origin.claim)
        return Settled(settlement, seen, no_answer(origin, die, attempts) if die else None)


def no_answer(origin: Origin, die: Die, attempts: tuple[Attempt, ...]) -> RequestFailed:
    """Return what Flower is told of a member that failed."""
    message = f"{origin.id}: {die.reason}: {die.message}"
    return RequestFailed(message, origin.id, die.reason, [each.encode() for each in attempts])


def escalated_session_key(call: Call, draft: Draft) -> str:
    """Return the key of the session that `draft` escalates, or ''."""
    session = escalated_session(call, draft)
    return session_key(call.request.metadata.get("tenant"), session) if session else ""


def unforeseen(error: BaseException) -> Die:
    """Return how a call died of an error that nobody foresaw."""
    return Die(DeadReason.EXHAUSTED, f"{type(error).__name__}: {error}")
