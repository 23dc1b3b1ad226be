"""Which errors of Redis pass by themselves, so that what failed is worth trying again."""

from typing import Final

import redis
from kombu.exceptions import OperationalError

PASSING_CODES: Final = (
    "OOM",
    "READONLY",
    "MISCONF",
    "LOADING",
    "NOPERM",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
)
"""How the refusals begin that an operator or a failover ends: no memory, a replica, a full disk."""

LOST: Final = (redis.ConnectionError, redis.TimeoutError, OperationalError, OSError)
"""The connection is gone, or Redis does not answer."""


def passes(error: BaseException) -> bool:
    """Return whether the same command may succeed later."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LOST):
            return True
        if isinstance(
            cause,
            redis.exceptions.OutOfMemoryError
            | redis.exceptions.ReadOnlyError
            | redis.exceptions.NoPermissionError,
        ):
            return True
        # Redis 6 quotes the refusal of a command inside a script: `... -OOM command not allowed`.
        if isinstance(cause, redis.ResponseError) and any(
            str(cause).startswith(code) or f"-{code} " in str(cause) for code in PASSING_CODES
        ):
            return True
        cause = cause.__cause__
    return False
