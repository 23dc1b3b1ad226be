"""Celery's events of what people do, so that Flower has a row of it like of any other call.

Events are for watching: a request has come to its end before any of them is sent.
"""

import logging
import socket
from typing import Any, Final

import redis
from kombu.exceptions import KombuError

from modelyard.app import make_app
from modelyard.inbox_item import Item
from modelyard.settings import Settings

logger = logging.getLogger("modelyard.inbox")

SILENT_S: Final = 2.0


def tell(url: str, settings: Settings, item: Item, *, end: str, **said: Any) -> bool:
    """Say that an item was received, started and came to its `end`, such as `task-succeeded`.

    `said` is what that event has beside its id. Returns
    whether it was told: a broker that is away is logged, and no error.
    """
    app = make_app("modelyard.inbox", url, settings, current=False)
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "socket_timeout": SILENT_S,
        "socket_connect_timeout": SILENT_S,
        "max_retries": 0,
    }
    task = {
        "uuid": item.id,
        # A worker's events have a message's `shadow` for the task's name, which is its queue.
        "name": item.queue,
        "args": item.summary,
        "kwargs": "{}",
        "root_id": item.id,
        "parent_id": item.parent_id,
        "retries": 0,
        "eta": None,
        "expires": None,
    }
    try:
        with (
            app,
            app.connection_for_write() as connection,
            app.events.Dispatcher(
                connection, hostname=f"inbox@{socket.gethostname()}", buffer_while_offline=False
            ) as dispatcher,
        ):
            dispatcher.send("task-received", **task)
            dispatcher.send("task-started", uuid=item.id)
            dispatcher.send(end, uuid=item.id, **said)
    except (redis.RedisError, KombuError, OSError) as error:
        logger.warning("request %s: Flower was not told: %s", item.id, error)
        return False
    return True
