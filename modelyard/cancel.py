"""Cancelling a request, wherever it is: in a queue, in a worker's hands, or in a call."""

import logging
import threading
from collections.abc import Mapping
from typing import Any

import redis
from kombu.exceptions import KombuError

from modelyard.claims import DONE, settle
from modelyard.endings import cancelled
from modelyard.errors import RequestRevoked
from modelyard.names import CANCELLED_KEY
from modelyard.outcome import read_outcome
from modelyard.settings import Settings

logger = logging.getLogger("modelyard.client")


def cancel(client: redis.Redis, id: str, *, channel: str, ttl_s: int, now: float) -> bool:
    """Let "cancelled" be the outcome of a request; False if it has an outcome already.

    Workers that have its message, or will have it, find its id under `CANCELLED_KEY` for `ttl_s`
    seconds. Safe to call again with the same `now` after an error. Raises `redis.RedisError`.
    """
    end = cancelled(id, claim="", ttl_s=ttl_s, channel=channel, now=now)
    won = settle(client, [end]) == [DONE]
    # Not before: an id that is listed here and has another outcome could not be replayed. But an
    # earlier try may have come to its end between the two.
    if won or isinstance(read_outcome(client.get(end.key) or b"", id), RequestRevoked):
        client.zadd(CANCELLED_KEY, {id: now + ttl_s})
    return won


class Broadcast:
    """Celery's remote control, for what runs at this moment. Made when it is first needed.

    `timeouts` are redis-py's, in seconds.
    """

    def __init__(self, url: str, settings: Settings, timeouts: Mapping[str, float]) -> None:
        self._url = url
        self._settings = settings
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._app: Any = None

    def _made(self) -> Any:
        with self._lock:
            if self._app is None:
                # Most programs cancel nothing, and do without Celery.
                from modelyard.app import make_app  # noqa: PLC0415

                app = make_app("modelyard.client", self._url, self._settings, current=False)
                app.conf.broker_transport_options = {
                    **app.conf.broker_transport_options,
                    **self._timeouts,
                    "max_retries": 0,
                }
                self._app = app
            return self._app

    def revoke(self, id: str) -> None:
        """Have the worker that runs this request stop it. Nobody may run it: no reply is awaited.

        An error is logged: the outcome stands, and a call that goes on changes nothing of it.
        """
        app = self._made()
        try:
            # A connection of its own: Celery's pool waits for one without a limit, and knows
            # nothing of a Redis that was restarted since.
            with app.connection_for_write() as connection:
                app.control.revoke(id, terminate=True, connection=connection)
        except (redis.RedisError, KombuError, OSError) as error:
            logger.warning("request %s is cancelled, but may be called still: %s", id, error)

    def close(self) -> None:
        """Let go of the app."""
        with self._lock:
            if self._app is not None:
                self._app.close()
                self._app = None
