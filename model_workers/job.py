"""One task execution in the pool, and how its end is told to Celery."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.app.task import Context

from model_workers.coroutine_task import Outcome, Settled, SettlingTask


@dataclass(eq=False, slots=True, weakref_slot=True)
class Job:
    """One task execution. `pid` is what Celery calls it by; there is no process behind it."""

    pid: int
    id: str
    target: Callable[..., Any]
    args: Sequence[Any]
    callback: Callable[[Any], Any]
    accept_callback: Callable[[int, float], Any] | None
    error_callback: Callable[[Any], Any]
    timeout_callback: Callable[..., Any] | None
    soft_timeout: float | None
    timeout: float | None
    delivery_tag: str = ""
    connection: int = 0
    task: "asyncio.Task[None] | None" = None
    inner: "asyncio.Future[Any] | None" = None
    started: float = 0.0
    over_soft_limit: bool = False
    over_hard_limit: bool = False
    abandoned: bool = False
    finishing: bool = False
    on_terminate: Callable[[int, int | None], None] | None = field(default=None, repr=False)

    def terminate(self, signal: int | None = None) -> None:
        """Stop it: what Celery's `Request.terminate` calls on a result."""
        if self.on_terminate is not None:
            self.on_terminate(self.pid, signal)


def settled(task: SettlingTask, outcome: Outcome, request: dict[str, Any]) -> Settled:
    """Return how a settling task's message ends."""
    if outcome.error is None:
        assert isinstance(outcome.value, Settled)
        return outcome.value
    return task.failed(Context(request), outcome.error)


def info(error: Exception) -> ExceptionInfo:
    """Return what Celery wants to know of an expected end: where it was raised tells nobody."""
    try:
        raise error
    except type(error):
        told = ExceptionInfo()
    told.exception = error  # as it is: events show its repr
    told.traceback = ""
    return told
