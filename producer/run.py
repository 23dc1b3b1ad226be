"""Run: units of work through the queue, a bounded number at a time, in any order.

A unit is a document or a line of a batch: it asks one or more requests and ends with a record.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Generic, Protocol, TypeVar

from modelyard.client import Client, Handle
from modelyard.errors import (
    BrokerFull,
    InvalidRequest,
    MessageTooLarge,
    QueueFull,
    RequestFailed,
    RequestRevoked,
)
from modelyard.messages import Request
from modelyard.outcome import Outcome
from producer.job import Job
from producer.window import json_bytes

log = logging.getLogger("modelyard.job")

TOO_LARGE: Final = "message_too_large"
"""The reason of a request that does not fit one message."""

WINDOW: Final = 500
"""How many requests are in flight at a time, if nobody says otherwise."""

WINDOW_BYTES: Final = 128 * 1024 * 1024
"""How much text is in flight at a time: the broker holds it in memory."""

GROUP: Final = 100
GROUP_BYTES: Final = 4 * 1024 * 1024
GROUP_S: Final = 0.25
"""A group is submitted when it has so many requests, bytes, or was collected for so long."""

ROOM_S: Final = 1.0
"""How long a submit waits for room in a queue that others have filled."""

POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class PartRequest:
    """One request of a unit; `part` names it within the unit."""

    part: str
    request: Request


class Unit(Protocol):
    """One piece of work with an outcome of its own."""

    @property
    def key(self) -> str:
        """What the unit is called in the job: the same in each run."""
        ...

    @property
    def ended(self) -> bool:
        """Whether its record can be written."""
        ...

    def begin(self) -> Sequence[PartRequest]:
        """Return the requests to make first; none if it has ended already."""
        ...

    def heard(self, part: str, id: str, outcome: Outcome) -> Sequence[PartRequest]:
        """Take the outcome of one request, and return those to make next."""
        ...


U = TypeVar("U", bound=Unit)


@dataclass(frozen=True, slots=True)
class _Open(Generic[U]):
    unit: U
    part: PartRequest
    id: str
    size: int


class Run(Generic[U]):
    """Drives units of one job through a client, which is connected when it is first needed.

    `write` gets each unit that has ended. `stopping` ends the run early; `tick` is called often,
    and may raise to end it.
    """

    def __init__(
        self,
        job: Job,
        connect: Callable[[], Client],
        write: Callable[[U], None],
        *,
        once_s: int,
        window: int = WINDOW,
        stopping: Callable[[], bool] = lambda: False,
        tick: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = POLL_S,
    ) -> None:
        self._job = job
        self._connect = connect
        self._write = write
        self._once_s = once_s
        self._window = max(1, window)
        self._stopping = stopping
        self._tick = tick
        self._clock = clock
        self._poll_s = poll_s
        self._client: Client | None = None
        self._backlog: deque[_Open[U]] = deque()
        self._open: dict[str, _Open[U]] = {}
        self._bytes = 0
        self._full = False
        self._done: SimpleQueue[Handle] = SimpleQueue()

    def work(self, units: Iterator[U]) -> bool:
        """Work until all units have ended, and return True; False when it was stopped before.

        Raises `BrokerError`, and what `units`, `write` and `tick` raise.
        """
        more = True
        while not self._stopping():
            more = self._submit_some(units) and more
            if not (more or self._open or self._backlog):
                return True
            room = self._room() and (more or bool(self._backlog))
            self._listen(0.0 if room else self._poll_s)
            self._tick()
        self._listen(0.0)
        return False

    def _room(self, more: int = 0, size: int = 0) -> bool:
        in_flight = len(self._open) + more
        fits = self._bytes + size < WINDOW_BYTES or in_flight == 0
        return not self._full and in_flight < self._window and fits

    def _submit_some(self, units: Iterator[U]) -> bool:
        """Submit a group if there is room; return False once there are no more units."""
        group: list[_Open[U]] = []
        size = 0
        more = True
        until = self._clock() + GROUP_S
        while (
            self._room(len(group), size)
            and len(group) < GROUP
            and size < GROUP_BYTES
            and self._clock() < until
            and not self._stopping()
        ):
            if not self._backlog:
                unit = next(units, None)
                if unit is None:
                    more = False
                    break
                self._take(unit, unit.begin())
                continue
            asked = self._backlog.popleft()
            group.append(asked)
            size += asked.size
        if group:
            self._submit(group)
        return more

    def _take(self, unit: U, parts: Sequence[PartRequest]) -> None:
        if unit.ended:
            self._write(unit)
        for part in parts:
            id = self._job.request_id(unit.key, part.part, part.request)
            self._backlog.append(_Open(unit, part, id, json_bytes(part.request.text)))

    def _submit(self, group: Sequence[_Open[U]]) -> None:
        if self._client is None:
            self._client = self._connect()
        try:
            handles = self._client.submit_many(
                (asked.part.request for asked in group),
                ids=[asked.id for asked in group],
                once_s=self._once_s,
                # Others may have filled the queue: then there is nothing of ours to wait for.
                wait_s=0.0 if self._open else ROOM_S,
            )
        except (BrokerFull, QueueFull) as error:
            if not self._open and isinstance(error, BrokerFull):
                raise
            # There is room again when answers have come, if not for all then for some. What was
            # accepted is not accepted twice: the ids stay.
            log.info("waiting for room before submitting more: %s", error)
            self._full = bool(self._open)
            self._backlog.extendleft(reversed(group))
            return
        except InvalidRequest as error:
            if len(group) > 1:
                for asked in group:
                    self._submit([asked])
                return
            (asked,) = group
            reason = TOO_LARGE if isinstance(error, MessageTooLarge) else "invalid"
            self._ended(asked, RequestFailed(str(error), asked.id, reason))
            return
        for asked in group:
            self._open[asked.id] = asked
            self._bytes += asked.size
        self._client.when_done(handles, self._done.put)

    def _listen(self, wait_s: float) -> None:
        """Take what has arrived, waiting up to `wait_s` seconds for the first."""
        try:
            handle = self._done.get(timeout=wait_s) if wait_s else self._done.get_nowait()
            while True:
                self._answered(handle)
                handle = self._done.get_nowait()
        except Empty:
            return

    def _answered(self, handle: Handle) -> None:
        asked = self._open.pop(handle.id)
        self._bytes -= asked.size
        self._full = False
        self._ended(asked, _outcome(handle))

    def _ended(self, asked: _Open[U], outcome: Outcome) -> None:
        self._take(asked.unit, asked.unit.heard(asked.part.part, asked.id, outcome))


def _outcome(handle: Handle) -> Outcome:
    try:
        return handle.result(0)
    except (RequestFailed, RequestRevoked) as error:
        return error
