"""The producer's side of the peer.

It looks for results in Redis itself, so that no weakness of a client counts against the workers.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import redis
from celery import Celery
from kombu.exceptions import KombuError

from chaos.evidence import Kind
from chaos.journal import now
from chaos.peer.settings import REQUESTS, ROUTE, conf
from chaos.results import RESULT_KEY_PREFIX, kind_of

READ_AT_ONCE: Final = 500


class PeerClient:
    """Submits with `send_task` and polls for results."""

    def __init__(self, url: str) -> None:
        self._app = Celery("peer.client", set_as_current=False)
        self._app.conf.update(conf(url, 3600))
        self._redis = redis.Redis.from_url(url, socket_timeout=5.0, socket_connect_timeout=2.0)
        self._open: set[str] = set()
        self._tell: Callable[[str, Kind], None] = lambda id, kind: None

    def submit(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Submit over one producer. Raises `OSError` when Celery gives up."""
        try:
            with self._app.producer_pool.acquire(block=True) as producer:
                for id, text in zip(ids, texts, strict=True):
                    self._app.send_task(
                        ROUTE, args=[text], queue=REQUESTS, task_id=id, producer=producer
                    )
        except (redis.RedisError, KombuError) as error:
            raise OSError(repr(error)) from error

    def listen(self, ids: Iterable[str], tell: Callable[[str, Kind], None]) -> None:
        """Begin to wait for these ids."""
        self._tell = tell
        self._open.update(ids)

    def look(self, timeout_s: float) -> None:
        """Read what is there, at the pace of a patient program."""
        until = now() + timeout_s
        ids = sorted(self._open)
        for first in range(0, len(ids), READ_AT_ONCE):
            some = ids[first : first + READ_AT_ONCE]
            try:
                stored = self._redis.mget([RESULT_KEY_PREFIX + id for id in some])
            except (redis.RedisError, OSError):
                break  # the broker is away; look again
            for id, raw in zip(some, stored, strict=True):
                if raw is not None and (kind := kind_of(raw)) is not None:
                    self._open.discard(id)
                    self._tell(id, kind)
        time.sleep(max(0.0, until - now()))

    def close(self) -> None:
        """Let go of the broker."""
        self._redis.close()
        self._app.close()
