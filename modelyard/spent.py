"""Reading what the requests of a day have cost."""

import contextlib

import redis

from modelyard.budgets import spent_key


def spent_usd(client: redis.Redis, now: float) -> dict[str, float]:
    """Return what was spent on the day of `now`, by the budgets' labels. Raises `RedisError`.

    A sum that can't be read, which nobody here wrote, counts as nothing.
    """
    sums: dict[bytes, bytes] = client.hgetall(spent_key(now))  # type: ignore[assignment]
    found = {}
    for label, nano_usd in sums.items():
        with contextlib.suppress(ValueError):
            found[label.decode("utf-8", "replace")] = int(nano_usd) / 1e9
    return found
