"""The task of the model pools: call the model, and carry out what the plan says comes then.

Each message ends in one step in Redis: an answer is stored under the request's id, the request
moves on to the next model's queue under the same id, it becomes a dead letter (and `RequestFailed`
is what the waiting client gets), or, of a part of an ensemble, it is noted where the parts meet.
"""

import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import redis
from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.worker.strategy import default as default_strategy
from pydantic import ValidationError

from model_workers.answer_cache.entry import Entry, entry_of, is_kept, is_on_its_way
from model_workers.answer_cache.flight import AnswerCache, Turn
from model_workers.answer_cache.store import Store, open_cache
from model_workers.answering import answer, asked, judge, left
from model_workers.caller import Caller, TakenOver, persist
from model_workers.cascade import following
from model_workers.coroutine_task import Settled, SettlingTask
from model_workers.endpoints.balancer import Balancer
from model_workers.ensemble import drafts_of
from model_workers.exits import Exits, unforeseen
from model_workers.finish import Standing, Unfinished, finish
from model_workers.joining import apart, join, paid_before, read_join, reduce
from model_workers.origin import Origin
from model_workers.revocation import CallRequest, follow
from model_workers.work import Work
from modelyard.advance import Die
from modelyard.catalog import Catalog
from modelyard.claims import Ack
from modelyard.connect import connect
from modelyard.errors import InvalidRequest, RequestFailed
from modelyard.holdings import ledger, owner
from modelyard.member import attempts_of, members_of
from modelyard.messages import Call, DeadReason, Draft, Part, problems
from modelyard.names import CALL_TASK, RESULT_KEY_PREFIX
from modelyard.outcome import read_outcome
from modelyard.plan import Strategy
from modelyard.received import argument
from modelyard.settling import settle_surely

logger = logging.getLogger("modelyard.calls")

REDIS_TIMEOUT_S: Final = 2.0


class CallTask(SettlingTask):
    """Second and later hops of every request, and the parts of ensembles."""

    name = CALL_TASK
    acks_late = True
    Request = CallRequest
    # An expected end: Celery logs it in one line.
    throws = (RequestFailed,)
    catalog: Catalog
    folder = Path()
    result_ttl_s = 7 * 24 * 3600
    keep_ledger = True
    keep_text = False
    ledger_entries = 100_000

    region = ""

    @cached_property
    def caller(self) -> Caller:
        """What calls the models, with what all workers know of their endpoints."""
        return Caller(
            Balancer(
                partial(open_redis, self.app),
                process=owner,
                region=self.region,
                current=lambda: self.catalog,
            )
        )

    @cached_property
    def answers(self) -> AnswerCache:
        """The answers that were given before."""
        lease_s: float = self.app.conf.broker_transport_options.get("lease_s", 10.0)
        url: str = self.app.conf.broker_url
        return AnswerCache(Store(partial(open_cache, url), lease_s=lease_s), self.folder)

    @property
    def exits(self) -> Exits:
        """The ways out of this pool."""
        return self.exits_by(self.catalog)

    def exits_by(self, catalog: Catalog) -> Exits:
        """Return the ways out of this pool, where this is its catalog."""
        entries = self.ledger_entries if self.keep_ledger else 0
        return Exits(catalog, self.result_ttl_s, entries, self.keep_text)

    @property
    def work(self) -> Work:
        """What the next message is worked on with. The catalog may be another one after it."""
        # Read once: the main thread may put another one in its place meanwhile.
        catalog = self.catalog
        return Work(self.app, catalog, self.caller, self.exits_by(catalog))

    async def run(self, payload: Any) -> Settled:
        """Return how the message ends."""
        origin = Origin.of(self.request)
        # The worker that had it may have stored the outcome and lost its claim. A part of a request
        # has none: what is stored under its id is somebody else's.
        if (
            origin.redelivered
            and not origin.is_part
            and await persist(has_outcome, self.app, origin.id)
        ):
            return Settled(Ack(origin.claim), error=Ignore("it has its outcome"))
        try:
            call = Call.decode(payload)
        except ValidationError as error:
            die = Die(DeadReason.INVALID, f"not a call: {problems(error)}")
            return self.exits.unreadable(origin, payload, die)
        try:
            return await self.ended(self.work, origin, call)
        except TakenOver:
            return Settled(None, error=Ignore("another worker has it"))

    async def ended(self, work: Work, origin: Origin, call: Call) -> Settled:
        """Have this part done, or find that it was, and return how the message ends."""
        entry, deadline = entry_for(work, call), call.request.deadline
        resumes = call.part is Part.JUDGE
        async with self.answers.turn(entry, origin.id, deadline, resumes=resumes) as turn:
            if turn.hit is not None:
                return await hit(work, origin, call, turn.hit)
            ended = await PARTS[call.part](work, origin, call)
            if isinstance(ended, Standing):
                return await finished(work, origin, ended, turn)
            if is_on_its_way(call, ended.settlement):
                turn.move_on()
            return ended

    # -- what ends otherwise

    def failed(self, context: Context, error: BaseException) -> Settled:
        """End what ended in no way that the plan knows: a time limit, or a bug of ours."""
        origin = Origin.of(context)
        payload = context.args[0] if context.args else {}
        die = unforeseen(error)
        where = "".join(traceback.format_tb(error.__traceback__))
        try:
            call = Call.decode(payload)
        except ValidationError:
            return self.exits.unreadable(origin, payload, die, where)
        if call.part.joins:
            joined = paid_before(self.app, origin.id)
            attempts = (*joined, *call.attempts)
            return self.exits.dead(origin, call, attempts, die, where, billed=len(joined))
        ended = left(self.work, origin, call, call.attempts, die, where)
        if not isinstance(ended, Standing):
            return ended
        if call.decision.plan.after:
            # Whatever failed may have been just that, and an answer must not go out without it.
            return self.exits.dead(origin, call, call.attempts, die, where)
        paid, others = ended.paid, ended.others
        return self.exits.answered(
            origin, call, ended.attempts, ended.draft, paid=paid, others=others
        )

    def Strategy(self, task: Task, app: Any, consumer: Any) -> Callable[..., Any]:
        """Return Celery's own handler of this task's messages, behind a look at what is in them.

        Celery drops a message that it can't read; here it is a dead letter.
        """
        handle = default_strategy(task, app, consumer)

        def look(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
            id = message.headers.get("id")
            if not isinstance(id, str):
                logger.error("a message without an id is dropped: nobody can wait for its outcome")
                return reject(logger, consumer.connection_errors)
            try:
                payload = argument(message)
            except InvalidRequest as error:
                reply_to = message.properties.get("reply_to") or ""
                parent_id = message.headers.get("parent_id")
                origin = Origin(id, message.delivery_tag, reply_to, parent_id)
                die = Die(DeadReason.INVALID, str(error))
                settled = self.exits.unreadable(origin, {}, die)
                if settled.settlement is not None:
                    settle_surely(app.backend.client, settled.settlement)
                ledger.settled([origin.claim])
                return message.ack()
            follow(id, message.headers.get("parent_id"), payload)
            return handle(message, body, ack, reject, callbacks)

        return look

    async def aclose(self) -> None:
        await self.caller.aclose()
        await self.answers.aclose()


Do = Callable[[Work, Origin, Call], Awaitable[Settled | Standing]]

PARTS: Final[Mapping[Part, Do]] = {
    Part.ANSWER: answer,
    Part.JUDGE: judge,
    Part.MEMBER: apart,
    Part.SHADOW: apart,
    Part.COMBINE: join,
    Part.MAP: apart,
    Part.REDUCE: reduce,
}


def entry_for(work: Work, call: Call) -> Entry | None:
    """Return where the answer of this call is kept; None where none is."""
    plan = call.decision.plan
    model = plan.steps[call.step].model
    if plan.cache is None or not work.knows(model):
        return None
    return entry_of(call, asked(call), work.catalog.model(model))


async def hit(work: Work, origin: Origin, call: Call, draft: Draft) -> Settled:
    """End a message with an answer that was given before. It was accepted and finished then."""
    if call.part.is_apart:
        return work.exits.apart(origin, call, call.attempts, draft)
    attempts, others, billed = call.attempts, call.drafts, 0
    if call.part is Part.REDUCE:
        members = members_of(await persist(read_join, work.app, origin.id))
        billed = len(attempts_of(members))
        attempts = (*attempts_of(members), *attempts)
        others = (*drafts_of(members), *others)
    return work.exits.answered(
        origin, call, attempts, draft, paid=(*others, draft), others=others, billed=billed
    )


async def finished(work: Work, origin: Origin, stands: Standing, turn: Turn) -> Settled:
    """Do to an answer what the plan says, and end the request with it."""
    call = stands.call
    if call.decision.plan.after and not call.part.is_apart:
        finished = await finish(stands, partial(work.called, origin, stays=True))
        if isinstance(finished, Unfinished):
            return unfinished(work, origin, stands, finished)
        stands = finished
    if is_kept(call, stands.draft, work.knows, time.time()):
        turn.keep(stands.draft)
    if call.part.is_apart:
        return work.exits.apart(origin, call, stands.attempts, stands.draft)
    return work.exits.answered(
        origin,
        call,
        stands.attempts,
        stands.draft,
        paid=stands.paid,
        others=stands.others,
        billed=stands.billed,
    )


def unfinished(work: Work, origin: Origin, stands: Standing, found: Unfinished) -> Settled:
    """Hand the request to the next model, if another answer may do, or bury it."""
    call, billed = stands.call, stands.billed
    plan = call.decision.plan
    step = following(call, work.knows, time.time()) if found.may_go_on else None
    if step is None or plan.strategy is Strategy.ENSEMBLE:
        return work.exits.dead(origin, call, found.attempts, found.die, billed=billed)
    changed = {"part": Part.ANSWER, "step": step, "attempts": found.attempts[billed:]}
    drafts = found.drafts
    if plan.pieces is not None:
        # Who goes on finds the pieces where they were joined.
        changed["part"], drafts = Part.REDUCE, drafts[plan.pieces.count :]
    onward = call.model_copy(update={**changed, "drafts": drafts})
    why = f"step {step + 1} after {found.die.message}"
    logger.warning("request %s: %s", origin.id, why)
    return work.exits.hop(origin, onward, why)


def open_redis(app: Celery) -> redis.Redis:
    """Return a connection to the broker for what the workers tell each other of endpoints."""
    url: str = app.conf.broker_url
    return connect(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)


def has_outcome(app: Celery, id: str) -> bool:
    """Return whether a final result is stored for `id`."""
    raw = app.backend.client.get(RESULT_KEY_PREFIX + id)
    return raw is not None and read_outcome(raw) is not None
