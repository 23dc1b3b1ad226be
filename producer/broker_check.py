"""Whether a broker that was given answers, before anything is started that needs it."""

import time
from collections.abc import Callable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelyard.connect import connect
from modelyard.errors import BrokerUnavailable, SettingsError
from modelyard.snapshot import shown

ANSWER_S = 2.0
"""How long one question may take before it is asked again, in seconds."""
RETRY_S = 0.2


def wait_for_broker(
    url: str,
    *,
    wait_s: float,
    cancelled: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when the Redis at `url` answers, or when the wait is `cancelled`.

    Raises `BrokerUnavailable` after `wait_s`, and `SettingsError` for what is no Redis address.
    """
    try:
        client = connect(
            url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        # Without what it is: it may hold a password.
        raise SettingsError(
            "MODELYARD_BROKER_URL is no Redis address such as redis://[:password@]host:6379/0"
        ) from error
    address = shown(url)  # its password is for the broker and not for the terminal
    deadline = clock() + wait_s
    with client:
        while not cancelled():
            try:
                client.ping()
            except (redis.RedisError, OSError) as error:
                if clock() >= deadline:
                    why = str(error).rstrip(".")
                    raise BrokerUnavailable(
                        f"the broker at {address} (MODELYARD_BROKER_URL) does not answer: {why}. "
                        "Start it or correct the address, or unset the variable: then a Redis is "
                        "started here"
                    ) from error
                time.sleep(RETRY_S)
            else:
                return
