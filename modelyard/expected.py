"""An outcome that is waited for, or has arrived. A client may wait for a million: it is small."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from modelyard.errors import BrokerUnavailable
from modelyard.outcome import Outcome, read_outcome, unreadable

logger = logging.getLogger("modelyard.waiter")

ANSWERED: Final = b'{"status":"SUCCESS",'
"""How the result of an answer begins, if a modelyard worker stored it."""


class Expected:
    """Gets one value, once: a stored result, or the error of a wait that was given up.

    An answer is kept as it was stored, and read when somebody asks for it. There is no lock: a
    callback is called by whoever takes it off the list.
    """

    __slots__ = ("_callbacks", "_value")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], object]] = []
        self._value: bytes | Outcome | None = None

    @property
    def done(self) -> bool:
        """Whether it has its value."""
        return self._value is not None

    @property
    def given_up(self) -> bool:
        """Whether it ended without an outcome."""
        return isinstance(self._value, BrokerUnavailable)

    def settle(self, value: bytes | Outcome) -> None:
        """Give it its value; a second one is dropped."""
        if self._value is None:
            self._value = value
            self._call()

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call `callback` when there is a value, or now; what it raises is logged."""
        self._callbacks.append(callback)
        if self._value is not None:
            self._call()

    def forget(self, callback: Callable[[], object]) -> None:
        """Do not call this one any more."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait up to `timeout_s` seconds for a value, and return whether there is one."""
        if self._value is None:
            there = threading.Event()
            self.when_done(there.set)
            there.wait(timeout_s)
            self.forget(there.set)
        return self.done

    def read(self, id: str) -> Outcome:
        """Return the outcome of the request `id`, or the error of the wait."""
        value = self._value
        if isinstance(value, bytes):
            return read_outcome(value, id) or unreadable(id, "it has two states")
        assert value is not None, "it is read before it is there"
        return value

    def _call(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return  # Another thread was faster.
            try:
                callback()
            except Exception:
                logger.exception("a callback for an outcome failed")


def arrived(raw: bytes, id: str) -> bytes | Outcome | None:
    """Return what to keep of a stored result, or None if it is not final."""
    return raw if raw.startswith(ANSWERED) else read_outcome(raw, id)
