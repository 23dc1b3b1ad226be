"""Which requests with deadlines wait in queues, as far as that is known without reading all of it.

The next messages of a queue are looked at, and some of the rest, evenly spread over it: what is
looked at moves on as the queue does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import redis

from modelyard.scripts import Script

QUEUE_DUE: Final = Script("queue_due")

NEXT: Final = 16
SPREAD: Final = 16
"""How many messages of a queue are looked at: of the next ones, and of the rest."""

MOST_BYTES: Final = 1 << 20
"""Of long messages fewer are. Each queue holds Redis up for less than two milliseconds, and for
longer where one message has more bytes than this: 6 ms for 4 MB, 23 to 50 for 8 MB.
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits, how many of its queue are taken before it, and its deadline in seconds
    since the epoch.
    """

    before: int
    deadline: float


def read_due(client: redis.Redis, queues: Sequence[str]) -> list[tuple[Waiting, ...]]:
    """Return for each queue those with a deadline that were looked at. Raises `RedisError`."""
    if not queues:
        return []
    said: list[list[int | bytes]] = QUEUE_DUE(client, queues, [NEXT, SPREAD, MOST_BYTES])
    return [
        tuple(
            Waiting(int(before), float(deadline))
            for before, deadline in zip(found[::2], found[1::2], strict=True)
        )
        for found in said
    ]
