"""The task of the model pools: call the model, and carry out what the plan says comes then.

Each message ends in one step in Redis: an answer is stored under the request's id, the request
moves on to the next model's queue under the same id, it becomes a dead letter (and `RequestFailed`
is what the waiting client gets), or, of a part of an ensemble, it is noted where the parts meet.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import redis
from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.worker.strategy import default as default_strategy
from pydantic import ValidationError

from model_workers.advance import Die, Later, NextStep
from model_workers.answer import charged, to_draft
from model_workers.answer_cache.entry import Entry, entry_of, is_kept, is_on_its_way
from model_workers.answer_cache.flight import AnswerCache, Turn
from model_workers.answer_cache.store import Store, open_cache
from model_workers.aside import aside
from model_workers.caller import Answered, Caller, Failed, TakenOver, persist
from model_workers.cascade import (
    AskJudge,
    Escalate,
    Sample,
    Stands,
    after_answer,
    after_grade,
    best,
    following,
    sampled,
    wants_confidence,
    with_log_probabilities,
)
from model_workers.combine import Combined, combine
from model_workers.coroutine_task import Settled, SettlingTask
from model_workers.endpoints.balancer import Balancer
from model_workers.ensemble import as_draft, attempts_of, death, drafts_of, members_of, without
from model_workers.exits import Exits, unforeseen
from model_workers.finish import Standing, Unfinished, finish
from model_workers.judge import grading_request, picking_request, read_grade, read_pick
from model_workers.origin import Origin
from modelyard.catalog import Catalog, UnknownName
from modelyard.claims import Ack
from modelyard.connect import connect
from modelyard.errors import InvalidRequest, ModelyardError, RequestFailed, RequestRevoked
from modelyard.holdings import ledger, owner
from modelyard.member import round_of
from modelyard.messages import Attempt, Call, DeadReason, Draft, Part, Request, problems
from modelyard.names import CALL_TASK, JOIN_KEY_PREFIX, RESULT_KEY_PREFIX, member_of
from modelyard.outcome import read_outcome
from modelyard.plan import Combine, Strategy
from modelyard.received import argument
from modelyard.settling import settle_surely

logger = logging.getLogger("modelyard.calls")

REDIS_TIMEOUT_S: Final = 2.0

COMBINE_S: Final = 60.0
"""How long a function may take to make one answer of several."""


class CallTask(SettlingTask):
    """Second and later hops of every request, and the parts of ensembles."""

    name = CALL_TASK
    acks_late = True
    # An expected end: Celery logs it in one line.
    throws = (RequestFailed,)
    catalog: Catalog
    folder = Path()
    result_ttl_s = 7 * 24 * 3600
    keep_ledger = True
    keep_text = False
    ledger_entries = 100_000

    region = ""

    def __init__(self) -> None:
        self.parts: dict[Part, Callable[[Origin, Call], Awaitable[Settled | Standing]]] = {
            Part.ANSWER: self.answer,
            Part.JUDGE: self.judge,
            Part.MEMBER: self.apart,
            Part.SHADOW: self.apart,
            Part.COMBINE: self.combine,
        }

    @cached_property
    def caller(self) -> Caller:
        """What calls the models, with what all workers know of their endpoints."""
        return Caller(Balancer(partial(open_redis, self.app), process=owner, region=self.region))

    @cached_property
    def answers(self) -> AnswerCache:
        """The answers that were given before."""
        lease_s: float = self.app.conf.broker_transport_options.get("lease_s", 10.0)
        url: str = self.app.conf.broker_url
        return AnswerCache(Store(partial(open_cache, url), lease_s=lease_s), self.folder)

    @property
    def exits(self) -> Exits:
        """The ways out of this pool."""
        entries = self.ledger_entries if self.keep_ledger else 0
        return Exits(self.catalog, self.result_ttl_s, entries, self.keep_text)

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
            return await self.ended(origin, call)
        except TakenOver:
            return Settled(None, error=Ignore("another worker has it"))

    async def ended(self, origin: Origin, call: Call) -> Settled:
        """Have this part done, or find that it was, and return how the message ends."""
        entry, deadline, resumes = self.entry(call), call.request.deadline, call.part is Part.JUDGE
        async with self.answers.turn(entry, origin.id, deadline, resumes=resumes) as turn:
            if turn.hit is not None:
                return self.hit(origin, call, turn.hit)
            ended = await self.parts[call.part](origin, call)
            if isinstance(ended, Standing):
                return await self.finished(origin, ended, turn)
            if is_on_its_way(call, ended.settlement):
                turn.move_on()
            return ended

    def entry(self, call: Call) -> Entry | None:
        """Return where the answer of this call is kept; None where none is."""
        plan = call.decision.plan
        model = plan.steps[call.step].model
        if plan.cache is None or not self.knows(model):
            return None
        return entry_of(call, asked(call), self.catalog.model(model))

    def hit(self, origin: Origin, call: Call, draft: Draft) -> Settled:
        """End a message with an answer that was given before. It was accepted and finished then."""
        if call.part is Part.MEMBER:
            return self.exits.apart(origin, call, call.attempts, draft)
        paid = (*call.drafts, draft)
        return self.exits.answered(
            origin, call, call.attempts, draft, paid=paid, others=call.drafts
        )

    async def called(
        self, origin: Origin, call: Call, request: Request, *, stays: bool = False
    ) -> Answered | Failed:
        """Send `request` to the model whose turn it is; see `Caller.call`. Raises `TakenOver`."""
        return await self.caller.call(
            self.catalog, origin.id, origin.claim, call, request, stays=stays
        )

    def knows(self, model: str) -> bool:
        """Return whether the catalog has this model: if not, nobody serves its queue."""
        try:
            self.catalog.model(model)
        except UnknownName:
            return False
        return True

    # -- the answer of the request itself

    async def finished(self, origin: Origin, stands: Standing, turn: Turn) -> Settled:
        """Do to an answer what the plan says, and end the request with it."""
        call = stands.call
        is_apart = call.part in {Part.MEMBER, Part.SHADOW}
        if call.decision.plan.after and not is_apart:
            finished = await finish(stands, partial(self.called, origin, stays=True))
            if isinstance(finished, Unfinished):
                return self.unfinished(origin, call, finished)
            stands = finished
        if is_kept(call, stands.draft, self.knows, time.time()):
            turn.keep(stands.draft)
        if is_apart:
            return self.exits.apart(origin, call, stands.attempts, stands.draft)
        return self.exits.answered(
            origin, call, stands.attempts, stands.draft, paid=stands.paid, others=stands.others
        )

    def unfinished(self, origin: Origin, call: Call, found: Unfinished) -> Settled:
        """Hand the request to the next model, if another answer may do, or bury it."""
        step = following(call, self.knows, time.time()) if found.may_go_on else None
        if step is None or call.decision.plan.strategy is Strategy.ENSEMBLE:
            return self.exits.dead(origin, call, found.attempts, found.die)
        changed = {"part": Part.ANSWER, "step": step, "attempts": found.attempts}
        onward = call.model_copy(update={**changed, "drafts": found.drafts})
        why = f"step {step + 1} after {found.die.message}"
        logger.warning("request %s: %s", origin.id, why)
        return self.exits.hop(origin, onward, why)

    async def answer(self, origin: Origin, call: Call) -> Settled | Standing:
        """Have this step's model answer."""
        request, accept = asked(call), call.decision.plan.accept
        called = await self.called(origin, call, request)
        if isinstance(called, Failed):
            return self.left(origin, call, called.attempts, called.move)
        draft = to_draft(called.completion, called.model)
        if accept is None:
            return Standing(call, called.attempts, draft, (*call.drafts, draft), call.drafts)
        return await self.weigh(origin, call, request, called.attempts, draft)

    async def weigh(
        self,
        origin: Origin,
        call: Call,
        request: Request,
        attempts: tuple[Attempt, ...],
        draft: Draft,
    ) -> Settled | Standing:
        """Decide what becomes of an answer that has to be accepted."""
        texts: list[str] | None = None
        while True:
            move = after_answer(call, draft, texts, self.knows, time.time())
            if not isinstance(move, Sample):
                break
            draft, texts, more = await self.sample(origin, call, request, draft, move.count)
            attempts = (*attempts, *more)
        call = call.model_copy(update={"drafts": (*call.drafts, draft), "attempts": attempts})
        return self.drafted(origin, call, move)

    async def sample(
        self, origin: Origin, call: Call, request: Request, draft: Draft, count: int
    ) -> tuple[Draft, list[str], tuple[Attempt, ...]]:
        """Have the same model answer `count` more times, at once.

        Returns the draft with what that cost, what was answered, and the calls.
        """
        afresh = call.model_copy(update={"attempts": ()})
        every = await asyncio.gather(
            *(
                self.called(origin, afresh, sampled(request, at), stays=True)
                for at in range(1, count + 1)
            ),
            return_exceptions=True,
        )
        texts: list[str] = []
        attempts: tuple[Attempt, ...] = ()
        for each in every:
            if isinstance(each, BaseException):
                raise each
            attempts = (*attempts, *each.attempts)
            if isinstance(each, Answered):
                texts.append(each.completion.text)
                draft = charged(draft, each.completion, each.model)
        return draft, texts, attempts

    async def judge(self, origin: Origin, call: Call) -> Settled | Standing:
        """Have this judge grade the last draft."""
        draft = call.drafts[-1]
        called = await self.called(origin, call, grading_request(call.request, draft))
        grade = None
        if isinstance(called, Answered):
            grade = read_grade(called.completion.text)
            draft = charged(draft, called.completion, called.model)
            draft = draft.model_copy(update={"score": grade})
            why = f"the grade that {call.model} gave can't be read"
        elif isinstance(called.move, Later):
            return self.left(origin, call, called.attempts, called.move)
        else:
            assert isinstance(called.move, Die)
            why = f"{call.model} could not grade it: {called.move.reason}"
        call = call.model_copy(
            update={"drafts": (*call.drafts[:-1], draft), "attempts": called.attempts}
        )
        return self.graded(origin, call, grade, why)

    def graded(
        self, origin: Origin, call: Call, grade: float | None, why: str
    ) -> Settled | Standing:
        """Return what becomes of the last draft; `why` there is no grade, if there is none."""
        if grade is None:
            logger.warning("request %s: %s", origin.id, why)
        return self.drafted(origin, call, after_grade(call, grade, why, self.knows, time.time()))

    def drafted(
        self, origin: Origin, call: Call, move: Stands | AskJudge | Escalate
    ) -> Settled | Standing:
        """Return what becomes of the last draft of `call`."""
        *others, draft = call.drafts
        if isinstance(move, Stands):
            return Standing(call, call.attempts, draft, call.drafts, tuple(others))
        if isinstance(move, AskJudge):
            onward = call.model_copy(update={"part": Part.JUDGE})
            why = f"step {call.step + 1} graded by {onward.model}"
        else:
            kept = draft.model_copy(update={"verdict": move.why})
            changed = {"part": Part.ANSWER, "step": move.step, "drafts": (*others, kept)}
            onward = call.model_copy(update=changed)
            why = f"step {move.step + 1} after {draft.model} was not accepted: {move.why}"
        logger.info("request %s: %s", origin.id, why)
        return self.exits.hop(origin, onward, why)

    def left(
        self,
        origin: Origin,
        call: Call,
        attempts: tuple[Attempt, ...],
        move: NextStep | Later | Die,
        where: str = "",
    ) -> Settled | Standing:
        """Return how a call leaves this pool that the model did not answer."""
        if isinstance(move, Later):
            return self.exits.later(
                origin, call.model_copy(update={"attempts": attempts}), move.wait_s, move.why
            )
        if isinstance(move, NextStep):
            onward = call.model_copy(update={"step": move.step, "attempts": attempts})
            logger.warning("request %s: next model after %s", origin.id, move.why)
            return self.exits.hop(origin, onward, f"step {move.step + 1} after {move.why}")
        call = call.model_copy(update={"attempts": attempts})
        if call.part in {Part.MEMBER, Part.SHADOW}:
            return self.exits.apart(origin, call, attempts, None, move)
        if call.part is Part.JUDGE:
            why = f"{call.model} could not grade it: {move.reason}"
            return self.graded(origin, call, None, why)
        fit = [draft for draft in call.drafts if not draft.unfit]
        if fit:
            # What was paid for and not accepted is better than nothing, and says what it is.
            logger.warning("request %s: a draft stands, as %s", origin.id, move.message)
            return Standing(call, attempts, best(fit), call.drafts, call.drafts)
        return self.exits.dead(origin, call, attempts, move, where)

    # -- the parts of an ensemble, and shadows

    async def apart(self, origin: Origin, call: Call) -> Settled | Standing:
        """Have a model answer for an ensemble, or for the record."""
        if await persist(unwanted, self.app, origin, call):
            return Settled(Ack(origin.claim), "not called: nobody waits for it any more")
        called = await self.called(origin, call, call.request)
        if isinstance(called, Failed):
            return self.left(origin, call, called.attempts, called.move)
        return Standing(call, called.attempts, to_draft(called.completion, called.model))

    async def combine(self, origin: Origin, call: Call) -> Settled | Standing:
        """Make one answer of those that the members gave."""
        plan = call.decision.plan
        how = plan.combine or Combine()
        members = members_of(await persist(read_join, self.app, origin.id))
        attempts, drafts = attempts_of(members), drafts_of(members)
        # The members' calls were counted as they ended; see `Exits`.
        call = call.model_copy(update={"attempts": attempts})
        if not drafts:
            return self.exits.dead(origin, call, attempts, death(members, len(plan.steps)))
        combined = None
        if how.how == "best" and len(drafts) > 1:
            combined, drafts, attempts = await self.pick(origin, call, attempts, drafts)
        try:
            if combined is None:
                combined = await aside(COMBINE_S, combine, how, drafts)
        except TimeoutError:
            message = f"combine.function {how.function!r} took more than {COMBINE_S:g} s"
            return self.exits.dead(origin, call, attempts, Die(DeadReason.EXHAUSTED, message))
        except ModelyardError as error:
            die = Die(DeadReason.EXHAUSTED, str(error))
            return self.exits.dead(origin, call, attempts, die)
        others = tuple(without(combined, drafts))
        return Standing(call, attempts, as_draft(combined), tuple(drafts), others)

    async def pick(
        self, origin: Origin, call: Call, attempts: tuple[Attempt, ...], drafts: list[Draft]
    ) -> tuple[Combined | None, list[Draft], tuple[Attempt, ...]]:
        """Have the judge pick one, or None if it can't; with what that cost, and all calls."""
        asked = call.model_copy(update={"attempts": attempts})
        asking = picking_request(call.request, drafts)
        called = await self.called(origin, asked, asking, stays=True)
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
        ended = self.left(origin, call, call.attempts, die, where)
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
                argument(message)
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
            return handle(message, body, ack, reject, callbacks)

        return look

    async def aclose(self) -> None:
        await self.caller.aclose()
        await self.answers.aclose()


def asked(call: Call) -> Request:
    """Return the request as it is sent to who answers it."""
    if wants_confidence(call.decision.plan.accept):
        return with_log_probabilities(call.request)
    return call.request


def open_redis(app: Celery) -> redis.Redis:
    """Return a connection to the broker for what the workers tell each other of endpoints."""
    url: str = app.conf.broker_url
    return connect(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)


def has_outcome(app: Celery, id: str) -> bool:
    """Return whether a final result is stored for `id`."""
    raw = app.backend.client.get(RESULT_KEY_PREFIX + id)
    return raw is not None and read_outcome(raw) is not None


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


def read_join(app: Celery, id: str) -> dict[bytes, bytes]:
    """Return what is known of the members of a request."""
    fields: dict[bytes, bytes] = app.backend.client.hgetall(JOIN_KEY_PREFIX + id)
    return fields
