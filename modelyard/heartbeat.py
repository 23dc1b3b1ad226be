"""The heartbeat of a worker: every third of its lease it says in Redis how it is.

A step of Celery's worker (https://docs.celeryq.dev/en/stable/userguide/extending.html). The main
thread only notes, by a timer of its hub, that it turned and what it consumes; a thread with a
connection of its own writes that down. So a Redis that hangs does not hold the worker up, and a
main thread that hangs is told by the time at which it last turned. A pool without a hub (gevent,
eventlet) is known by when it last looked for messages alone.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import redis
from celery import bootsteps
from celery.signals import worker_shutdown
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelyard import __version__, transport
from modelyard.beat import Beat
from modelyard.claims import LEASE_S
from modelyard.connect import connect
from modelyard.dead_letters import near_limit
from modelyard.holdings import ledger
from modelyard.meant import meant
from modelyard.names import DEAD_LETTERS_KEY, WORKERS_KEY

logger = logging.getLogger("modelyard.heartbeat")

BEATS: Final = 3
"""How many beats there are in a lease."""

ANSWER_S: Final = 1.0
"""How long Redis may take for one answer before this beat is left out."""

WARN_S: Final = 600.0
"""How often a store of dead letters that is nearly full is spoken of."""

END_S: Final = 3.0
"""How long a worker that ends waits for its beat to be removed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker's consumer was doing; times are by `time.monotonic`.

    `missing`: the queues that it is meant to consume and did not.
    """

    queues: tuple[str, ...]
    prefetch: int
    consumed: float
    turned: float | None = None
    missing: tuple[str, ...] = ()


class Pulse:
    """The thread that writes the beats of one worker.

    With a hub, `note` is called on the main thread again and again. Without one, `see` is asked
    before each beat.
    """

    def __init__(
        self,
        client: redis.Redis,
        node: str,
        app: str,
        lease_s: float,
        see: Callable[[], Seen] | None = None,
        clock: Callable[[], float] = time.monotonic,
        dead_limit: int = 0,
    ) -> None:
        self._dead_limit = dead_limit
        self._warned = clock() - WARN_S
        self.every_s = lease_s / BEATS
        self._client = client
        self._node = node
        self._app = app
        self._lease_s = lease_s
        self._see = see
        self._clock = clock
        self._seen: Seen | None = None
        self._away = False
        self._stopping = False
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin. Before anything was noted there is no beat: the worker is not ready."""
        self._thread.start()

    def note(self, seen: Seen) -> None:
        """Note what the main thread saw. Never waits."""
        self._seen = seen
        self._wake.set()

    def stopping(self) -> None:
        """The worker was told to stop: its main thread waits for its calls from now on."""
        self._stopping = True
        self._wake.set()

    def end(self) -> None:
        """Remove the beat, unless Redis is away, and end the thread."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(END_S)

    def _run(self) -> None:
        while True:
            # Who notes wakes this thread; it comes late only when the main thread does.
            self._wake.wait(self.every_s if self._see else 1.5 * self.every_s)
            self._wake.clear()
            try:
                if self._ended.is_set():
                    self._client.hdel(WORKERS_KEY, self._node)
                    return
                self.beat()
            except (redis.RedisError, OSError) as error:
                if self._ended.is_set():
                    logger.warning("the last heartbeat can't be removed: %s", error)
                    return
                if not self._away:
                    logger.warning("no heartbeat can be written, trying again: %s", error)
                self._away = True
            else:
                if self._away:
                    logger.warning("heartbeats are written again")
                self._away = False

    def beat(self) -> None:
        """Write a beat. Raises `redis.RedisError`."""
        seen = self._see() if self._see is not None else self._seen
        if seen is None or (self._see is not None and not seen.queues):
            return
        seconds, microseconds = self._client.time()
        at, now = seconds + microseconds / 1e6, self._clock()
        beat = Beat(
            node=self._node,
            at=at,
            consumed_at=at - (now - seen.consumed),
            turned_at=None if seen.turned is None else at - (now - seen.turned),
            lease_s=self._lease_s,
            queues=seen.queues,
            in_flight=ledger.count,
            prefetch=seen.prefetch,
            pid=os.getpid(),
            app=self._app,
            version=__version__,
            rss_bytes=rss_bytes(),
            stopping=self._stopping,
            missing=seen.missing,
        )
        self._client.hset(WORKERS_KEY, self._node, beat.encode())
        self._warn(now)

    def _warn(self, now: float) -> None:
        """Say it aloud, now and then, when the store of dead letters is nearly full."""
        if not self._dead_limit or now - self._warned < WARN_S:
            return
        count = int(self._client.hlen(DEAD_LETTERS_KEY))
        if near_limit(count, self._dead_limit):
            self._warned = now
            logger.error(
                "%d dead letters of at most %d: at the limit nothing can be submitted any more; "
                "see `modelyard dead list`, and replay, export or drop some",
                count,
                self._dead_limit,
            )


class Heartbeat(bootsteps.StartStopStep):
    """The step: `app.steps["worker"].add("modelyard.heartbeat:Heartbeat")`."""

    requires: ClassVar = ("celery.worker.components:Hub",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._pulse: Pulse | None = None
        self._full = 0.0

    def start(self, worker: Any) -> None:
        conf = worker.app.conf
        lease_s = float((conf.broker_transport_options or {}).get("lease_s", LEASE_S))
        hub = worker.hub
        meant.update(worker.app.amqp.queues.consume_from)
        client = connect(
            conf.broker_url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
        pulse = self._pulse = Pulse(
            client,
            worker.hostname,
            worker.app.main or "",
            lease_s,
            see=None if hub is not None else lambda: self.look(worker),
            dead_limit=conf.get("modelyard_dead_letter_limit", 0),
        )
        if hub is not None:

            def turn() -> None:
                pulse.note(self.look(worker, turned=time.monotonic()))

            # The worker's timer is the hub's, and this entry outlives the connection.
            hub.timer.call_repeatedly(pulse.every_s, turn)
            hub.call_soon(turn)
        worker_shutdown.connect(self._end, sender=worker, weak=False)
        pulse.start()

    def close(self, worker: Any) -> None:
        if self._pulse is not None:
            self._pulse.stopping()

    def stop(self, worker: Any) -> None:
        """Beat on until the calls have ended, which comes later: `worker_shutdown` is the end."""

    def terminate(self, worker: Any) -> None:
        self._end()

    def _end(self, **_: Any) -> None:
        if self._pulse is not None:
            self._pulse.end()

    def look(self, worker: Any, turned: float | None = None) -> Seen:
        """Return what the worker's consumer does. Who has no room need not look for more."""
        consumer = worker.consumer
        task_consumer = consumer.task_consumer
        queues = tuple(queue.name for queue in task_consumer.queues) if task_consumer else ()
        prefetch = int(consumer.qos.value or 0) if consumer.qos else 0
        if prefetch and ledger.count >= prefetch:
            self._full = time.monotonic()
        consumed = max(transport.consumed_at, self._full)
        missing = tuple(sorted(meant.difference(queues))) if queues else ()
        return Seen(queues, prefetch, consumed, turned, missing)


def rss_bytes() -> int | None:
    """Return how much memory this process has; None where there is no /proc."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
