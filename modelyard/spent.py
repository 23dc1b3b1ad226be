"""Reading what the requests of a day have cost."""

import redis

from modelyard.budgets import spent_key


def spent_usd(client: redis.Redis, now: float) -> dict[str, float]:
    """Return what was spent on the day of `now`, by the budgets' labels. Raises `RedisError`."""
    sums: dict[bytes, bytes] = client.hgetall(spent_key(now))  # type: ignore[assignment]
    return {label.decode(): int(nano_usd) / 1e9 for label, nano_usd in sums.items()}
