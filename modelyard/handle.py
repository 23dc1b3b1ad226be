"""A submitted request, and the inbox in which its outcome arrives."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue

import redis

from modelyard.errors import BrokerUnavailable, ModelyardError, ResultTimeout
from modelyard.expected import Expected
from modelyard.feedback import give_feedback
from modelyard.messages import Answer
from modelyard.names import RESULT_KEY_PREFIX
from modelyard.outcome import Outcome, read_outcome
from modelyard.redis_errors import broker_error
from modelyard.waiter import Waiter


class Inbox:
    """Where the outcomes of one client arrive, and what its handles ask.

    `store` reads a result at once; `cancel` cancels a request by its id, as `Handle.cancel` has it.
    """

    def __init__(self, waiter: Waiter, store: redis.Redis, cancel: "Callable[[str], bool]") -> None:
        self.waiter = waiter
        self.store = store
        self.cancel = cancel

    def as_completed(
        self, handles: "Iterable[Handle]", timeout_s: float | None = None
    ) -> "Iterator[Handle]":
        """Yield each handle when its outcome is there, as `Client.as_completed`."""
        waited = list(handles)
        arrived: SimpleQueue[Handle] = SimpleQueue()
        self.when_done(waited, arrived.put)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for seen in range(len(waited)):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            handle = first(arrived, left)
            if handle is None:
                self.look(waited)
                handle = first(arrived, 0.0)
            if handle is None:
                raise self.late(f"{len(waited) - seen} of {len(waited)} requests", timeout_s)
            yield handle

    def when_done(
        self, handles: "Iterable[Handle]", callback: "Callable[[Handle], object]"
    ) -> None:
        """Call `callback` with each handle, as `Client.when_done`."""
        waited = list(handles)
        for handle in waited:
            handle._forget_failure()
        for expected, handle in zip(self.expect(waited), waited, strict=True):
            expected.when_done(partial(callback, handle))

    def expect(self, handles: "Sequence[Handle]") -> list[Expected]:
        """Return what each handle waits for, asking the waiter once for all that are new."""
        new = [handle for handle in dict.fromkeys(handles) if not handle._waits_at(self.waiter)]
        for own in (True, False):
            some = [handle for handle in new if (handle._own and handle._inbox is self) is own]
            if not some:
                continue
            read_at = min(each._read_at for each in some)
            expected = self.waiter.expect([each.id for each in some], own=own, read_at=read_at)
            for handle in some:
                handle._waiter, handle._expected = self.waiter, expected[handle.id]
        return [each for handle in handles if (each := handle._expected) is not None]

    def look(self, handles: "Iterable[Handle]") -> None:
        """Have what is still open read once more, before giving up."""
        self.waiter.look([handle.id for handle in handles if not handle._ended])

    def peek(self, id: str) -> Outcome | None:
        """Return the outcome that is stored now. Raises `BrokerError`."""
        try:
            raw = self.store.get(RESULT_KEY_PREFIX + id)
        except (redis.RedisError, OSError) as error:
            raise broker_error(error) from error
        return None if raw is None else read_outcome(raw, id)

    def late(self, what: str, timeout_s: float | None) -> ModelyardError:
        """Return the error of a wait that was too short."""
        if not self.waiter.connected:
            return BrokerUnavailable(f"{what}: no connection to the broker in {timeout_s} s")
        return ResultTimeout(f"{what}: no outcome within {timeout_s} s")


class Handle:
    """A submitted request: its `id`, and its outcome when there is one."""

    __slots__ = ("_expected", "_inbox", "_own", "_read_at", "_waiter", "id")

    def __init__(self, inbox: Inbox, id: str, *, own: bool, read_at: float = 0.0) -> None:
        self.id = id
        self._read_at = read_at
        self._inbox = inbox
        self._own = own
        self._waiter: Waiter | None = None
        self._expected: Expected | None = None

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def done(self) -> bool:
        """Return whether the outcome is there. Raises `BrokerError`."""
        if self._ended and not self._given_up:
            return True
        return self._inbox.peek(self.id) is not None

    def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer.

        Raises `RequestFailed` with id, reason and attempts if the request became a dead letter,
        `RequestRevoked`, `ResultTimeout` after `timeout_s` seconds (the request goes on), or
        `BrokerUnavailable`. After the last two it can be called again.
        """
        (expected,) = self._inbox.expect([self])
        if not expected.wait(timeout_s):
            self._inbox.look([self])
        return self._read(expected, timeout_s)

    def cancel(self) -> bool:
        """Have the request end as `RequestRevoked`, in the queue or in the middle of a call.

        Returns False if it has an outcome already, which stands. A program that waits on another
        client hears of it within some seconds. Raises `BrokerError`: call it again then.
        """
        return self._inbox.cancel(self.id)

    def feedback(
        self, score: float, comment: str | None = None, *, model: str | None = None
    ) -> None:
        """Say what the answer is worth, as `Client.feedback`."""
        give_feedback(self._inbox.store, self.id, score, comment, model)

    def _read(self, expected: Expected, timeout_s: float | None) -> Answer:
        """Return or raise what is there after `timeout_s` seconds."""
        if not expected.done:
            raise self._inbox.late(f"request {self.id}", timeout_s)
        outcome = expected.read(self.id)
        if isinstance(outcome, ModelyardError):
            self._forget_failure()
            raise outcome
        return outcome

    @property
    def _ended(self) -> bool:
        return self._expected is not None and self._expected.done

    @property
    def _given_up(self) -> bool:
        """Whether it ended without an outcome."""
        return self._expected is not None and self._expected.given_up

    def _waits_at(self, waiter: Waiter) -> bool:
        """Return whether `waiter` was asked for it, or another one and it has ended."""
        return self._expected is not None and (self._waiter is waiter or self._expected.done)

    def _forget_failure(self) -> None:
        """Let the next wait begin anew: the broker may be back."""
        if self._given_up:
            self._waiter = self._expected = None


def first(arrived: "SimpleQueue[Handle]", timeout_s: float | None) -> Handle | None:
    """Return what is there or comes within `timeout_s` seconds, or None."""
    try:
        return arrived.get(timeout=timeout_s)
    except Empty:
        return None
