"""How a program submits to each of the two systems, and hears of outcomes."""

import re
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from chaos.evidence import Kind
from chaos.journal import now
from chaos.peer.client import PeerClient
from modelyard.client import Client, Handle
from modelyard.errors import (
    BrokerUnavailable,
    ModelyardError,
    RequestFailed,
    RequestRevoked,
)
from modelyard.messages import Lane, Request

ROUTE: Final = re.compile(r"\[route=([a-z]+)\]")

Tell = Callable[[str, Kind], None]

REFUSED = (ModelyardError, OSError)
"""What a submit raises while the broker is away or refuses: it is made again."""


class StormClient(Protocol):
    """A client of one of the systems."""

    def submit(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Submit; return when they are accepted. Raises one of `REFUSED`."""

    def listen(self, ids: Iterable[str], tell: Tell) -> None:
        """Begin to wait for these ids, and `tell` each outcome from `look`."""

    def look(self, timeout_s: float) -> None:
        """Spend some time on waiting."""

    def close(self) -> None:
        """Let go of the broker."""


class YardClient:
    """modelyard's own client. Submitter and waiter share its name, and so its channel."""

    def __init__(self, url: str) -> None:
        self._client = Client(url, name="chaos", patience_s=2.0)
        self._done: SimpleQueue[Handle] = SimpleQueue()
        self._again: list[tuple[float, Handle]] = []
        self._tell: Tell = lambda id, kind: None

    def submit(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        self._client.submit_many([request(text) for text in texts], ids=ids)

    def listen(self, ids: Iterable[str], tell: Tell) -> None:
        self._tell = tell
        self._client.when_done([self._client.handle(id) for id in ids], self._done.put)

    def look(self, timeout_s: float) -> None:
        late = [handle for at, handle in self._again if at <= now()]
        if late:
            self._again = [(at, handle) for at, handle in self._again if at > now()]
            self._client.when_done(late, self._done.put)
        until = now() + timeout_s
        while (left := until - now()) > 0:
            try:
                handle = self._done.get(timeout=left)
            except Empty:
                return
            try:
                handle.result(0)
            except (RequestFailed, RequestRevoked):
                self._tell(handle.id, "dead")
            except BrokerUnavailable:
                self._again.append((now() + 1.0, handle))
            else:
                self._tell(handle.id, "answered")

    def close(self) -> None:
        self._client.close()


def request(text: str) -> Request:
    """Return the request of a text: to the route that it names; long calls to the model that allows
    them, lanes mixed.
    """
    route = ROUTE.search(text)
    return Request.of(
        text,
        route=route[1] if route else "default",
        models=("patient",) if "[sleep=" in text else (),
        lane=Lane.BATCH if len(text) % 2 else Lane.INTERACTIVE,
    )


def connect(system: str, url: str) -> StormClient:
    """Return a client of a system."""
    return PeerClient(url) if system == "peer" else YardClient(url)
