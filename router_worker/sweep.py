"""Ends what waits where no worker looks and can't be answered any more: what expired, or was
cancelled.

A queue of people has no worker that would look at deadlines, and neither has one that is stranded
(`router_worker.stranded`), so routers do, in threads. Several routers may sweep at once, as each
item is claimed first.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import redis

from modelyard.inbox import Inbox
from modelyard.redis_errors import passes
from modelyard.settings import Settings
from router_worker.stranded import Stranded

logger = logging.getLogger("modelyard.inbox")

EVERY_S: Final = 2.0
"""An expired request ends so long after its deadline, where the inbox is not very long."""
SHARE: Final = 0.02
"""A sweep reads all that waits: it may take this part of the time."""
STOP_S: Final = 5.0


class Sweeper:
    """Sweeps the inbox of `models`, and what is stranded, each in a thread, until it is stopped."""

    def __init__(
        self,
        models: tuple[str, ...],
        connect: Callable[[], redis.Redis],
        settings: Settings,
        *,
        stranded: Stranded | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._models = models
        self._connect = connect
        self._settings = settings
        self._stranded = stranded
        self._every_s = every_s
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin, if there is anything to look at."""
        if self._threads:
            return
        if self._models:
            self._begin(
                "people", lambda client: Inbox(client, self._models, self._settings).sweep()
            )
        if self._stranded is not None:
            self._begin("stranded", self._stranded.sweep)

    def _begin(self, what: str, sweep: Callable[[redis.Redis], Iterable[str]]) -> None:
        # Each by itself: where much is stranded, a sweep takes long, and people have deadlines.
        thread = threading.Thread(
            target=self._run, args=(what, sweep), name=f"sweep-{what}", daemon=True
        )
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """End the threads."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(STOP_S)
        self._threads = []

    def _run(self, what: str, sweep: Callable[[redis.Redis], Iterable[str]]) -> None:
        with self._connect() as client:
            away = False
            wait_s = self._every_s
            while not self._stopped.wait(wait_s):
                began = time.monotonic()
                try:
                    for words in sweep(client):
                        logger.warning("%s", words)
                        if self._stopped.is_set():
                            return
                    away = False
                    wait_s = max(self._every_s, (time.monotonic() - began) / SHARE)
                except Exception as error:
                    # The thread must not end: nobody else looks at these deadlines.
                    if not passes(error):
                        logger.exception("the sweep of %s failed", what)
                    elif not away:
                        logger.warning("the sweep of %s failed, trying again: %s", what, error)
                    away = True
                    # A Redis that was silent for long took that time, and no work of ours.
                    wait_s = self._every_s
