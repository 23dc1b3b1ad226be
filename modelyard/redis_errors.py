"""Errors of Redis: which of them pass by themselves, and what they are called here."""

from typing import Final

import redis
from kombu.exceptions import OperationalError

from modelyard.errors import BrokerError, BrokerFull, BrokerUnavailable

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

AWAY_CODES: Final = (
    "READONLY",
    "LOADING",
    "MISCONF",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "BUSY ",
)
"""What a producer takes for a broker that is away: it starts, fails over or can't save just now."""


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


def broker_error(error: BaseException) -> BrokerError:
    """Return the error of a failed command in modelyard's words, or in Redis's if it refused."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, redis.ConnectionError | redis.TimeoutError):
        if isinstance(cause, redis.ResponseError):
            return refusal(cause)
        cause = cause.__cause__ or cause.__context__
    return BrokerUnavailable(f"can't reach the broker: {error.__cause__ or error}")


def refusal(error: redis.ResponseError) -> BrokerError:
    """Return the error of a command that Redis refused: for ever, or for as long as it is so."""
    # Before Redis's words redis-py has the command, and for some errors it cuts their code off.
    words = str(error).rpartition(" caused error: ")[2]
    if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM " in words:
        return BrokerFull("Redis has no memory left (maxmemory): it did not take this")
    away = isinstance(
        error,
        redis.exceptions.ReadOnlyError
        | redis.exceptions.ClusterDownError
        | redis.exceptions.TryAgainError,
    ) or any(code in words for code in AWAY_CODES)
    kind = BrokerUnavailable if away else BrokerError
    return kind(f"the broker refused it: {words}")
