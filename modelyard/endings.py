"""The outcome of a request as it is stored: Celery's own format, so any Celery client can read it.

https://docs.celeryq.dev/en/stable/internals/protocol.html and `celery.backends.base` have it:
`{"status", "result", "traceback", "children", "date_done", "task_id"}`, an exception as
`{"exc_type", "exc_message", "exc_module"}`.
"""

import json
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kombu.exceptions import KombuError
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from modelyard.budgets import bill
from modelyard.claims import Ack, Claimed, End, Join, Record
from modelyard.decision_ledger import died_entry, part_entry
from modelyard.errors import RequestFailed
from modelyard.member import Member, attempts_of, ended, members_of
from modelyard.messages import Answer, Attempt, Call, DeadLetter, DeadReason, Part
from modelyard.names import CALL_TASK, REPLY_CHANNEL_PREFIX, RESULT_KEY_PREFIX, is_shadow
from modelyard.plan import Decision
from modelyard.publish import encode_json
from modelyard.wording import calls_in, counted

SHOWN_CHARS = 4_000
"""How much is kept of a request that can't be written as JSON."""

UNREADABLE_TTL_S = 24 * 3600
"""How long the result of what nobody can wait for is kept."""


def answered(
    answer: Answer,
    *,
    claim: str,
    ttl_s: int,
    channel: str,
    now: float,
    entry: str = "",
    entries: int = 0,
    session: str = "",
    joined: bool = False,
    billed: int = 0,
) -> End:
    """Return the end of a request that was answered. `now` is in seconds since the epoch.

    `entry`, `entries`, `session` and `joined` are those of `End`; the budgets know of the cost of
    the first `billed` attempts.
    """
    result = answer.model_dump_json(exclude_defaults=True)
    return End(
        claim=claim,
        key=RESULT_KEY_PREFIX + answer.id,
        # The answer is JSON already: it is put in its place as it is.
        result=stored("SUCCESS", answer.id, now, result),
        ttl_s=ttl_s,
        id=answer.id,
        channel=channel,
        entry=entry,
        entries=entries,
        session=session,
        model=answer.model,
        joined=joined,
        bill=bill(answer.decision, answer.attempts[billed:], now),
    )


def died(
    letter: DeadLetter,
    *,
    claim: str,
    ttl_s: int,
    channel: str,
    entry: str = "",
    entries: int = 0,
    joined: bool = False,
    billed: int = 0,
) -> End:
    """Return the end of a request that became a dead letter; the last four are as in `answered`."""
    return End(
        claim=claim,
        key=RESULT_KEY_PREFIX + letter.id,
        result=stored("FAILURE", letter.id, letter.died_at, encode_json(failure(letter))),
        ttl_s=ttl_s,
        id=letter.id,
        channel=channel,
        letter=encode_letter(letter),
        reason=letter.reason.value,
        died_at=letter.died_at,
        entry=entry,
        entries=entries,
        joined=joined,
        bill=bill(letter.decision, letter.attempts[billed:], letter.died_at),
    )


def cancelled(id: str, *, claim: str, ttl_s: int, channel: str, now: float) -> End:
    """Return the end of a request that its producer does not want any more."""
    error = {
        "exc_type": "TaskRevokedError",
        "exc_message": ["cancelled"],
        "exc_module": "celery.exceptions",
    }
    return End(
        claim=claim,
        key=RESULT_KEY_PREFIX + id,
        result=stored("REVOKED", id, now, encode_json(error)),
        ttl_s=ttl_s,
        id=id,
        channel=channel,
        joined=True,
    )


def reply_channel(reply_to: object) -> str:
    """Return the channel of the modelyard client that waits for a request, or ''."""
    if not isinstance(reply_to, str):  # another producer may have put anything there
        return ""
    return reply_to if reply_to.startswith(REPLY_CHANNEL_PREFIX) else ""


def buried(claimed: Claimed, why: str, id: str | None = None) -> End | Join | Ack:
    """Return the end of what came from a queue and is no task message, or none that can be read."""
    headers = headers_of(claimed.message)
    if (apart := ended_apart(claimed.claim, headers, DeadReason.INVALID, why)) is not None:
        return apart
    letter = DeadLetter(
        id=id or f"unreadable-{uuid.uuid4()}",
        reason=DeadReason.INVALID,
        message=why,
        request={"queue": claimed.queue, "unreadable": shown(claimed.message)},
        died_at=time.time(),
    )
    return died(letter, claim=claimed.claim, ttl_s=UNREADABLE_TTL_S, channel="")


def poisoned(
    claimed: Claimed,
    message: Any,
    lost: int,
    ttl_s: int = 7 * 86400,
    join: Mapping[bytes, bytes] | None = None,
    *,
    entries: int = 0,
    keep_text: bool = False,
) -> End | Join | Record | Ack:
    """Return the end of a task message that outlived `lost` workers that had it.

    `join`: what is known of the members of the request, which were paid for when they ended.
    `entries` is the bound of the decision ledger (0: it is off), and `keep_text` whether it keeps
    requests.
    """
    why = f"{lost} workers that had it were lost: it is suspected to kill them"
    request, call = message_request(message)
    decision, attempts = (call.decision, call.attempts) if call is not None else (None, ())
    joins = call is not None and call.part.joins
    joined = attempts_of(members_of(join or {})) if joins else ()
    apart = ended_apart(claimed.claim, message.headers, DeadReason.POISON, why, attempts, decision)
    if call is not None and call.part is Part.SHADOW and entries:
        now, id = time.time(), call.origin or str(message.headers.get("id"))
        entry = part_entry(id, call, None, attempts, now, keep_text=keep_text)
        return Record(claimed.claim, entry, entries, bill(decision, attempts, now))
    if apart is not None:
        return apart
    reply_to = message.properties.get("reply_to") or ""
    letter = DeadLetter(
        id=str(message.headers.get("id") or f"unreadable-{uuid.uuid4()}"),
        reason=DeadReason.POISON,
        message=why,
        request=request,
        decision=decision,
        attempts=(*joined, *attempts),
        died_at=time.time(),
        reply_to=reply_channel(reply_to),
    )
    # If it was to combine an ensemble's answers, they are of no use to anybody now.
    return died(
        letter,
        claim=claimed.claim,
        ttl_s=ttl_s,
        channel=letter.reply_to,
        entry=died_entry(letter, call, keep_text=keep_text) if entries and call is not None else "",
        entries=entries,
        joined=True,
        billed=len(joined),
    )


def ended_apart(
    claim: str,
    headers: Any,
    reason: DeadReason,
    why: str,
    attempts: tuple[Attempt, ...] = (),
    decision: Decision | None = None,
) -> Join | Ack | None:
    """Return the end of a member or a shadow that nobody could call; None for any other message.

    Nobody knows its id: a dead letter would be one without a request.
    """
    if not isinstance(headers, dict) or headers.get("task") != CALL_TASK:
        return None
    id, parent_id = headers.get("id"), headers.get("parent_id")
    if not isinstance(id, str) or not isinstance(parent_id, str):
        return None
    if is_shadow(id, parent_id):
        return Ack(claim)
    member = Member(attempts=attempts, reason=reason, message=why)
    return ended(member, claim=claim, id=id, parent_id=parent_id, decision=decision)


def headers_of(message: bytes) -> Any:
    """Return the headers of a task message as far as they can be read, or None."""
    try:
        return json.loads(message)["headers"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def message_request(message: Any) -> tuple[dict[str, Any], Call | None]:
    """Return the request in a task message, and its call if it has one."""
    try:
        payload = message.payload[0][0]
        if message.headers.get("task") == CALL_TASK:
            call = Call.decode(payload)
            return call.request.encode(), call
    except (ValidationError, KombuError, ValueError, LookupError, TypeError, RecursionError):
        return {"unreadable": shown(message.body)}, None
    return payload if isinstance(payload, dict) else {"received": payload}, None


def stored(status: str, id: str, now: float, result: str) -> str:
    """Return what the result backend holds; `result` is JSON."""
    done = datetime.fromtimestamp(now, UTC).isoformat()
    return (
        f'{{"status":"{status}","result":{result},"traceback":null,"children":[],'
        f'"date_done":"{done}","task_id":{encode_json(id)}}}'
    )


def failure(letter: DeadLetter) -> dict[str, Any]:
    """Return the error that a waiting client gets, as Celery's JSON."""
    return {
        "exc_type": RequestFailed.__name__,
        "exc_message": list(as_error(letter).args),
        "exc_module": RequestFailed.__module__,
    }


def as_error(letter: DeadLetter) -> RequestFailed:
    """Return the error that a waiting client gets."""
    calls = calls_in(letter.attempts)
    tried = f" after {counted(calls, 'attempt')}" if calls else ""
    return RequestFailed(
        f"request {letter.id}: {letter.reason}{tried}: {letter.message}",
        letter.id,
        letter.reason.value,
        [attempt.encode() for attempt in letter.attempts],
    )


def encode_letter(letter: DeadLetter) -> str:
    """Return the letter as JSON; a request that is none is kept as what Python shows of it."""
    try:
        return letter.model_dump_json()
    except (PydanticSerializationError, ValueError, RecursionError):
        request = {"unreadable": shown(letter.request)}
        return letter.model_copy(update={"request": request}).model_dump_json()


def shown(value: object) -> str:
    """Return `value` as ASCII text, cut to `SHOWN_CHARS`."""
    try:
        return ascii(value)[:SHOWN_CHARS]
    except RecursionError:
        return "nested too deep to be shown"
