"""Waiting for outcomes: one thread and one subscription, however many requests.

Workers publish the id of each outcome on the channel of the client that submitted it. A waiter
subscribes to that channel first and reads the results after, so nothing falls between the two.
It reads everything it still waits for again after a lost connection, and every `SWEEP_S` seconds
in case a notice was dropped. An id that another client submitted is heard on Celery's own channel.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

import redis

from modelyard.errors import BrokerUnavailable
from modelyard.names import RESULT_KEY_PREFIX
from modelyard.outcome import Outcome, read_outcome

logger = logging.getLogger("modelyard.waiter")

SWEEP_S = 10.0
READ_AT_ONCE = 200
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 5.0

LOST = (redis.ConnectionError, redis.TimeoutError, OSError)


class Waiter:
    """Resolves a future per id when its outcome is stored.

    A future's value is the outcome, an `Answer` or an error object; it raises only
    `BrokerUnavailable`, when there was no connection for `give_up_s` seconds, or when the waiter
    was closed.
    """

    def __init__(self, url: str, channel: str, give_up_s: float = 60.0) -> None:
        self._url = url
        self._channel = channel
        self._give_up_s = give_up_s
        self._lock = threading.Lock()
        self._futures: dict[str, Future[Outcome]] = {}
        self._foreign: set[str] = set()
        self._new: list[str] = []
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._client = redis.Redis.from_url(url, health_check_interval=25)
        self.connected = False

    def expect(self, ids: Iterable[str], *, own: bool) -> Mapping[str, "Future[Outcome]"]:
        """Return a future for each id. `own`: this waiter's channel was given as its `reply_to`."""
        with self._lock:
            if self._closed.is_set():
                raise BrokerUnavailable("the client was closed")
            wanted = {}
            for id in ids:
                future = self._futures.get(id)
                if future is None:
                    future = self._futures[id] = Future()
                    self._new.append(id)
                    if not own:
                        self._foreign.add(id)
                wanted[id] = future
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="modelyard-waiter", daemon=True
                )
                self._thread.start()
        self._wake()
        return wanted

    def close(self) -> None:
        """Stop waiting; what is still open raises `BrokerUnavailable`."""
        self._closed.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._fail_all(BrokerUnavailable("the client was closed"))
        self._client.close()

    def _wake(self) -> None:
        try:
            self._client.publish(self._channel, "")
        except LOST as error:
            # The thread is reconnecting, and reads everything when it is back.
            logger.debug("no wake-up: %s", error)

    def _run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        lost_at: float | None = None
        while not self._closed.is_set():
            try:
                with (
                    redis.Redis.from_url(self._url, health_check_interval=25) as client,
                    client.pubsub() as pubsub,
                ):
                    pubsub.subscribe(self._channel)
                    pubsub.get_message(timeout=LAST_BACKOFF_S)
                    self.connected = True
                    backoff_s, lost_at = FIRST_BACKOFF_S, None
                    self._listen(client, pubsub)
            except (*LOST, redis.ResponseError) as error:
                now = time.monotonic()
                lost_at = lost_at if lost_at is not None else now
                self.connected = False
                logger.warning("lost the broker (%s), again in %.1f s", error, backoff_s)
                if now - lost_at >= self._give_up_s:
                    self._fail_all(
                        BrokerUnavailable(f"no connection for {now - lost_at:.0f} s: {error}")
                    )
                self._closed.wait(backoff_s)
                backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)

    def _listen(self, client: redis.Redis, pubsub: Any) -> None:
        with self._lock:
            self._new = list(self._futures)
        next_sweep = time.monotonic() + SWEEP_S
        while not self._closed.is_set():
            ready = self._take_new(pubsub)
            if time.monotonic() >= next_sweep:
                with self._lock:
                    ready = list(self._futures)
                next_sweep = time.monotonic() + SWEEP_S
            if not ready:
                ready = self._heard(pubsub)
            self._read(client, pubsub, ready)

    def _take_new(self, pubsub: Any) -> list[str]:
        """Subscribe to what is new and foreign, and return what is new and can be read now."""
        with self._lock:
            new, self._new = self._new, []
            foreign = [id for id in new if id in self._foreign]
            own = [id for id in new if id not in self._foreign]
        for some in chunks(foreign):
            pubsub.subscribe(*(RESULT_KEY_PREFIX + id for id in some))
        return own

    def _heard(self, pubsub: Any) -> list[str]:
        """Return the ids that a notice came for, waiting up to a second for the first."""
        ids: list[str] = []
        timeout_s = 1.0
        while len(ids) < READ_AT_ONCE and (message := pubsub.get_message(timeout=timeout_s)):
            timeout_s = 0.0
            channel = message["channel"].decode()
            if channel != self._channel and message["type"] in {"subscribe", "message"}:
                ids.append(channel.removeprefix(RESULT_KEY_PREFIX))
            elif message["type"] == "message" and message["data"]:
                ids.append(message["data"].decode())
        return ids

    def _read(self, client: redis.Redis, pubsub: Any, ids: Sequence[str]) -> None:
        with self._lock:
            wanted = [id for id in dict.fromkeys(ids) if id in self._futures]
        for some in chunks(wanted):
            stored = client.mget([RESULT_KEY_PREFIX + id for id in some])
            done = []
            for id, raw in zip(some, stored, strict=True):
                outcome = read_outcome(raw) if raw is not None else None
                if outcome is not None:
                    self._resolve(id, outcome)
                    done.append(id)
            with self._lock:
                foreign = [id for id in done if id in self._foreign]
                self._foreign.difference_update(foreign)
            if foreign:
                pubsub.unsubscribe(*(RESULT_KEY_PREFIX + id for id in foreign))

    def _resolve(self, id: str, outcome: Outcome) -> None:
        with self._lock:
            future = self._futures.pop(id, None)
        if future is not None:
            try:
                future.set_result(outcome)
            except InvalidStateError:
                logger.debug("nobody waits for %s any more", id)

    def _fail_all(self, error: BrokerUnavailable) -> None:
        with self._lock:
            futures, self._futures = self._futures, {}
            self._foreign.clear()
        for future in futures.values():
            if not future.cancelled():
                future.set_exception(error)


def chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    """Cut into pieces that one command can name without holding Redis up."""
    return (ids[start : start + READ_AT_ONCE] for start in range(0, len(ids), READ_AT_ONCE))
