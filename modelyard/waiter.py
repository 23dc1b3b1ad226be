"""Waiting for outcomes: one thread and one subscription, however many requests.

Workers publish the ids of outcomes, each with its result if that is short, on the channel of the
client that submitted them (`modelyard/lua/settle.lua`). A waiter subscribes to that channel first
and reads the results after, so nothing falls between the two. It reads everything it still waits
for again after a lost connection, and from time to time (`SWEEP_S`) in case a notice was dropped.
An id that another client submitted is heard on Celery's own channel. Only the thread talks to
Redis: who asks it for something waits for no socket.
"""

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from multiprocessing.connection import wait
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelyard.connect import connect
from modelyard.errors import BrokerUnavailable
from modelyard.expected import ANSWERED, Expected, arrived
from modelyard.names import RESULT_KEY_PREFIX
from modelyard.outcome import Outcome

logger = logging.getLogger("modelyard.waiter")

SWEEP_S = 10.0
SWEEP_AT_ONCE = 20_000
"""A sweep reads so many ids, and the next one goes on from there."""
LOOK_S = 0.5
LISTEN_S = 1.0
SOCKET_TIMEOUT_S = 5.0
READ_AT_ONCE = 200
PAUSE_S = 0.002
"""How long notices may gather, for a waiter that waits for `MANY` and heard of few."""
MANY = 64
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 5.0

LOST = (redis.ConnectionError, redis.TimeoutError, OSError)


class Bell:
    """Wakes the one thread that waits for a socket, at once and without asking Redis."""

    def __init__(self) -> None:
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)

    def ring(self) -> None:
        """Wake the thread, or let its next wait end at once."""
        try:
            self._rung.send(b"!")
        except OSError as error:
            logger.debug("it rings already, or nobody listens: %s", error)

    def wait(self, other: socket.socket, timeout_s: float) -> None:
        """Return when it rings, when `other` has something to read, or after `timeout_s`."""
        if self._heard in wait([other, self._heard], timeout_s):
            self._heard.recv(4096)

    def close(self) -> None:
        """Let go of both ends, in this process."""
        self._heard.close()
        self._rung.close()


class Waiter:
    """Settles an `Expected` per id when its outcome is stored.

    It is settled with `BrokerUnavailable` when there was no connection for `give_up_s` seconds, or
    when the waiter was closed.
    """

    def __init__(self, url: str, channel: str, give_up_s: float = 60.0) -> None:
        self._url = url
        self._channel = channel
        self._give_up_s = give_up_s
        self._lock = threading.Lock()
        self._expected: dict[str, Expected] = {}
        self._foreign: set[str] = set()
        self._new: list[tuple[str, float]] = []
        self._soon: deque[tuple[float, str]] = deque()
        self._looks: list[tuple[Sequence[str], threading.Event]] = []
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._bell: Bell | None = None
        self.connected = False

    def expect(
        self, ids: Iterable[str], *, own: bool, read_at: float = 0.0
    ) -> Mapping[str, Expected]:
        """Return what is expected per id. `own`: this waiter's channel was given as `reply_to`.

        Own results that are not heard of are read at `read_at`, by `time.monotonic`.
        """
        with self._lock:
            if self._closed.is_set():
                raise BrokerUnavailable("the client was closed")
            wanted = {}
            for id in ids:
                expected = self._expected.get(id)
                if expected is None:
                    expected = self._expected[id] = Expected()
                    self._new.append((id, read_at))
                    if not own:
                        self._foreign.add(id)
                wanted[id] = expected
            bell = self._bell
            if bell is None or self._thread is None or not self._thread.is_alive():
                bell = self._bell = Bell()
                self._thread = threading.Thread(
                    target=self._run, args=(bell,), name="modelyard-waiter", daemon=True
                )
                self._thread.start()
        bell.ring()
        return wanted

    def look(self, ids: Sequence[str]) -> None:
        """Have these read from the store now, if it is there to be read within `LOOK_S` seconds.

        For a last look before giving up: the notice of an outcome may be lost, or never sent.
        """
        seen = threading.Event()
        with self._lock:
            bell = self._bell
            if bell is None or not self.connected:
                return
            self._looks.append((ids, seen))
        bell.ring()
        seen.wait(LOOK_S)

    def close(self) -> None:
        """Stop waiting; what is still open raises `BrokerUnavailable`."""
        self._closed.set()
        if self._bell is not None:
            self._bell.ring()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._fail_all(BrokerUnavailable("the client was closed"))

    def abandon(self) -> None:
        """Let go of what is the parent's, in a child process that was forked: it has no thread."""
        if self._bell is not None:
            self._bell.close()

    def _run(self, bell: Bell) -> None:
        backoff_s = FIRST_BACKOFF_S
        lost_at: float | None = None
        try:
            while not self._closed.is_set():
                try:
                    with self._connect() as client, client.pubsub() as pubsub:
                        pubsub.subscribe(self._channel)
                        if pubsub.get_message(timeout=SOCKET_TIMEOUT_S) is None:
                            raise redis.TimeoutError("no answer to SUBSCRIBE")
                        self.connected = True
                        backoff_s, lost_at = FIRST_BACKOFF_S, None
                        self._listen(client, pubsub, bell)
                except (*LOST, redis.ResponseError) as error:
                    now = time.monotonic()
                    lost_at = lost_at if lost_at is not None else now
                    logger.warning("lost the broker (%s), again in %.1f s", error, backoff_s)
                    if now - lost_at >= self._give_up_s:
                        self._fail_all(
                            BrokerUnavailable(f"no connection for {now - lost_at:.0f} s: {error}")
                        )
                except Exception as error:
                    # A bug of ours, say: nobody may wait for ever for what is not waited for.
                    logger.exception("waiting for outcomes failed, again in %.1f s", backoff_s)
                    self._fail_all(BrokerUnavailable(f"waiting for outcomes failed: {error!r}"))
                self.connected = False
                self._closed.wait(backoff_s)
                backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
        finally:
            self.connected = False
            bell.close()

    def _connect(self) -> redis.Redis:
        return connect(
            self._url,
            health_check_interval=25,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            # redis-py would subscribe again without a word, and notices would be lost meanwhile.
            retry=Retry(NoBackoff(), 0),
        )

    def _listen(self, client: redis.Redis, pubsub: Any, bell: Bell) -> None:
        with self._lock:
            self._new = [(id, 0.0) for id in self._expected]
        self._soon.clear()
        unswept: list[str] = []
        next_sweep = time.monotonic() + SWEEP_S
        while not self._closed.is_set():
            ready = self._take_new(pubsub)
            with self._lock:
                looks, self._looks = self._looks, []
            for ids, _ in looks:
                ready += ids
            if time.monotonic() >= next_sweep:
                with self._lock:
                    unswept = unswept or list(self._expected)
                ready += unswept[-SWEEP_AT_ONCE:]
                del unswept[-SWEEP_AT_ONCE:]
                next_sweep = time.monotonic() + SWEEP_S
            if not ready:
                ready = self._hear(pubsub, bell)
                if 0 < len(ready) < MANY <= len(self._expected):
                    # Each read costs about as much as ten of its results.
                    self._closed.wait(PAUSE_S)
                    ready += self._hear(pubsub, None)
            self._read(client, pubsub, ready)
            for _, seen in looks:
                seen.set()

    def _take_new(self, pubsub: Any) -> list[str]:
        """Subscribe to what is new and foreign, and return what is to be read now."""
        with self._lock:
            new, self._new = self._new, []
            foreign = [id for id, _ in new if id in self._foreign]
            self._soon += [(read_at, id) for id, read_at in new if id not in self._foreign]
        for some in chunks(foreign):
            pubsub.subscribe(*(RESULT_KEY_PREFIX + id for id in some))
        now, due = time.monotonic(), []
        while self._soon and (self._soon[0][0] <= now or self._soon[0][1] not in self._expected):
            due.append(self._soon.popleft()[1])
        return due

    def _hear(self, pubsub: Any, bell: Bell | None) -> list[str]:
        """Hear notices, waiting up to a second for one or the bell; return what has to be read."""
        connection = pubsub.connection
        if bell is not None and not connection.can_read(timeout=0):  # nothing in its buffers either
            until_s = self._soon[0][0] - time.monotonic() if self._soon else LISTEN_S
            bell.wait(connection._sock, max(0.0, until_s))
        ids: list[str] = []
        told: dict[str, bytes | Outcome] = {}
        for _ in range(READ_AT_ONCE):
            if not connection.can_read(timeout=0):
                pubsub.check_health()
                break
            # It has begun to arrive. Without a time for the rest of it a notice that comes in two
            # pieces would be a lost connection.
            message = pubsub.get_message(timeout=SOCKET_TIMEOUT_S)
            if message is None:
                continue
            channel = message["channel"].decode()
            if channel != self._channel and message["type"] in {"subscribe", "message"}:
                ids.append(channel.removeprefix(RESULT_KEY_PREFIX))
            elif message["type"] == "message":
                for id, raw in notices(message["data"]):
                    if raw.startswith(ANSWERED):
                        told[id] = raw
                    else:  # nothing, a failure, or another id from a worker of an older version
                        ids += [id, raw.decode(errors="replace")]
        if foreign := self._settle(told):
            pubsub.unsubscribe(*(RESULT_KEY_PREFIX + id for id in foreign))
        return ids

    def _read(self, client: redis.Redis, pubsub: Any, ids: Sequence[str]) -> None:
        with self._lock:
            wanted = [id for id in dict.fromkeys(ids) if id in self._expected]
        for some in chunks(wanted):
            stored: Any = client.mget([RESULT_KEY_PREFIX + id for id in some])
            done = {
                id: value
                for id, raw in zip(some, stored, strict=True)
                if raw is not None and (value := arrived(raw, id)) is not None
            }
            foreign = self._settle(done)
            if foreign:
                pubsub.unsubscribe(*(RESULT_KEY_PREFIX + id for id in foreign))

    def _settle(self, values: Mapping[str, bytes | Outcome]) -> list[str]:
        """Give those who wait what they wait for, and return the ids that are foreign."""
        with self._lock:
            waited = [(self._expected.pop(id, None), value) for id, value in values.items()]
            foreign = [id for id in values if id in self._foreign]
            self._foreign.difference_update(foreign)
        for expected, value in waited:
            if expected is not None:
                expected.settle(value)
        return foreign

    def _fail_all(self, error: BrokerUnavailable) -> None:
        with self._lock:
            every, self._expected = self._expected, {}
            self._foreign.clear()
        for expected in every.values():
            expected.settle(error)


def notices(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the ids and results of what was published. Anybody may publish anything here."""
    lines = data.split(b"\n")
    for id, raw in zip_longest(lines[::2], lines[1::2], fillvalue=b""):
        yield id.decode(errors="replace"), raw


def chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    """Cut into pieces that one command can name without holding Redis up."""
    return (ids[start : start + READ_AT_ONCE] for start in range(0, len(ids), READ_AT_ONCE))
