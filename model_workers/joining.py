"""What is answered apart and joined: an ensemble's members, the pieces of a request, and shadows.

Each function returns how its message ends, or the answer that stands. Where it calls a model, it
raises `TakenOver` if another worker has the message.
"""

import logging
from functools import partial
from typing import Final

from celery import Celery

from model_workers.answer import charged, to_draft
from model_workers.answering import left
from model_workers.aside import aside
from model_workers.caller import FIRST_WAIT_S, LAST_WAIT_S, Failed, persist
from model_workers.combine import Combined, combine
from model_workers.coroutine_task import Settled
from model_workers.ensemble import (
    as_draft,
    death,
    drafts_of,
    missing,
    without,
)
from model_workers.finish import Standing
from model_workers.judge import picking_request, read_pick
from model_workers.origin import Origin
from model_workers.work import Work
from modelyard.advance import Die
from modelyard.claims import Ack
from modelyard.errors import ModelyardError, RequestRevoked
from modelyard.member import attempts_of, members_of, numbered, round_of
from modelyard.messages import Attempt, Call, DeadReason, Draft, Part
from modelyard.names import JOIN_KEY_PREFIX, RESULT_KEY_PREFIX, member_of
from modelyard.outcome import read_outcome
from modelyard.pieces import final_request
from modelyard.plan import Combine
from modelyard.redis_errors import passes

logger = logging.getLogger("modelyard.calls")

COMBINE_S: Final = 60.0
"""How long a function may take to make one answer of several."""


async def apart(work: Work, origin: Origin, call: Call) -> Settled | Standing:
    """Have a model answer for an ensemble, or for the record."""
    ask = partial(persist, unwanted, work.app, origin, call)
    if await ask():
        return Settled(Ack(origin.claim), "not called: nobody waits for it any more")
    called = await work.called(origin, call, call.request, unwanted=ask)
    if isinstance(called, Failed):
        return left(work, origin, call, called.attempts, called.move)
    return Standing(call, called.attempts, to_draft(called.completion, called.model))


async def join(work: Work, origin: Origin, call: Call) -> Settled | Standing:
    """Make one answer of those that the members gave."""
    plan = call.decision.plan
    how = plan.combine or Combine()
    members = members_of(await persist(read_join, work.app, origin.id))
    attempts, drafts = attempts_of(members), drafts_of(members)
    # The members' calls were counted as they ended; see `Exits`.
    billed = len(attempts)
    if not drafts:
        die = death(members, len(plan.steps))
        return work.exits.dead(origin, call, attempts, die, billed=billed)
    combined = None
    if how.how == "best" and len(drafts) > 1:
        combined, drafts, attempts = await pick(work, origin, call, attempts, drafts)
    try:
        if combined is None:
            combined = await aside(COMBINE_S, combine, how, drafts)
    except TimeoutError:
        message = f"combine.function {how.function!r} took more than {COMBINE_S:g} s"
        die = Die(DeadReason.EXHAUSTED, message)
        return work.exits.dead(origin, call, attempts, die, billed=billed)
    except ModelyardError as error:
        die = Die(DeadReason.EXHAUSTED, str(error))
        return work.exits.dead(origin, call, attempts, die, billed=billed)
    others = tuple(without(combined, drafts))
    paid = tuple(drafts)
    return Standing(call, attempts, as_draft(combined), paid, others, billed=billed)


async def pick(
    work: Work, origin: Origin, call: Call, attempts: tuple[Attempt, ...], drafts: list[Draft]
) -> tuple[Combined | None, list[Draft], tuple[Attempt, ...]]:
    """Have the judge pick one, or None if it can't; with what that cost, and all calls."""
    asked = call.model_copy(update={"attempts": attempts})
    asking = picking_request(call.request, drafts)
    called = await work.called(origin, asked, asking, stays=True)
    if isinstance(called, Failed):
        logger.warning("request %s: %s could not pick an answer", origin.id, call.model)
        return None, drafts, called.attempts
    at = read_pick(called.completion.text, len(drafts))
    if at is None:
        logger.warning("request %s: what %s picked can't be read", origin.id, call.model)
    of = at or 0
    drafts[of] = charged(drafts[of], called.completion, called.model)
    picked = Combined.of(drafts[of]) if at is not None else None
    return picked, drafts, called.attempts


async def reduce(work: Work, origin: Origin, call: Call) -> Settled | Standing:
    """Have this step's model answer the request from what its pieces became.

    `call.attempts` are those of this question alone; the pieces' are where they were joined.
    """
    pieces = call.decision.plan.pieces
    assert pieces is not None
    members = numbered(await persist(read_join, work.app, origin.id))
    mapped, drafts = attempts_of([*members.values()]), drafts_of([*members.values()])
    billed = len(mapped)
    die = missing(members, pieces.count)
    if die is not None:
        attempts = (*mapped, *call.attempts)
        return work.exits.dead(origin, call, attempts, die, billed=billed)
    request = final_request(call.request, pieces, [draft.text for draft in drafts])
    called = await work.called(origin, call, request)
    attempts = (*mapped, *called.attempts)
    if isinstance(called, Failed) and isinstance(called.move, Die):
        return work.exits.dead(origin, call, attempts, called.move, billed=billed)
    if isinstance(called, Failed):
        return left(work, origin, call, called.attempts, called.move)
    draft, others = to_draft(called.completion, called.model), (*drafts, *call.drafts)
    return Standing(call, attempts, draft, (*others, draft), others, request, billed)


def unwanted(app: Celery, origin: Origin, call: Call) -> bool:
    """Return whether nobody waits for a member or a shadow: its request ended, or went on, or
    began anew; or this very member has ended, by a worker that had lost its claim.
    """
    id = call.origin or ""
    _, number = member_of(origin.id, origin.parent_id) or ("", 0)
    with app.backend.client.pipeline(transaction=False) as pipe:
        pipe.get(RESULT_KEY_PREFIX + id)
        pipe.hmget(JOIN_KEY_PREFIX + id, "need", "released", f"m{number}", "round")
        raw, (need, released, ended, waited) = pipe.execute()
    outcome = read_outcome(raw) if raw is not None else None
    if call.part is Part.SHADOW:
        return isinstance(outcome, RequestRevoked)
    if waited and waited.decode() != round_of(call.decision):
        return True
    return outcome is not None or need is None or released is not None or ended is not None


def paid_before(app: Celery, id: str) -> tuple[Attempt, ...]:
    """Return the calls that were made for the parts of a request that were joined.

    Blocks while Redis is away, until the app gives up; raises `redis.RedisError` then.
    """
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return attempts_of(members_of(read_join(app, id)))
        except Exception as error:
            if not passes(error) or app.backend.give_up.wait(wait_s):
                raise
            logger.warning("Redis is away or refuses, again in %.1f s: %s", wait_s, error)
        wait_s = min(2 * wait_s, LAST_WAIT_S)


def read_join(app: Celery, id: str) -> dict[bytes, bytes]:
    """Return what is known of the members of a request."""
    fields: dict[bytes, bytes] = app.backend.client.hgetall(JOIN_KEY_PREFIX + id)
    return fields
