"""Ends what waits where no worker looks and can't be answered any more: what expired, or was
cancelled.

A queue of people has no worker that would look at deadlines, and neither has one that is stranded
(`router_worker.stranded`), so routers do, in a thread. Several routers may sweep at once, as each
item is claimed first.
"""

import logging
import threading
import time
from collections.abc import Callable
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
    """Sweeps the inbox of `models` in a thread, and what is stranded, until it is stopped."""

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
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if there is anything to look at."""
        if self._thread is None and (self._models or self._stranded):
            self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
            self._thread = None

    def _run(self) -> None:
        with self._connect() as client:
            inbox = Inbox(client, self._models, self._settings)
            away = False
            wait_s = self._every_s
            while not self._stopped.wait(wait_s):
                began = time.monotonic()
                try:
                    for words in inbox.sweep():
                        logger.warning("%s", words)
                    if self._stranded is not None:
                        for words in self._stranded.sweep(client):
                            logger.warning("%s", words)
                    away = False
                    wait_s = max(self._every_s, (time.monotonic() - began) / SHARE)
                except Exception as error:
                    # The thread must not end: nobody else looks at these deadlines.
                    if not passes(error):
                        logger.exception("the inbox can't be swept")
                    elif not away:
                        logger.warning("the inbox can't be swept, trying again: %s", error)
                    away = True
                    # A Redis that was silent for long took that time, and no work of ours.
                    wait_s = self._every_s
