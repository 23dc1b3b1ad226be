"""Celery's stored results, as far as the checker must read them, and a recorder of each write.

Both systems keep Celery's format, `{"status", "result", ...}` under `celery-task-meta-ID`, and
publish each write on a channel of the key's name.
"""

import hashlib
import json
import logging
import threading
from typing import Final

import redis

from chaos.evidence import Kind
from chaos.journal import Journal
from modelyard.names import RESULT_KEY_PREFIX

__all__ = ["RESULT_KEY_PREFIX", "Recorder", "digest", "kind_of"]

log = logging.getLogger("chaos.recorder")
KINDS: Final[dict[str, Kind]] = {"SUCCESS": "answered", "FAILURE": "dead", "REVOKED": "dead"}


def kind_of(raw: bytes | str) -> Kind | None:
    """Return what a stored result is, or None if it is not terminal."""
    return KINDS.get(json.loads(raw)["status"])


def digest(raw: bytes | str) -> str:
    """Return a short name for the exact bytes of a result."""
    return hashlib.sha256(raw.encode() if isinstance(raw, str) else raw).hexdigest()[:16]


class Recorder:
    """Logs every terminal result that is published, in a thread, over its own connection."""

    def __init__(self, client: redis.Redis, journal: Journal) -> None:
        self._client = client
        self._journal = journal
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._client.pubsub() as pubsub:
                    pubsub.psubscribe(RESULT_KEY_PREFIX + "*")
                    self._listen(pubsub)
            except (redis.RedisError, OSError) as error:
                log.debug("the recorder lost Redis: %s", error)
                self._stopping.wait(0.05)

    def _listen(self, pubsub: "redis.client.PubSub") -> None:
        while not self._stopping.is_set():
            message = pubsub.get_message(timeout=0.2)
            if message is None or message["type"] != "pmessage":
                continue
            raw: bytes = message["data"]
            if (kind := kind_of(raw)) is not None:
                id = message["channel"].decode().removeprefix(RESULT_KEY_PREFIX)
                self._journal.write(kind=kind, id=id, digest=digest(raw))
