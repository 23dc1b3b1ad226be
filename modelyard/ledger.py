"""What a worker process has of the broker's: which messages it holds, and what it still owes."""

import threading
from collections.abc import Iterable


class Ledger:
    """Delivery tags by what is to become of them. Safe to use from several threads.

    A message is *held* while its task runs here. When its connection is lost it becomes an
    *orphan*: still held, and counted against the prefetch limit of the next connection. What is
    not held then is *parted with*: it is put back, and must not start here any more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._orphans: set[str] = set()
        self._parted: set[str] = set()
        self._ack: set[str] = set()
        self._put_back: set[str] = set()

    def received(self, tag: str) -> None:
        """It came from the broker: a message that was put back keeps its tag."""
        with self._lock:
            self._parted.discard(tag)

    def hold(self, tag: str) -> bool:
        """Keep this message whatever becomes of its connection; False if it was parted with."""
        with self._lock:
            if tag in self._parted:
                return False
            self._held.add(tag)
            return True

    def let_go(self, tag: str) -> None:
        """Its task does not run here any more."""
        with self._lock:
            self._held.discard(tag)
            self._orphans.discard(tag)

    def part_with(self, tags: Iterable[str]) -> list[str]:
        """The connection of `tags` closes: return those to put back; the held become orphans."""
        with self._lock:
            every = list(tags)
            self._orphans.update(tag for tag in every if tag in self._held)
            parted = [tag for tag in every if tag not in self._held]
            self._parted.update(parted)
            return parted

    @property
    def orphans(self) -> int:
        """How many messages of earlier connections are held."""
        return len(self._orphans)

    def owe_ack(self, tag: str) -> None:
        """Acknowledge it when that is possible."""
        with self._lock:
            self._ack.add(tag)

    def owe_put_back(self, tags: Iterable[str]) -> None:
        """Put these back when that is possible."""
        with self._lock:
            self._put_back.update(tags)

    @property
    def owes(self) -> bool:
        """Whether anything is to be acknowledged or put back."""
        return bool(self._ack or self._put_back)

    def take_owed(self) -> tuple[list[str], list[str]]:
        """Return what to acknowledge and what to put back, and forget both."""
        with self._lock:
            owed = sorted(self._ack), sorted(self._put_back - self._ack)
            self._ack.clear()
            self._put_back.clear()
            return owed
