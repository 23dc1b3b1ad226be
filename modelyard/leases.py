"""The thread that keeps a worker's leases, and takes over those of workers that are gone.

It has a connection of its own: a main thread that is busy, or waits for a reply, still lives. Who
slept can't judge: when a round came late, because Redis was away or hung or this process was
stopped, the others may have been kept from renewing as well. Nor can who is new at a server: after
a failover nobody has renewed there yet. Then nothing is taken over for a whole lease, in which the
living renew.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

import redis

from modelyard.claims import Ack, Back, Claims
from modelyard.ledger import Ledger
from modelyard.names import DELIVERIES_HEADER

logger = logging.getLogger("modelyard.leases")

AGAIN: Final = 5
"""How many tries are in the time of a round while Redis is away."""

ROUNDS: Final = 3
"""How often a lease is renewed before it would run out."""

AT_ONCE: Final = 100


class Leases:
    """Renews the claims that `ledger` holds of `claims`, until it is stopped."""

    def __init__(
        self,
        claims: Claims,
        ledger: Ledger,
        lease_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._claims = claims
        self._ledger = ledger
        self._lease_s = lease_s
        self._clock = clock
        # Workers that started together do not look for the dead together.
        self._every_s = lease_s / ROUNDS * (0.8 + 0.2 * draw())
        self._judges_from = clock() + lease_s
        self._last = clock()
        self._server = ""
        self._ahead_s = 0.0
        self._away = False
        self._renewing = threading.Lock()
        self.queues: tuple[str, ...] = ()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._last = self._clock()
        self._judges_from = self._last + self._lease_s
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs: a forked child has none."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End after the round that runs."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s / AGAIN if self._away else self._every_s):
            try:
                self.round()
            except (redis.RedisError, OSError) as error:
                if not self._away:
                    logger.warning("leases can't be renewed, trying again: %s", error)
                self._away = True
            except Exception:
                # This thread must not end: every claim of this worker would be taken over.
                logger.exception("a round of the leases failed")
            else:
                if self._away:
                    logger.warning("leases are renewed again")
                self._away = False

    @property
    def fresh(self) -> bool:
        """Whether the ledger is right: a renewal began within a lease, so what it has is ours."""
        return self._clock() - self._last < self._lease_s

    def round(self) -> None:
        """Renew, acknowledge what is owed, gather, join what waited too long for its members, and
        take over what nobody renewed.

        Raises `redis.RedisError`.
        """
        self.renew()
        self.settle_acks()
        for queue in self.queues:
            self._claims.gather(queue)
        if joined := self._claims.release_overdue():
            logger.warning("%d ensembles go on without the members that are late", joined)
        if self._last >= self._judges_from:
            self.take_over()

    def renew(self) -> None:
        """Renew all claims, and let go of those that are gone. May be called from any thread.

        Raises `redis.RedisError`.
        """
        with self._renewing:
            # A lease runs from when Redis renewed it, and this process may be stopped after that.
            began = self._clock()
            gone = self._claims.renew(self._ledger.to_renew(self._claims.owner))
            server, server_s = self._claims.server()
            now = self._clock()
            late = now - self._last > 2 * self._every_s
            # A clock that was set forward makes every lease run out at once.
            set_forward = server_s - now - self._ahead_s > self._every_s
            if server != self._server or late or set_forward:
                self._judges_from = now + self._lease_s
            lost = [claim for claim in gone if self._ledger.holds(claim)]
            self._ledger.settled(gone)
            # Not before: whoever reads that the ledger is fresh would still find what is gone.
            self._server, self._last, self._ahead_s = server, began, server_s - now
        if lost:
            logger.warning(
                "%d messages were taken over by another worker: this one was not heard of "
                "for more than %.1f s",
                len(lost),
                self._lease_s,
            )

    def settle_acks(self) -> None:
        """Acknowledge what is owed. Raises `redis.RedisError`."""
        acks = self._ledger.take_acks()
        try:
            self._claims.settle([Ack(claim) for claim in acks])
        except (redis.RedisError, OSError):
            self._ledger.give_back_acks(acks)
            raise

    def take_over(self) -> None:
        """Put the messages of the dead back on their queues. Raises `redis.RedisError`."""
        while taken := self._claims.take_over(AT_ONCE):
            logger.warning("%d messages of a lost worker are put back", len(taken))
            backs = [Back(each.claim, each.queue, redelivered(each.message)) for each in taken]
            self._claims.settle(backs[::-1])  # the oldest last: it is the next to be taken
            if len(taken) < AT_ONCE:
                return


def redelivered(message: bytes, *, lost: bool = True) -> bytes:
    """Return a message marked as delivered before; `lost`: to a worker that was lost then."""
    try:
        envelope = json.loads(message)
        headers, properties = envelope["headers"], envelope["properties"]
        headers["redelivered"] = True
        properties.setdefault("delivery_info", {})["redelivered"] = True
        if lost:
            headers[DELIVERIES_HEADER] = int(headers.get(DELIVERIES_HEADER) or 0) + 1
        # ASCII: a lone surrogate, which may be what kills workers, has no other form.
        return json.dumps(envelope, separators=(",", ":")).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return message  # Whoever takes it buries it as what it is.
