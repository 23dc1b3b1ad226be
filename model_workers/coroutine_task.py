"""A Celery task whose `run` is a coroutine.

In an `AsyncioPool` it runs on the pool's loop; in any other pool, and when it is called directly,
it runs to its end on a loop of its own. A `SettlingTask` also says itself how its message ends.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore

from modelyard.claims import DONE, FENCED, Settlement
from modelyard.holdings import ledger
from modelyard.settling import settle_surely


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a coroutine came to: a value, or the exception it raised."""

    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """How a message ends: what is written, and what events, logs and Flower are told.

    `settlement` is None if there is nothing to write. `error` is None after a success, `Ignore` if
    the request goes on elsewhere, and else what the producer gets. `log` is logged when it is
    written: nobody waits for a line in a log, and it is true only then.
    """

    settlement: Settlement | None
    seen: str = ""
    error: Exception | None = None
    log: str = ""


_context: ContextVar[Context | None] = ContextVar("modelyard_task_context", default=None)
_traced = threading.local()


@contextmanager
def tracing(outcome: Outcome | None) -> Iterator[None]:
    """While Celery's tracer runs in this thread, a coroutine task's outcome is this one."""
    _traced.outcome = outcome
    try:
        yield
    finally:
        _traced.outcome = None


class CoroutineTask(Task):
    """Base of tasks with `async def run`. Use it by `@app.task(base=CoroutineTask)` or subclass it.

    Inside `run`, `self.request` is the running task's own, however many run at a time.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outcome: Outcome | None = getattr(_traced, "outcome", None)
        if outcome is None:
            return asyncio.run(self._alone(*args, **kwargs))
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def start(self, request: dict[str, Any], *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Return the coroutine of one execution, which knows its own request."""
        return self._run_as(Context(request, args=args, kwargs=kwargs), *args, **kwargs)

    async def _run_as(self, context: Context, *args: Any, **kwargs: Any) -> Any:
        _context.set(context)
        return await self.run(*args, **kwargs)

    async def _alone(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await self.run(*args, **kwargs)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Let go of what the task holds on the loop; called once, when the loop ends."""

    @property
    def request(self) -> Context:
        """The running task's context, on the loop as in Celery's tracer."""
        return _context.get() or super().request


def not_counted(said: int) -> str:
    """Return why a settlement was not `DONE`, for logs and events."""
    return "another worker has it" if said == FENCED else "another outcome was first"


class SettlingTask(CoroutineTask):
    """Base of tasks whose `run` returns `Settled`: its outcome and its ack are one step.

    Celery's tracer, which would store the result first and acknowledge it later, is left out.
    """

    abstract = True

    def failed(self, context: Context, error: BaseException) -> Settled:
        """Return how a message ends whose `run` raised, or ran into a time limit. May block."""
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run to the end in a pool that is not ours, whose tracer finds nothing left to do."""
        try:
            settled = asyncio.run(self._alone(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it becomes the outcome
            settled = self.failed(self.request, error)
        if settled.settlement is not None:
            said = settle_surely(self.app.backend.client, settled.settlement)
            ledger.settled([settled.settlement.claim])
            if said != DONE:
                # Celery would store the error, for whoever has no claim to lose.
                raise Ignore(not_counted(said))
        raise settled.error or Ignore(settled.seen)
