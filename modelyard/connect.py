"""Connections to Redis for what goes beside Celery: claims, outcomes, dead letters, health."""

from typing import Any

import redis

from modelyard.sentinel import address_pool, demoted, is_sentinel, parse


class Leaving:
    """A connection that leaves a server which can't be written to, and says so as ever.

    At the address there may be another one by now: behind a proxy, a service of Kubernetes, a
    name or an address that moves.
    """

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except redis.ResponseError as error:
            if demoted(error):
                self.disconnect()  # type: ignore[attr-defined]
            raise


class Connection(Leaving, redis.Connection):
    """To `redis://`."""


class SSLConnection(Leaving, redis.SSLConnection):
    """To `rediss://`."""


def connect(url: str, **options: Any) -> redis.Redis:
    """Return a client of the Redis at `url`; nothing is sent yet. `options` are redis-py's.

    With `sentinel://` it is the master that the sentinels name, whoever that is at a time. Raises
    `ValueError` or `SettingsError` for what is no address.
    """
    if is_sentinel(url):
        return redis.Redis.from_pool(address_pool(parse(url), **options))
    kind = SSLConnection if url.startswith("rediss://") else Connection
    return redis.Redis.from_url(url, connection_class=kind, **options)
