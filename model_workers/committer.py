"""Group commit: one thread that settles what has ended, all of it at once.

While one script is on its way to Redis and back, more calls end; they go with the next. So the
busier a pool is, the fewer round trips a request costs.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelyard.claims import Settlement
from modelyard.redis_errors import passes

logger = logging.getLogger("modelyard.calls")

FIRST_WAIT_S = 0.05
LAST_WAIT_S = 2.0
AT_ONCE = 200

NEVER = -2
"""Stands for what can't be settled."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A settlement, and who is told what came of it: `DONE`, `LOST`, or None if it was given up."""

    settlement: Settlement
    done: Callable[[int | None], None]


class Committer:
    """Settles what it is given, in order, through `settle`.

    It tries again while Redis is away or refuses, until it is closed: what it holds was paid for.
    """

    def __init__(self, settle: Callable[[Sequence[Settlement]], list[int]]) -> None:
        self._settle = settle
        self._lock = threading.Condition()
        self._pending: list[Pending] = []
        self._busy = False
        self._closing = False
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, pending: Pending) -> None:
        """Settle this soon. May be called from any thread."""
        with self._lock:
            self._pending.append(pending)
            if not self._busy:
                self._lock.notify()

    def close(self, timeout_s: float) -> None:
        """Settle what there is, for `timeout_s` seconds at most; the rest is given up."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
            self._give_up.set()
            self._thread.join(timeout_s + LAST_WAIT_S)

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._pending and not self._closing:
                    self._busy = False
                    self._lock.wait()
                self._busy = True
                some, self._pending = self._pending[:AT_ONCE], self._pending[AT_ONCE:]
                if not some:
                    return
            self._commit(some)

    def _commit(self, some: Sequence[Pending]) -> None:
        said = self._settled([pending.settlement for pending in some])
        for at, pending in enumerate(some):
            result = said[at] if said is not None else NEVER
            self._tell(pending, None if result == NEVER else result)

    def _tell(self, pending: Pending, result: int | None) -> None:
        try:
            pending.done(result)
        except Exception:
            # It is settled, whoever can't hear it; and the others wait behind it.
            logger.exception("%s: what follows its end failed", pending.settlement.claim)

    def _one_by_one(self, settlements: Sequence[Settlement]) -> list[int] | None:
        """Settle each alone, as one of them can't be: it must not hold up the others."""
        if len(settlements) > 1:
            return [result for each in settlements for result in (self._settled([each]) or [NEVER])]
        logger.exception("%s: its outcome can't be stored", settlements[0].claim)
        return None

    def _settled(self, settlements: Sequence[Settlement]) -> list[int] | None:
        """Return what Redis said, or None after giving up."""
        wait_s = FIRST_WAIT_S
        lost_at: float | None = None
        while True:
            try:
                said = self._settle(settlements)
            except Exception as error:  # noqa: BLE001 - logged, or tried again
                # This thread must not end: nothing would be stored any more, and nobody told.
                if not passes(error):
                    return self._one_by_one(settlements)
                if lost_at is None:
                    lost_at = time.monotonic()
                    logger.warning("outcomes wait for Redis: %s", error)
                if self._give_up.wait(wait_s):
                    logger.error(
                        "Redis is away and %d outcomes could not be stored: these requests run "
                        "again: %s",
                        len(settlements),
                        ", ".join(each.claim for each in settlements),
                    )
                    return None
                wait_s = min(2 * wait_s, LAST_WAIT_S)
            else:
                if lost_at is not None:
                    logger.warning("Redis takes outcomes again")
                return said
