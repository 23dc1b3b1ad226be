"""Settling one claim whatever Redis is doing, for tasks that run in somebody else's pool."""

import logging
import time
from typing import Final

import redis

from modelyard.claims import Settlement, settle
from modelyard.redis_errors import passes

logger = logging.getLogger("modelyard.claims")

FIRST_WAIT_S: Final = 0.1
LAST_WAIT_S: Final = 5.0


def settle_surely(client: redis.Redis, settlement: Settlement) -> int:
    """Settle, and again while Redis is away or refuses; return `DONE` or `LOST`.

    An error here would become the outcome of a request that may have been moved on already. Raises
    what will not pass.
    """
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return settle(client, [settlement])[0]
        except (redis.RedisError, OSError) as error:
            if not passes(error):
                raise
            logger.warning("Redis is away or refuses, again in %.1f s: %s", wait_s, error)
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, LAST_WAIT_S)
