"""Who has which message: claims with leases, and the ways in which a claim ends.

A message is in exactly one place: in a queue, or in `modelyard:claims` under the name of a claim.
A worker *claims* the oldest messages of its queues, *renews* its claims while it lives, and
*settles* each of them once: acknowledged, put back, moved on to the next queue (a *hop*), spread
over several queues and joined again, or ended with an outcome. Each is one script, so whoever dies
between two commands leaves nothing half done.

A claim whose lease ran out is *taken over*: the message gets a claim of another name, and whatever
its former owner still does to the old one finds nothing. The name is the fencing token. Three
things are allowed who lost a claim: to answer a request that has no outcome yet, or as a member
that has not ended (the answer was paid for), and to acknowledge what is gone already. It can't fail
them: whoever has the message now may answer. An end that names no claim at all, like a client's
that cancels, is nobody's to lose.

Time is the server's, so the workers' clocks need not agree. Redis Cluster is not supported: a
script touches claims, queues and results at once, which lie in different hash slots.
"""

import itertools
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from modelyard.names import (
    BEHIND_KEY_PREFIX,
    CANCELLED_KEY,
    CLAIMS_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_BY_AGE_KEY,
    DEAD_LETTERS_KEY,
    DECISIONS_KEY,
    JOIN_KEY_PREFIX,
    JOINS_KEY,
    LEASES_KEY,
    REQUESTS_QUEUE,
    SUBMITTED_KEY_PREFIX,
    WAKE_KEY_PREFIX,
    in_lane,
)
from modelyard.scripts import Script
from modelyard.settlement import Ack, Back, End, Hop, Join, JoinPoint, Record, Settlement, Spread

__all__ = [
    "AT_ONCE",
    "DONE",
    "FENCED",
    "LEASE_S",
    "LOST",
    "NO_ROOM",
    "Ack",
    "Back",
    "Claimed",
    "Claims",
    "End",
    "Hop",
    "Join",
    "JoinPoint",
    "New",
    "Record",
    "Settlement",
    "Spread",
    "Want",
    "put",
    "put_args",
    "settle",
]

LEASE_S: Final = 10.0
SESSION_S: Final = 24 * 3600
"""For how many seconds it is remembered where a session was escalated to."""

AT_ONCE: Final = 1000
"""Most claims that one script touches: it holds Redis up for about as many microseconds."""

MOST_CHARS: Final = 64 * 1024 * 1024
"""About how much one script is told: Redis hangs up on who sends a gigabyte at once, and an
ensemble of five sends what it was sent six times."""

PRIORITY_STEPS: Final = (3, 6, 9)
"""Beside 0, which is the queue itself: `kombu.transport.redis.PRIORITY_STEPS`."""

PUT, CLAIM, RENEW = Script("put"), Script("claim"), Script("renew")
TAKE_OVER, SETTLE = Script("take_over"), Script("settle")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message in hand: the claim's name, where it came from, and its bytes as they were sent."""

    claim: str
    queue: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Want:
    """Up to `share` messages of a queue for certain, and `most` if others leave room."""

    queue: str
    share: int
    most: int


DONE: Final = 1
LOST: Final = 0
"""The claim was somebody else's, or gone; of an `End`: there was an outcome already; of a `Join`:
the member had ended already, or nobody waits for it."""
FENCED: Final = -3
"""Of an `End` with a dead letter or a `Join` without an answer: the claim was lost, so the failure
does not count, and the request lives on."""
NO_ROOM: Final = -1
"""The queue, or one behind it, has as much as it may: try again."""


@dataclass(frozen=True, slots=True)
class New:
    """A message to be put on a queue. `mark`: put it only once in `remember_s` seconds."""

    id: str
    message: str | bytes
    mark: str = ""
    remember_s: int = 1


class Claims:
    """The claims of one worker process, over a connection of its own. Safe to share by threads.

    `now_ms` replaces the server's clock, for tests. All methods raise `redis.RedisError`; each of
    them can be called again after an error, whatever became of the first call.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        lease_s: float = LEASE_S,
        owner: str | None = None,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._client = client
        self._lease_ms = max(1, round(1000 * lease_s))
        self.owner = owner or uuid.uuid4().hex[:12]
        self._calls = itertools.count(1)
        self._now_ms = now_ms

    def _now(self) -> int | str:
        return self._now_ms() if self._now_ms is not None else ""

    def _name(self) -> str:
        """Return what the names of the claims of one script begin with.

        The script adds the time: another object with the same owner counts from 1, too.
        """
        return f"{self.owner}:{next(self._calls)}:"

    def claim(
        self, wants: Sequence[Want], room: int, acks: Sequence[str] = ()
    ) -> tuple[list[Claimed], set[str]]:
        """Claim the oldest messages, `room` at most, and acknowledge `acks` on the way.

        Returns them, and the ids of those that are cancelled.
        """
        said = CLAIM(
            self._client,
            [
                *(CLAIMS_KEY, LEASES_KEY, CANCELLED_KEY),
                *(key for want in wants for key in (want.queue, WAKE_KEY_PREFIX + want.queue)),
            ],
            [
                *(self._now(), self._lease_ms, self._name(), len(acks), min(room, AT_ONCE)),
                *acks,
                *(number for want in wants for number in (want.share, want.most)),
            ],
        )
        claimed = [
            Claimed(said[at + 1].decode(), wants[said[at] - 1].queue, said[at + 2])
            for at in range(1, len(said), 3)
        ]
        return claimed, {id.decode(errors="replace") for id in said[0]}

    def renew(self, claims: Iterable[str]) -> list[str]:
        """Renew leases, and return the claims that are gone."""
        every, gone = list(claims), []
        for start in range(0, len(every), AT_ONCE):
            some = every[start : start + AT_ONCE]
            gone += RENEW(self._client, [LEASES_KEY], [self._now(), self._lease_ms, *some])
        return [claim.decode() for claim in gone]

    def take_over(self, most: int = 100) -> list[Claimed]:
        """Take over claims whose lease ran out; they are claims of this process then."""
        said = TAKE_OVER(
            self._client,
            [CLAIMS_KEY, LEASES_KEY, COUNTERS_KEY],
            [self._now(), self._lease_ms, self._name(), min(most, AT_ONCE)],
        )
        taken = []
        for claim, kept in zip(said[::2], said[1::2], strict=True):
            queue, _, message = kept.partition(b"\0")
            taken.append(Claimed(claim.decode(), queue.decode(), message))
        return taken

    def release_overdue(self) -> int:
        """Join the members that have ended where the others had their time; return how many."""
        (released,) = run_settle(self._client, ["overdue", self._now(), AT_ONCE])
        return released

    def server(self) -> tuple[str, float]:
        """Return which run of which server answers now, and what time it is there in seconds.

        It is another one after a restart or a failover, and its clock may have been set.
        """
        about = self._client.info("server")
        return str(about["run_id"]), int(about["server_time_usec"]) / 1e6

    def gather(self, queue: str) -> None:
        """Move what other clients put on `queue` with a priority to its end.

        kombu has a list of its own for each step of priorities. Here lanes are for urgency.
        """
        for step in PRIORITY_STEPS:
            for _ in range(AT_ONCE):
                if not self._client.lmove(f"{queue}\x06\x16{step}", queue, "RIGHT", "LEFT"):
                    break

    def settle(self, settlements: Sequence[Settlement]) -> list[int]:
        """Settle claims, and return for each `DONE`, `LOST` or `FENCED`."""
        return settle(self._client, settlements)


def settle(client: redis.Redis, settlements: Sequence[Settlement]) -> list[int]:
    """Settle claims; return for each `DONE`, `LOST` or `FENCED`. Raises `redis.RedisError`."""
    said: list[int] = []
    some: list[Any] = []
    size = 0
    for settlement in settlements:
        args = settlement.args()
        more = sum(len(arg) for arg in args if isinstance(arg, str | bytes))
        if some and size + more > MOST_CHARS:
            said += run_settle(client, some)
            some, size = [], 0
        some += args
        size += more
    return said + run_settle(client, some) if some else said


def run_settle(client: redis.Redis, operations: Sequence[Any]) -> list[int]:
    """Run the script's operations and return a number for each. Raises `redis.RedisError`."""
    said: list[int] = SETTLE(
        client,
        [
            *(CLAIMS_KEY, LEASES_KEY, DEAD_LETTERS_KEY, DEAD_LETTERS_BY_AGE_KEY, COUNTERS_KEY),
            *(BEHIND_KEY_PREFIX + in_lane(REQUESTS_QUEUE, batch=batch) for batch in (False, True)),
            *(DECISIONS_KEY, JOINS_KEY),
        ],
        [WAKE_KEY_PREFIX, JOIN_KEY_PREFIX, SESSION_S, *operations],
    )
    return said


def put(
    client: redis.Redis,
    queue: str,
    messages: Sequence[New],
    *,
    most: int = 0,
    most_dead: int = 0,
) -> list[int | str]:
    """Put messages on a queue, if it and those behind it have fewer than `most` (0: no bound).

    Returns for each `DONE`, the id that was remembered if its mark is known, or `NO_ROOM`, or -2 if
    there are `most_dead` dead letters (0: whatever there are). Raises `redis.RedisError`.
    """
    said = PUT(client, *put_args(queue, messages, most=most, most_dead=most_dead))
    return [each.decode() if isinstance(each, bytes) else each for each in said]


def put_args(
    queue: str, messages: Sequence[New], *, most: int = 0, most_dead: int = 0
) -> tuple[list[str], list[Any]]:
    """Return the keys and arguments of the script `PUT`."""
    return (
        [queue, WAKE_KEY_PREFIX + queue, DEAD_LETTERS_KEY, BEHIND_KEY_PREFIX + queue],
        [
            *(most, most_dead),
            *(
                arg
                for new in messages
                for arg in (
                    SUBMITTED_KEY_PREFIX + new.mark if new.mark else "",
                    new.id,
                    new.remember_s,
                    new.message,
                )
            ),
        ],
    )
