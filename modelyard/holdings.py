"""What this process holds of the brokers' messages, and the threads that keep its leases."""

import logging
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelyard.claims import Claims
from modelyard.leases import Leases
from modelyard.ledger import Ledger

logger = logging.getLogger("modelyard.leases")

CONNECT_TIMEOUT_S: Final = 5.0

MIN_ANSWER_S: Final = 0.25

EXIT_S: Final = 3.0
"""How long a process that ends tries to acknowledge what it owes, in seconds."""

ledger = Ledger()
"""What this process holds."""

owner: Final = uuid.uuid4().hex[:12]
"""What the names of this process's claims begin with."""

_leases: dict[tuple[int, str], Leases] = {}
"""The thread for each broker that this process consumes from, by process id and address."""


LONGEST_PAUSE_S: Final = 5.0
"""A pause is over after so many seconds, however long a wait was asked for: what is behind in the
queue may have a deadline, may be cancelled, or may go elsewhere."""

_paused: dict[str, float] = {}
"""Queues that this process takes nothing from, and until when, by `time.monotonic`."""


def pause(queue: str, wait_s: float) -> None:
    """Take nothing from `queue` for `wait_s` seconds: what is in it could not be done."""
    until = time.monotonic() + min(wait_s, LONGEST_PAUSE_S)
    _paused[queue] = max(until, _paused.get(queue, 0.0))


def paused(queues: Iterable[str]) -> set[str]:
    """Return which of the queues are paused."""
    if not _paused:
        return set()
    now = time.monotonic()
    for queue, until in tuple(_paused.items()):
        if until <= now:
            _paused.pop(queue, None)
    return {queue for queue in queues if queue in _paused}


def owner_at(address: str) -> str:
    """Return what the names of this process's claims at one broker begin with."""
    return f"{owner}{zlib.crc32(address.encode()):08x}"


def keep_leases(
    address: str, make_pool: Callable[[], Any], lease_s: float, queues: Iterable[str]
) -> None:
    """Keep the leases of this process at the broker at `address`, from now on.

    `make_pool` returns a redis-py connection pool of the thread's own; `queues` are consumed.
    """
    key = os.getpid(), address
    running = _leases.get(key)
    if running is not None and running.alive:
        running.queues = tuple(queues)
        return
    pool = make_pool()
    # A connection that fell silent must be given up while there is time for another one.
    answer_s = max(MIN_ANSWER_S, lease_s / 6)
    pool.connection_kwargs.update(
        socket_timeout=answer_s,
        socket_connect_timeout=min(answer_s, CONNECT_TIMEOUT_S),
        retry=Retry(NoBackoff(), 0),
    )
    claims = Claims(redis.Redis(connection_pool=pool), lease_s=lease_s, owner=owner_at(address))
    _leases[key] = Leases(claims, ledger, lease_s)
    _leases[key].queues = tuple(queues)
    _leases[key].start()


def made_here(claim: str) -> bool:
    """Return whether this very process made the claim: a forked child did not."""
    pid = os.getpid()
    return claim.startswith(owner) and any(of == pid for of, _ in _leases)


def fresh() -> bool:
    """Return whether what the ledger says is true: the leases were renewed within a lease."""
    pid = os.getpid()
    return all(leases.fresh for (of, _), leases in _leases.items() if of == pid)


def confirm() -> None:
    """Renew the leases now, so that the ledger knows what is still ours.

    For who may have slept for longer than a lease: before a call is made that is paid for. Raises
    `redis.RedisError` while Redis is away.
    """
    pid = os.getpid()
    for (of, _), leases in tuple(_leases.items()):
        if of == pid:
            leases.renew()


def settle_at_exit() -> None:
    """Acknowledge what a process that ends still owes; what it holds beyond that is taken over."""
    for leases in _leases.values():
        leases.stop()
        deadline = time.monotonic() + EXIT_S
        while ledger.owes and time.monotonic() < deadline:
            try:
                leases.settle_acks()
            except (redis.RedisError, OSError) as error:
                logger.warning("Redis is away: %s", error)
                time.sleep(0.2)
    if ledger.owes:
        logger.warning("%d acks are lost: these messages run again", len(ledger.take_acks()))
