"""When a task message expires, as Celery writes it."""

from datetime import UTC, datetime


def expiry(expires: object) -> float | None:
    """Return a task message's expiry in seconds since the epoch. One that is none is ignored."""
    if isinstance(expires, str):
        try:
            expires = datetime.fromisoformat(expires)
        except ValueError:
            return None
    if not isinstance(expires, datetime):
        return None
    return (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp()
