"""What was spent today, as the router knows it: read from Redis once a second at most."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import redis

from modelyard.catalog import Catalog
from modelyard.redis_errors import passes
from modelyard.spent import spent_usd
from router_worker.knowledge import Knowledge

logger = logging.getLogger("modelyard.router")

EVERY_S: Final = 1.0


class Spending:
    """What was spent today. Not for threads. `clock` is in seconds since the epoch."""

    def __init__(
        self,
        catalog: Catalog,
        connect: Callable[[], redis.Redis],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._is_needed = bool(catalog.budgets)
        self._connect = connect
        self._clock = clock
        self._client: redis.Redis | None = None
        self._read_at = -math.inf
        self._spent: Mapping[str, float] = {}

    def added(self, knowledge: Knowledge) -> Knowledge:
        """Return the knowledge with what was spent; without budgets nothing is read."""
        if not self._is_needed:
            return knowledge
        now = self._clock()
        # Beyond both: a clock that was set back.
        if not 0.0 <= now - self._read_at < EVERY_S:
            self._read_at = now
            self._read(now)
        return replace(knowledge, spent_usd=self._spent)

    def _read(self, now: float) -> None:
        try:
            if self._client is None:
                self._client = self._connect()
            self._spent = spent_usd(self._client, now)
        except (redis.RedisError, OSError) as error:
            # Routing needs Redis anyway; what was known a second ago will do until it is there.
            if not passes(error):
                raise
            logger.warning("what was spent can't be read, trying again: %s", error)
