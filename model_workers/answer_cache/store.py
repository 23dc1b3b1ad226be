"""The answer cache in Redis. Each function is one round trip; none raises.

One key is all there is of an answer: while somebody has it made it holds a lease, which runs out
unless it is renewed, and afterwards the answer itself. So taking the lease, seeing whose it is and
finding the answer are the same two commands.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from model_workers.answer_cache.entry import Entry, Kept, decode, encode
from model_workers.answer_cache.prompts import ENTRIES, Floats, Group
from model_workers.redis_threads import RedisThreads
from modelyard.connect import connect
from modelyard.messages import Draft
from modelyard.names import CACHED_KEY_PREFIX, CACHED_PROMPTS_KEY_PREFIX
from modelyard.scripts import Script

logger = logging.getLogger("modelyard.cache")

SLOW_S: Final = 1.0
"""A Redis that takes longer is not waited for."""

AWAY_S: Final = 5.0
"""For how long it is not asked again after that."""

LEASE: Final = "lease:"
LEASES: Final = Script("answer_lease")

T = TypeVar("T")


def open_cache(url: str) -> redis.Redis:
    """Return a client that gives up soon; nothing is sent yet."""
    return connect(
        url,
        socket_timeout=SLOW_S,
        socket_connect_timeout=SLOW_S,
        # Once more, for a connection that was closed while nobody used it.
        retry=Retry(NoBackoff(), 1),
    )


class Store:
    """What all workers keep together. While Redis is slow or away there is nothing in it.

    `connect` opens the client that it uses, in threads of its own. `clock` is in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        *,
        lease_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease_s = lease_s
        self._redis = RedisThreads(connect, "answer-cache", threads=4)
        self._clock = clock
        self._failed_at = -math.inf

    async def take(self, key: str, id: str) -> Kept | str | None:
        """Return the answer, or for whose request it is made: for `id` from now on, if for none.

        None while Redis is away.
        """
        ms = max(1, round(1000 * self.lease_s))

        def act(client: redis.Redis) -> bytes | None:
            with client.pipeline(transaction=True) as pipe:
                pipe.set(CACHED_KEY_PREFIX + key, LEASE + id, nx=True, px=ms)
                pipe.get(CACHED_KEY_PREFIX + key)
                value: bytes | None = pipe.execute()[1]
                return value

        value = await self._ask(act, None)
        if value is None:
            return None
        text = value.decode("utf-8", "replace")
        # What can't be read is left to its end, and not waited for: it is as if nothing was there.
        return text.removeprefix(LEASE) if text.startswith(LEASE) else decode(value)

    async def find(self, key: str) -> Kept | None:
        """Return the answer that is kept under a key."""
        value: Any = await self._ask(lambda client: client.get(CACHED_KEY_PREFIX + key), None)
        return None if value is None else decode(value)

    async def renew(self, leases: Mapping[str, str]) -> None:
        """Renew leases, by key and id. One that is gone by now is not taken again."""
        await self._lease(leases, self.lease_s)

    async def let_go(self, key: str, id: str) -> None:
        """Give a lease back: nobody makes this answer."""
        await self._lease({key: id}, 0.0)

    async def _lease(self, leases: Mapping[str, str], lease_s: float) -> None:
        keys = [CACHED_KEY_PREFIX + key for key in leases]
        args = [round(1000 * lease_s), *(LEASE + id for id in leases.values())]
        await self._ask(lambda client: LEASES(client, keys, args), None)

    async def put(self, entry: Entry, id: str, draft: Draft, vector: Floats | None = None) -> None:
        """Keep an answer that was given to request `id`, and the vector of its prompt."""

        def act(client: redis.Redis) -> None:
            with client.pipeline(transaction=False) as pipe:
                pipe.set(CACHED_KEY_PREFIX + entry.key, encode(id, draft), ex=entry.ttl_s)
                if entry.likeness is not None and vector is not None:
                    stream = CACHED_PROMPTS_KEY_PREFIX + entry.likeness.group
                    fields = {"k": entry.key, "v": vector.astype("<f4").tobytes()}
                    pipe.xadd(stream, fields, maxlen=ENTRIES, approximate=True)  # type: ignore[arg-type]
                    pipe.expire(stream, entry.ttl_s)
                pipe.execute()

        await self._ask(act, None)

    async def read(self, name: str, group: Group) -> None:
        """Add what is new in a group's stream."""
        stream = CACHED_PROMPTS_KEY_PREFIX + name
        first = f"({group.last}"
        rows: Any = await self._ask(lambda client: client.xrange(stream, first, "+"), [])
        for id, fields in rows:
            try:
                key, vector = fields[b"k"].decode(), np.frombuffer(fields[b"v"], "<f4")
            except (KeyError, ValueError):
                continue  # no worker of this version wrote it
            finally:
                group.last = id.decode()
            group.add(key, vector)

    async def _ask(self, act: Callable[[redis.Redis], T], otherwise: T) -> T:
        """Return what `act` does, in a thread; `otherwise` while Redis is slow or away."""
        if self._clock() - self._failed_at < AWAY_S:
            return otherwise
        try:
            return await self._redis.run(act)
        except (redis.RedisError, OSError) as error:
            if self._clock() - self._failed_at >= AWAY_S:
                logger.warning("the answer cache is left alone for %g s: %s", AWAY_S, error)
            self._failed_at = self._clock()
            return otherwise

    async def aclose(self) -> None:
        """Let go of threads and connections; they are made again when they are needed."""
        # What was begun, such as giving a lease back, is done.
        await self._redis.aclose()
