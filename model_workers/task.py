"""The task of the model pools: call the model, and carry out what `advance` says.

An answer is returned, and Celery stores it under the request's id. A failover is published for
the next model under the same id, and this hop ends without a result. A dead letter is stored, and
`RequestFailed` raised, which is what the waiting client gets.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from celery import Celery, Task
from celery.exceptions import Ignore
from celery.worker.strategy import default as default_strategy
from pydantic import ValidationError

from model_workers.advance import CallNow, Die, Move, NextStep, advance
from model_workers.answer import AnswerResult, to_answer
from model_workers.coroutine_task import CoroutineTask
from model_workers.lines import Lines
from model_workers.providers.base import Completion
from modelyard.catalog import Catalog, Model, Retry
from modelyard.dead_letters import as_error, bury, end
from modelyard.errors import (
    FailureKind,
    InvalidRequest,
    ModelyardError,
    ProviderError,
    RequestFailed,
)
from modelyard.messages import Attempt, Call, DeadLetter, DeadReason, Decision, problems
from modelyard.names import CALL_TASK, RESULT_KEY_PREFIX, hop_mark, model_queue
from modelyard.outcome import read_outcome
from modelyard.publish import publish, task_message
from modelyard.received import argument
from modelyard.redis_errors import passes

logger = logging.getLogger("modelyard.calls")


FIRST_WAIT_S = 0.1
LAST_WAIT_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hop:
    """Which request runs here, whom its outcome is told, and the hop it came from."""

    id: str
    reply_to: str
    parent_id: str | None


class CallTask(CoroutineTask):
    """Second and later hops of every request."""

    name = CALL_TASK
    acks_late = True
    # An expected end: Celery logs it in one line.
    throws = (RequestFailed,)
    catalog: Catalog
    once_s = 3600

    def __init__(self) -> None:
        self.lines = Lines()
        self.random = random.Random()  # noqa: S311 - spreads retries, keeps no secret

    async def run(self, payload: Any) -> AnswerResult:
        """Return the answer. Raises `RequestFailed`, or `Ignore` after a failover."""
        request = self.request
        hop = Hop(request.id, request.reply_to or "", request.parent_id)
        redelivered = (request.delivery_info or {}).get("redelivered")
        # The worker that had it may have stored the outcome and died before its ack.
        if redelivered and await persist(has_outcome, self.app, hop.id):
            raise Ignore("it has its outcome")
        try:
            call = Call.decode(payload)
        except ValidationError as error:
            why = f"not a call: {problems(error)}"
            raise await self.bury(dead_letter(hop.id, payload, DeadReason.INVALID, why)) from error
        try:
            model = callable_model(self.catalog, call.model)
        except ModelyardError as error:
            attempts = (*call.attempts, not_called(call, str(error), time.time()))
            move = advance(call, attempts, Retry(), time.time(), 0.0)
            raise await self.leave(hop, call, move, attempts) from error
        return await self.answer(hop, call, model)

    async def answer(self, hop: Hop, call: Call, model: Model) -> AnswerResult:
        """Call the model until it answers or the request leaves this pool."""
        attempts = call.attempts
        first_call: float | None = None
        while True:
            move = advance(call, attempts, model.retry, time.time(), self.random.random())
            if not isinstance(move, CallNow):
                raise await self.leave(hop, call, move, attempts)
            if move.wait_s:
                await asyncio.sleep(move.wait_s)
            first_call = first_call or time.time()
            attempt, completion = await self.attempt(hop.id, call, model)
            attempts = (*attempts, attempt)
            if completion is not None:
                answer = to_answer(
                    hop.id, call, attempts, completion, model, first_call, now=time.time()
                )
                result = AnswerResult(answer)
                logger.info("request %s: %r in %.0f ms", hop.id, result, answer.timings.calling_ms)
                return result

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

    def hand_on(self, hop: Hop, call: Call, move: NextStep, attempts: tuple[Attempt, ...]) -> None:
        """Publish the request for the next model, under the same id, once."""
        onward = call.model_copy(update={"step": move.step, "attempts": attempts})
        queue = model_queue(onward.model)
        message = task_message(
            self.app,
            task=CALL_TASK,
            id=hop.id,
            payload=onward.encode(),
            queue=queue,
            summary=(
                f"{call.decision.intent}, about {call.decision.input_tokens:,} tokens, "
                f"step {move.step + 1} after {move.why}"
            ),
            reply_to=hop.reply_to,
            parent_id=hop.parent_id,
            shadow=queue,
            mark=hop_mark(hop.id, move.step),
            once_s=self.once_s,
        )
        with self.app.producer_pool.acquire(block=True) as producer:
            publish(producer, message)

    async def leave(
        self, hop: Hop, call: Call, move: Move, attempts: tuple[Attempt, ...]
    ) -> Ignore | RequestFailed:
        """Send the request to the next model or bury it, and return what to raise for it."""
        if isinstance(move, NextStep):
            await persist(self.hand_on, hop, call, move, attempts)
            logger.warning("request %s: next model after %s", hop.id, move.why)
            # Not Celery's Retry: its event could reach Flower after the next model's end.
            return Ignore(f"next model after {move.why}")
        assert isinstance(move, Die)
        letter = dead_letter(
            hop.id, call.request.encode(), move.reason, move.message, call.decision, attempts
        )
        return await self.bury(letter)

    async def bury(self, letter: DeadLetter) -> RequestFailed:
        """Store the dead letter and return the error to raise: the result is stored after it."""
        await persist(bury, self.app, letter)
        logger.warning(
            "request %s is a dead letter: %s: %s", letter.id, letter.reason, letter.message
        )
        return as_error(letter)

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Bury what ended in no way that `advance` knows: a time limit, or a bug of ours."""
        if isinstance(exc, RequestFailed):
            return
        payload = args[0] if args else {}
        message = f"{type(exc).__name__}: {exc}"
        try:
            call = Call.decode(payload)
        except ValidationError:
            letter = dead_letter(task_id, payload, DeadReason.EXHAUSTED, message)
        else:
            letter = dead_letter(
                task_id,
                call.request.encode(),
                DeadReason.EXHAUSTED,
                message,
                call.decision,
                call.attempts,
            )
        bury(self.app, letter)

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
                logger.warning("request %s is a dead letter: %s", id, error)
                letter = dead_letter(id, {}, DeadReason.INVALID, str(error))
                end(app, letter, message.properties.get("reply_to") or "")
                return ack(logger, consumer.connection_errors)
            return handle(message, body, ack, reject, callbacks)

        return look

    async def aclose(self) -> None:
        await self.lines.aclose()


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
    id: str,
    request: Any,
    reason: DeadReason,
    message: str,
    decision: Decision | None = None,
    attempts: tuple[Attempt, ...] = (),
) -> DeadLetter:
    """Return the dead letter of a request, as of now."""
    return DeadLetter(
        id=id,
        reason=reason,
        message=message,
        request=request if isinstance(request, dict) else {"received": request},
        decision=decision,
        attempts=attempts,
        died_at=time.time(),
    )
