"""The task of the model pools: call the model, and carry out what `advance` says.

It ends in one of three ways, each of them one step in Redis: an answer is stored under the
request's id, the request moves on to the next model's queue under the same id, or it becomes a
dead letter, and `RequestFailed` is what the waiting client gets.
"""

import asyncio
import logging
import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.worker.strategy import default as default_strategy
from pydantic import ValidationError

from model_workers.advance import CallNow, Die, Move, NextStep, advance
from model_workers.answer import brief, to_answer
from model_workers.coroutine_task import Settled, SettlingTask
from model_workers.lines import Lines
from model_workers.providers.base import Completion
from modelyard.catalog import Catalog, Model, Retry
from modelyard.claims import Ack, Hop
from modelyard.endings import answered, as_error, died, reply_channel
from modelyard.errors import (
    FailureKind,
    InvalidRequest,
    ModelyardError,
    ProviderError,
    RequestFailed,
)
from modelyard.holdings import confirm, fresh, ledger, made_here
from modelyard.messages import Attempt, Call, DeadLetter, DeadReason, Lane, problems
from modelyard.names import CALL_TASK, RESULT_KEY_PREFIX, model_queue
from modelyard.outcome import read_outcome
from modelyard.plan import Decision
from modelyard.publish import envelope
from modelyard.received import argument
from modelyard.redis_errors import passes
from modelyard.settling import settle_surely

logger = logging.getLogger("modelyard.calls")


FIRST_WAIT_S = 0.1
LAST_WAIT_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Origin:
    """Which request runs here, by which claim, whom its outcome is told, where it came from."""

    id: str
    claim: str
    reply_to: str
    parent_id: str | None
    redelivered: bool = False

    @classmethod
    def of(cls, context: Context) -> "Origin":
        """Read it from a running task's context."""
        claim = (context.properties or {}).get("delivery_tag", "")
        redelivered = bool((context.delivery_info or {}).get("redelivered"))
        return cls(context.id, claim, context.reply_to or "", context.parent_id, redelivered)


class CallTask(SettlingTask):
    """Second and later hops of every request."""

    name = CALL_TASK
    acks_late = True
    # An expected end: Celery logs it in one line.
    throws = (RequestFailed,)
    catalog: Catalog
    result_ttl_s = 7 * 24 * 3600

    def __init__(self) -> None:
        self.lines = Lines()
        self.random = random.Random()  # noqa: S311 - spreads retries, keeps no secret

    async def run(self, payload: Any) -> Settled:
        """Return how it ends: an answer, the next model, or a dead letter."""
        request = self.request
        origin = Origin.of(request)
        # The worker that had it may have stored the outcome and lost its claim.
        if origin.redelivered and await persist(has_outcome, self.app, origin.id):
            return Settled(Ack(origin.claim), error=Ignore("it has its outcome"))
        try:
            call = Call.decode(payload)
        except ValidationError as error:
            why = f"not a call: {problems(error)}"
            return self.bury(origin, dead_letter(origin, payload, DeadReason.INVALID, why))
        try:
            model = callable_model(self.catalog, call.model)
        except ModelyardError as error:
            attempts = (*call.attempts, not_called(call, str(error), time.time()))
            move = advance(call, attempts, Retry(), time.time(), 0.0)
            return self.leave(origin, call, move, attempts)
        return await self.answer(origin, call, model)

    async def answer(self, origin: Origin, call: Call, model: Model) -> Settled:
        """Call the model until it answers or the request leaves this pool."""
        attempts = call.attempts
        first_call: float | None = None
        while True:
            move = advance(call, attempts, model.retry, time.time(), self.random.random())
            if not isinstance(move, CallNow):
                return self.leave(origin, call, move, attempts)
            if move.wait_s:
                await asyncio.sleep(move.wait_s)
            if not await still_ours(origin.claim):
                return Settled(None, error=Ignore("another worker has it"))
            first_call = first_call or time.time()
            attempt, completion = await self.attempt(origin.id, call, model)
            attempts = (*attempts, attempt)
            if completion is not None:
                now = time.time()
                answer = to_answer(origin.id, call, attempts, completion, model, first_call, now)
                end = answered(
                    answer,
                    claim=origin.claim,
                    ttl_s=self.result_ttl_s,
                    channel=reply_channel(origin.reply_to),
                    now=now,
                )
                seen = brief(answer)
                logger.info("request %s: %s in %.0f ms", origin.id, seen, answer.timings.calling_ms)
                return Settled(end, seen)

    async def attempt(self, id: str, call: Call, model: Model) -> tuple[Attempt, Completion | None]:
        """Call one endpoint once and return what came of it."""
        started_at, started = time.time(), time.monotonic()
        completion, failed, endpoint = None, None, "none"
        try:
            line = self.lines.next_line(model)
            endpoint = line.label
            completion = await line.provider.complete(call.request, request_id=id)
        except ProviderError as error:
            failed = error
        except Exception as error:
            # A provider's bug is its endpoint's failure, not the request's end.
            logger.exception("provider of %s failed in an unforeseen way", model.name)
            failed = ProviderError(FailureKind.PERMANENT, f"{type(error).__name__} in the provider")
        return (
            Attempt(
                model=model.name,
                endpoint=endpoint,
                started_at=started_at,
                duration_ms=round(1000 * (time.monotonic() - started), 3),
                kind=failed.kind if failed else None,
                status=failed.status if failed else None,
                message=str(failed) if failed else "",
                retry_after_s=failed.retry_after_s if failed else None,
            ),
            completion,
        )

    def hand_on(
        self, origin: Origin, call: Call, move: NextStep, attempts: tuple[Attempt, ...]
    ) -> Settled:
        """Return the hop to the next model, under the same id."""
        onward = call.model_copy(update={"step": move.step, "attempts": attempts})
        queue = model_queue(onward.model, batch=call.request.lane is Lane.BATCH)
        message = envelope(
            task=CALL_TASK,
            id=origin.id,
            payload=onward.model_dump_json(exclude_defaults=True),
            queue=queue,
            summary=(
                f"{call.decision.intent}, about {call.decision.input_tokens:,} tokens, "
                f"step {move.step + 1} after {move.why}"
            ),
            reply_to=origin.reply_to,
            parent_id=origin.parent_id,
            shadow=queue,
            redelivered=origin.redelivered,
        )
        logger.warning("request %s: next model after %s", origin.id, move.why)
        # Not Celery's Retry: its event could reach Flower after the next model's end.
        return Settled(
            Hop(origin.claim, queue, message),
            error=Ignore(f"next model after {move.why}"),
        )

    def leave(
        self, origin: Origin, call: Call, move: Move, attempts: tuple[Attempt, ...]
    ) -> Settled:
        """Return how a request leaves this pool without an answer."""
        if isinstance(move, NextStep):
            return self.hand_on(origin, call, move, attempts)
        assert isinstance(move, Die)
        letter = dead_letter(
            origin, call.request.encode(), move.reason, move.message, call.decision, attempts
        )
        return self.bury(origin, letter)

    def bury(self, origin: Origin, letter: DeadLetter) -> Settled:
        """Return the end of a request that is a dead letter."""
        logger.warning(
            "request %s is a dead letter: %s: %s", letter.id, letter.reason, letter.message
        )
        end = died(letter, claim=origin.claim, ttl_s=self.result_ttl_s, channel=letter.reply_to)
        return Settled(end, error=as_error(letter))

    def failed(self, context: Context, error: BaseException) -> Settled:
        """Bury what ended in no way that `advance` knows: a time limit, or a bug of ours."""
        origin = Origin.of(context)
        payload = context.args[0] if context.args else {}
        message = f"{type(error).__name__}: {error}"
        where = "".join(traceback.format_tb(error.__traceback__))
        try:
            call = Call.decode(payload)
        except ValidationError:
            letter = dead_letter(origin, payload, DeadReason.EXHAUSTED, message)
        else:
            letter = dead_letter(
                origin,
                call.request.encode(),
                DeadReason.EXHAUSTED,
                message,
                call.decision,
                call.attempts,
            )
        return self.bury(origin, letter.model_copy(update={"traceback": where}))

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
                origin = Origin(
                    id, message.delivery_tag, message.properties.get("reply_to") or "", None
                )
                settled = self.bury(origin, dead_letter(origin, {}, DeadReason.INVALID, str(error)))
                if settled.settlement is not None:
                    settle_surely(app.backend.client, settled.settlement)
                ledger.settled([origin.claim])
                return message.ack()
            return handle(message, body, ack, reject, callbacks)

        return look

    async def aclose(self) -> None:
        await self.lines.aclose()


async def still_ours(claim: str) -> bool:
    """Return whether a call may be paid for: nobody took the message over while this one slept.

    A message without a claim came from no broker, and is nobody else's; a child of a worker's
    process knows nothing of claims. While Redis is away a worker that slept waits: it can't know.
    """
    if not claim or not made_here(claim):
        return True
    if not fresh():
        await persist(confirm)
    return ledger.holds(claim)


async def persist(act: Callable[..., T], *args: Any) -> T:
    """Return `act(*args)`, run in a thread and again until Redis is there and takes it."""
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return await asyncio.to_thread(act, *args)
        except Exception as error:
            if not passes(error):
                raise
            logger.warning("Redis is away or refuses, again in %.1f s: %s", wait_s, error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LAST_WAIT_S)


def has_outcome(app: Celery, id: str) -> bool:
    """Return whether a final result is stored for `id`."""
    raw = app.backend.client.get(RESULT_KEY_PREFIX + id)
    return raw is not None and read_outcome(raw) is not None


def callable_model(catalog: Catalog, name: str) -> Model:
    """Return the model. Raises `ModelyardError` if this worker does not know it or its key."""
    model = catalog.model(name)
    if model.disabled is not None:
        raise ModelyardError(f"model {name!r} can't be called by this worker: {model.disabled}")
    return model


def not_called(call: Call, message: str, now: float) -> Attempt:
    """Return the attempt at a model that this worker can't call at all."""
    return Attempt(
        model=call.model,
        endpoint="none",
        started_at=now,
        duration_ms=0.0,
        kind=FailureKind.PERMANENT,
        message=message,
    )


def dead_letter(
    origin: Origin,
    request: Any,
    reason: DeadReason,
    message: str,
    decision: Decision | None = None,
    attempts: tuple[Attempt, ...] = (),
) -> DeadLetter:
    """Return the dead letter of a request, as of now."""
    return DeadLetter(
        id=origin.id,
        reason=reason,
        message=message,
        request=request if isinstance(request, dict) else {"received": request},
        decision=decision,
        attempts=attempts,
        died_at=time.time(),
        reply_to=reply_channel(origin.reply_to),
    )
