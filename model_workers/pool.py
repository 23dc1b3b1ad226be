"""A Celery pool that runs coroutine tasks on one asyncio loop.

Celery 5.7 ships pools of processes, threads and greenlets, and none for coroutines. This one sits
at Celery's own extension point (a `celery.concurrency.base.BasePool`, named by `worker_pool`):

- the main thread is Celery's: it consumes, acknowledges and sends events;
- the *loop* thread runs the tasks, hundreds at a time;
- the *committer* thread settles what `SettlingTask`s came to, as much at a time as there is;
- a few *finisher* threads run Celery's own tracer on the outcome of all other tasks: it writes the
  result, calls the handlers and signals.

Nothing of that blocks the loop. What came of it goes back to the main thread, which alone touches
the broker's channel.

Time limits, revoke with `terminate`, `pool_grow` and `pool_shrink` work as in Celery's pools.
"""

import asyncio
import gc
import itertools
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import (
    Ignore,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerShutdown,
)

from model_workers.committer import Committer, Pending
from model_workers.coroutine_task import (
    CoroutineTask,
    Outcome,
    Settled,
    SettlingTask,
    not_counted,
    tracing,
)
from model_workers.job import Job, info, settled
from modelyard.claims import DONE, Hop, settle
from modelyard.connect import connect
from modelyard.holdings import ledger

logger = logging.getLogger("modelyard.pool")
calls = logging.getLogger("modelyard.calls")

FINISHERS = 4
"""Threads that write results: enough to overlap round trips, few enough to share one GIL."""

STORE_TIMEOUT_S = 20.0
"""A Redis that does not answer for so long is taken to be away."""

SWITCH_S = 0.0005

YOUNG_OBJECTS = 10_000
"""So many new objects, of some hundred requests, before the collector looks at them."""

STOP_POLL_S = 0.1

CANCEL_WAIT_S = 5.0
"""For how long a shutdown waits for coroutines that are slow to take their cancellation."""

FINISH_S = 15.0
"""For how long a warm shutdown tries to store the outcomes it has while Redis is away."""


class AsyncioPool(BasePool):
    """Runs `CoroutineTask`s on one loop; other tasks run in the finisher threads."""

    limit: int
    body_can_be_buffer = True
    # Stopping waits for calls in flight, which a signal handler must not do.
    signal_safe = False
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pids = itertools.count(os.getpid() * 1_000_000)
        self._jobs: dict[int, Job] = {}
        self._waiting: deque[Job] = deque()
        self._in_flight = 0
        self._connection = 0
        self._news: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._telling = False
        self._new: deque[Job] = deque()
        self._admitting = False
        self._hub: Any = None
        self.flush_events: Callable[[], None] = _nothing
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="asyncio-pool", daemon=True)
        self._finishers = ThreadPoolExecutor(FINISHERS, thread_name_prefix="finisher")
        self._store = connect(
            self.app.conf.broker_url, socket_timeout=STORE_TIMEOUT_S, socket_connect_timeout=5.0
        )
        self._committer = Committer(partial(settle, self._store))

    # -- Celery's side: the main thread

    def on_start(self) -> None:
        # The threads hand each other short pieces of work: none may sit on the lock for long.
        # https://docs.python.org/3/library/sys.html#sys.setswitchinterval
        sys.setswitchinterval(SWITCH_S)
        # What was imported stays: the collector need not look at it with every request.
        # https://docs.python.org/3/library/gc.html#gc.freeze
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        self._thread.start()
        self._committer.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """Remember Celery's hub; called again after each reconnect."""
        self._hub = loop
        loop.call_soon(self._tell)

    def flush(self) -> None:
        """Forget what has not started: its connection was lost, and the broker gives it again."""
        self._connection += 1
        self._loop.call_soon_threadsafe(self._pump)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        accept_callback: Callable[[int, float], Any] | None = None,
        error_callback: Callable[[Any], Any] | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        correlation_id: str = "",
        **_: Any,
    ) -> Job:
        job = Job(
            pid=next(self._pids),
            id=correlation_id,
            target=target,
            args=args,
            callback=callback or _ignore,
            accept_callback=accept_callback,
            error_callback=error_callback or _ignore,
            timeout_callback=timeout_callback,
            soft_timeout=soft_timeout or self.options.get("soft_timeout"),
            timeout=timeout or self.options.get("timeout"),
            delivery_tag=args[2]["properties"].get("delivery_tag", ""),
            connection=self._connection,
            on_terminate=self.terminate_job,
        )
        self._jobs[job.pid] = job
        self._new.append(job)
        # One wake-up for all that is handed over before the loop looks.
        if not self._admitting:
            self._admitting = True
            self._loop.call_soon_threadsafe(self._admit)
        return job

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancel a running task; Celery has announced it as revoked and acknowledged it."""
        job = self._jobs.get(pid)
        if job is not None:
            self._loop.call_soon_threadsafe(self._drop, job)

    def grow(self, n: int = 1) -> None:
        """Run `n` more at a time."""
        self.limit += n
        self._loop.call_soon_threadsafe(self._pump)

    def shrink(self, n: int = 1) -> None:
        """Run `n` fewer at a time, at least one; what runs goes on."""
        self.limit = max(1, self.limit - n)

    def on_stop(self) -> None:
        """Warm shutdown: finish what is in flight; after the grace time, hand the rest back.

        What is handed back stays unacknowledged, and is put back on its queue when the channel
        closes, which comes next.
        """
        grace_s = self.app.conf.get("modelyard_shutdown_grace_s", 120.0)
        deadline = time.monotonic() + grace_s
        while self._jobs and time.monotonic() < deadline:
            self._tell()
            time.sleep(STOP_POLL_S)
        self._close(finish_s=FINISH_S)

    def on_terminate(self) -> None:
        """Cold shutdown: hand back what runs; outcomes that are being stored get a moment."""
        self._close(finish_s=CANCEL_WAIT_S)

    def _close(self, finish_s: float) -> None:
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._end(finish_s), self._loop).result()
        self._tell()  # hops among it
        self._committer.close(finish_s)
        self._store.close()
        self.app.backend.give_up.set()
        self._finishers.shutdown(wait=True)
        self._tell()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def _tell(self) -> None:
        """Pass on what the other threads had to say, in its order."""
        self._telling = False
        while self._news:
            callback, args = self._news.popleft()
            try:
                callback(*args)
            except (WorkerShutdown, MemoryError):
                raise
            except Exception:
                # One message's broken ack or event must not silence the others: the broker
                # gives that message out again, and its stored result ends it.
                logger.exception("a task's callback failed")

    def _say(self, callback: Callable[..., Any], *args: Any) -> None:
        self._news.append((callback, args))
        hub = self._hub
        if hub is not None and not self._telling:
            self._telling = True
            hub.call_soon(self._tell)

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "in-flight": self._in_flight,
            "waiting": len(self._waiting),
        }

    # -- the loop's side

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _admit(self) -> None:
        self._admitting = False
        while self._new:
            self._waiting.append(self._new.popleft())
        self._pump()

    def _pump(self) -> None:
        # The prefetch count already bounds what is here, but not exactly: the limit is kept here.
        while self._waiting and self._in_flight < self.limit:
            job = self._waiting.popleft()
            if (
                job.abandoned
                or job.connection < self._connection
                or not ledger.start(job.delivery_tag)
            ):
                self._jobs.pop(job.pid, None)
            else:
                self._in_flight += 1
                job.task = self._loop.create_task(self._execute(job))

    async def _execute(self, job: Job) -> None:
        committing = False
        try:
            job.started = time.monotonic()
            if job.accept_callback is not None:
                self._say(job.accept_callback, job.pid, job.started)
            name, _, request = job.args[:3]
            args, kwargs = request["args"], request["kwargs"]
            task = self.app.tasks[name]
            outcome = None
            if isinstance(task, CoroutineTask):
                outcome = await self._outcome(job, task.start(request, *args, **kwargs))
            if job.abandoned:
                return
            job.finishing = True
            if isinstance(task, SettlingTask):
                assert outcome is not None
                self._commit(job, await self._settled(task, outcome, request))
                committing = True
            else:
                await self._loop.run_in_executor(self._finishers, self._finish, job, outcome)
        except asyncio.CancelledError:
            logger.debug("%s was abandoned", job.id)
        except Exception as error:
            if job.finishing and not isinstance(error, Reject):
                # Its outcome is not stored, so the message must come again: its lease runs out.
                logger.exception("%s: its outcome could not be stored", job.id)
                ledger.settled([job.delivery_tag])
            else:
                # Celery logs it and settles the message.
                self._say(job.error_callback, ExceptionInfo())
        finally:
            self._in_flight -= 1
            if not committing:
                self._jobs.pop(job.pid, None)
                self._say(ledger.stop, job.delivery_tag)
            self._pump()

    async def _settled(
        self, task: SettlingTask, outcome: Outcome, request: dict[str, Any]
    ) -> Settled:
        if outcome.error is None:
            return settled(task, outcome, request)
        # It may read what was paid for before: not on the loop.
        return await self._loop.run_in_executor(self._finishers, settled, task, outcome, request)

    def _commit(self, job: Job, end: Settled) -> None:
        if end.settlement is None:
            self._committed(job, end, DONE)
            return
        pending = Pending(end.settlement, partial(self._committed, job, end))
        if isinstance(end.settlement, Hop):
            self._say(self._hand_on, pending)
        else:
            self._committer.add(pending)

    def _hand_on(self, pending: Pending) -> None:
        """Commit a hop, once all that this worker says of the request is on its way."""
        try:
            self.flush_events()
        finally:
            self._committer.add(pending)

    def _committed(self, job: Job, end: Settled, result: int | None) -> None:
        """Let go of what is settled, and tell Celery; called in the committer's thread."""
        # What could not be settled is not held any longer: its lease runs out, and it comes again.
        ledger.settled([job.delivery_tag])
        error = end.error
        if result is None:
            error = Ignore("its outcome could not be stored")
        elif result != DONE and not isinstance(error, Ignore):
            why = not_counted(result)
            logger.warning("request %s: %s", job.id, why)
            error = Ignore(why)
        elif end.log:
            calls.info("%s", end.log)
        runtime_s = time.monotonic() - job.started
        self._jobs.pop(job.pid, None)
        if error is None:
            self._say(job.callback, (0, end.seen, runtime_s))
        else:
            self._say(job.callback, (1, info(error), runtime_s))

    async def _outcome(self, job: Job, coroutine: Coroutine[Any, Any, Any]) -> Outcome:
        """Run it within its limits. Nothing but its abandonment raises."""
        inner = job.inner = asyncio.ensure_future(coroutine)
        timers = []
        if job.soft_timeout:
            timers.append(self._loop.call_later(job.soft_timeout, self._soft_limit, job, inner))
        if job.timeout:
            timers.append(self._loop.call_later(job.timeout, self._hard_limit, job, inner))
        try:
            return Outcome(value=await asyncio.shield(inner))
        except asyncio.CancelledError:
            if job.abandoned:
                inner.cancel()
                raise
            if job.over_hard_limit:
                inner.cancel("hard time limit")
                return Outcome(error=TimeLimitExceeded(job.timeout))
            if job.over_soft_limit:
                return Outcome(error=SoftTimeLimitExceeded(job.soft_timeout))
            return Outcome(error=RuntimeError("the task cancelled itself"))
        except Exception as error:  # noqa: BLE001 - the tracer raises it again and stores it
            return Outcome(error=error)
        finally:
            for timer in timers:
                timer.cancel()

    def _soft_limit(self, job: Job, inner: "asyncio.Future[Any]") -> None:
        job.over_soft_limit = True
        if job.timeout_callback is not None:
            self._say(job.timeout_callback, True, job.soft_timeout)
        inner.cancel("soft time limit")

    def _hard_limit(self, job: Job, inner: "asyncio.Future[Any]") -> None:
        if isinstance(self.app.tasks[job.args[0]], SettlingTask):
            logger.error("%s: hard time limit (%s s) exceeded", job.id, job.timeout)
            job.over_hard_limit = True
            if job.task is not None:
                job.task.cancel()
            return
        inner.cancel("hard time limit")
        self._abandon(job)
        if job.timeout_callback is not None:
            # It stores a failure, which takes a round trip: not on the loop.
            self._say(job.timeout_callback, False, job.timeout)

    def _abandon(self, job: Job) -> None:
        if job.finishing:
            return  # It has its outcome, and that is being stored.
        job.abandoned = True
        if job.task is not None:
            job.task.cancel()
        else:
            self._jobs.pop(job.pid, None)

    def _drop(self, job: Job) -> None:
        """Abandon what was revoked. Celery acknowledges what it knows to have begun only."""
        self._abandon(job)
        if job.task is None and job.accept_callback is not None:
            self._say(job.accept_callback, job.pid, time.monotonic())

    async def _end(self, finish_s: float) -> None:
        """Abandon what runs; let what has an outcome store it, but not for longer than that."""
        self._waiting.clear()
        running = [job for job in tuple(self._jobs.values()) if not job.finishing]
        if running:
            logger.warning("handing back %d calls", len(running))
        for job in running:
            self._abandon(job)
        ending = [task for job in running for task in (job.task, job.inner) if task is not None]
        if ending:
            await asyncio.wait(ending, timeout=CANCEL_WAIT_S)
        if await self._unstored(finish_s):
            # Redis is away: end the finishers' waiting for it.
            self.app.backend.give_up.set()
            for job in await self._unstored(CANCEL_WAIT_S):
                logger.error("%s: Redis is away and its outcome could not be stored", job.id)
        for task in self.app.tasks.values():
            if isinstance(task, CoroutineTask):
                await task.aclose()

    async def _unstored(self, timeout_s: float) -> list[Job]:
        """Wait for the finishers to store outcomes, and return the jobs whose are not stored."""
        every = tuple(self._jobs.values())  # the committer takes some out meanwhile
        storing = [job for job in every if job.task is not None and job.finishing]
        tasks = [job.task for job in storing if job.task and not job.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        return [job for job in storing if job.task and not job.task.done()]

    # -- the finishers' side

    def _finish(self, job: Job, outcome: Outcome | None) -> None:
        name, id, request, body, content_type, content_encoding = job.args
        with tracing(outcome):
            failed, said, _ = job.target(name, id, request, body, content_type, content_encoding)
        if failed and isinstance(outcome.error if outcome else None, self.app.tasks[name].throws):
            said.traceback = ""  # An expected end: where in our code it was raised tells nobody.
        # The tracer timed itself; what people want to know is how long the task ran.
        self._say(job.callback, (failed, said, time.monotonic() - job.started))


def _ignore(_: Any) -> None:
    """Stand in for a callback that nobody gave."""


def _nothing() -> None:
    """Stand in until there are events to send."""
