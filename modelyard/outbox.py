"""Sending submissions: in chunks, each of them once, through outages and full queues.

Nothing here sleeps: a delivery says how long to pause, and its caller does so, on a thread or on
asyncio.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import redis

from modelyard.claims import NO_ROOM, put
from modelyard.connect import connect
from modelyard.errors import BrokerError, BrokerUnavailable, QueueFull
from modelyard.redis_errors import broker_error
from modelyard.submission import Submission

logger = logging.getLogger("modelyard.client")

AT_ONCE: Final = 200
AT_ONCE_CHARS: Final = 8 * 1024 * 1024
"""Most messages of one script call, and most characters in them unless it is one message."""

SENDERS: Final = 20
"""Most threads of a process that send at a time: more are no faster."""

FIRST_BACKOFF_S: Final = 0.1
LAST_BACKOFF_S: Final = 2.0

FIRST_PAUSE_S: Final = 0.02
LAST_PAUSE_S: Final = 1.0

SAID_AGAIN_S: Final = 60.0
"""How often it is logged that there still is no room."""


Chunk = list[tuple[int, Submission]]
"""Submissions to one queue, each with its position in its delivery."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Most messages in a queue, and most dead letters (0: no bound)."""

    queue: int
    dead: int


class Outbox:
    """Where submissions leave this process. Safe to share by threads.

    `patience_s` is for how long a chunk is tried while the broker is away. A Redis that hangs holds
    a try up for half of that, so that there is a second one.
    """

    def __init__(self, url: str, bounds: Bounds, patience_s: float) -> None:
        self.timeouts = dict.fromkeys(
            ("socket_timeout", "socket_connect_timeout"), max(1.0, patience_s / 2)
        )
        self.redis = connect(url, health_check_interval=25, **self.timeouts)
        self.bounds = bounds
        self.patience_s = patience_s
        self._turns = threading.BoundedSemaphore(SENDERS)

    def close(self) -> None:
        """Let go of the connections."""
        self.redis.close()

    def put(self, some: Sequence[Submission], left_s: float) -> list[int | str]:
        """Send submissions to one queue; returns what `claims.put` does. Raises `BrokerError`.

        It waits up to `left_s` seconds for other threads.
        """
        if not self._turns.acquire(timeout=left_s):
            raise BrokerUnavailable(
                f"all {SENDERS} connections of this process are in use by other threads"
            )
        try:
            return put(
                self.redis,
                some[0].queue,
                [each.new for each in some],
                most=self.bounds.queue,
                most_dead=self.bounds.dead,
            )
        except (redis.RedisError, OSError) as error:
            raise broker_error(error) from error
        finally:
            self._turns.release()


class Delivery:
    """Submissions on their way: call `step` until it returns None.

    `wait_s` is for how many seconds it waits for room in all; None: for as long as it takes. What
    was accepted is not sent again, and not kept.
    """

    def __init__(
        self,
        outbox: Outbox,
        every: Sequence[Submission],
        wait_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._outbox = outbox
        self._wait_s = wait_s
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads waiting producers, keeps no secret
        self._sent = [each.new.id for each in every]
        self._first = list(self._sent)
        self._known = bytearray(len(every))
        self._accepted = 0
        self._chunks = chunks(every)
        self._give_up: float | None = None
        self._backoff_s = FIRST_BACKOFF_S
        self._pause_s = FIRST_PAUSE_S
        self._waited_s = 0.0
        self._said_s: float | None = None

    def accepted_as(self) -> Iterator[tuple[str, str, bool]]:
        """Return for each submission its id, the id under which it was accepted, and if by now.

        The second is another one if a submission with the same mark was accepted before. The third
        is whether any was: this one, at a try whose reply was lost, or another.
        """
        return zip(self._sent, self._first, map(bool, self._known), strict=True)

    def step(self) -> float | None:
        """Send until all are accepted (None), or until there is a pause to make, in seconds.

        Raises `QueueFull`, or `BrokerError` after the outbox's patience.
        """
        while self._chunks:
            now = self._clock()
            if self._give_up is None:
                self._give_up = now + self._outbox.patience_s
            chunk = self._chunks[0]
            try:
                said = self._outbox.put([each for _, each in chunk], max(0.0, self._give_up - now))
            except BrokerUnavailable as error:
                if self._clock() + self._backoff_s > self._give_up:
                    raise self._with_count(error) from error
                backoff_s, self._backoff_s = (
                    self._backoff_s,
                    min(2 * self._backoff_s, LAST_BACKOFF_S),
                )
                return backoff_s
            except BrokerError as error:
                raise self._with_count(error) from error
            self._give_up, self._backoff_s = None, FIRST_BACKOFF_S
            refused = self._take(chunk, said)
            if not refused:
                self._chunks.popleft()
                continue
            if len(refused) < len(chunk):
                self._pause_s = FIRST_PAUSE_S
            self._chunks[0] = refused
            return self._pause(refused[0][1].queue, said)
        return None

    def _take(self, chunk: Chunk, said: Sequence[int | str]) -> Chunk:
        """Note what was accepted, and return what was not."""
        refused = []
        for (at, each), answer in zip(chunk, said, strict=True):
            if isinstance(answer, str):
                self._first[at], self._known[at] = answer, True
            elif answer < 0:
                refused.append((at, each))
        self._accepted += len(chunk) - len(refused)
        return refused

    def _pause(self, queue: str, said: Sequence[int | str]) -> float:
        """Return how long to wait for room. Raises `QueueFull` if it was waited for long enough."""
        why = full(queue, self._outbox.bounds, dead=NO_ROOM not in said)
        left_s = None if self._wait_s is None else self._wait_s - self._waited_s
        if left_s is not None and left_s <= 0:
            waited = f" within {self._wait_s:g} s" if self._wait_s else ""
            raise QueueFull(
                f"{why}; {self._accepted:,} of {len(self._sent):,} requests were accepted{waited}: "
                "submit the rest later under the same ids, or give a longer wait_s",
                self._accepted,
                len(self._sent),
            )
        if self._said_s is None or self._waited_s - self._said_s >= SAID_AGAIN_S:
            self._said_s = self._waited_s
            logger.warning(
                "%s: waiting for room, %d of %d requests are accepted",
                *(why, self._accepted, len(self._sent)),
            )
        # All that wait for room would come back at the same moment.
        pause_s = self._pause_s * self._rng.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        pause_s = pause_s if left_s is None else min(pause_s, left_s)
        self._waited_s += pause_s
        return pause_s

    def _with_count(self, error: BrokerError) -> BrokerError:
        """Return the error, with how many requests were accepted before it."""
        if len(self._sent) == 1:
            return error
        return type(error)(
            f"{error}; {self._accepted:,} of {len(self._sent):,} requests were accepted"
        )


def chunks(every: Sequence[Submission]) -> deque[Chunk]:
    """Return what is sent together, with its position; the interactive lane goes first."""
    by_queue: dict[str, list[Chunk]] = {}
    size = dict.fromkeys({each.queue for each in every}, 0)
    for at, each in enumerate(every):
        parts = by_queue.setdefault(each.queue, [[]])
        size[each.queue] += len(each.new.message)
        if parts[-1] and (len(parts[-1]) == AT_ONCE or size[each.queue] > AT_ONCE_CHARS):
            parts.append([])
            size[each.queue] = len(each.new.message)
        parts[-1].append((at, each))
    # The name of a batch lane is the longer one.
    return deque(part for queue in sorted(by_queue, key=len) for part in by_queue[queue])


def full(queue: str, bounds: Bounds, *, dead: bool) -> str:
    """Return which bound is reached, and what makes room."""
    if dead:
        return (
            f"there are {bounds.dead:,} dead letters, as many as may be "
            "(MODELYARD_DEAD_LETTER_LIMIT): replay or drop some (`modelyard dead list`)"
        )
    return (
        f"the queue {queue!r}, or a model's queue behind it, has {bounds.queue:,} requests, as "
        "many as it may (MODELYARD_QUEUE_LIMIT): more workers make room sooner (`modelyard models`)"
    )
