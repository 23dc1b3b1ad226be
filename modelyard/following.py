"""How a Celery worker follows the catalog file, and tells which one it uses."""

from typing import Any

from celery.worker.control import inspect_command

from modelyard.catalog_follower import LOOK_EVERY_S, CatalogFollower

_followed: CatalogFollower | None = None


def follow(consumer: Any, follower: CatalogFollower) -> None:
    """Have a worker look at the file now and then, in its main thread.

    `consumer` is what the signal `worker_ready` is sent by.
    """
    global _followed  # noqa: PLW0603 - a process has one worker
    _followed = follower
    consumer.timer.call_repeatedly(LOOK_EVERY_S, follower.look)


# `celery -A modelyard inspect catalog`:
# https://docs.celeryq.dev/en/stable/userguide/workers.html#writing-your-own-remote-control-commands
@inspect_command()
def catalog(state: Any) -> dict[str, Any]:
    """Return which catalog this worker uses, since when, and what is wrong with a newer one."""
    return _followed.report() if _followed is not None else {}
