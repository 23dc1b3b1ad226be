"""modelyard as a measured system: its own client and its own worker commands."""

import time
from collections.abc import Sequence
from functools import partial
from queue import SimpleQueue
from typing import Final

from benchmarks.pace import gathered, paced
from benchmarks.system import System
from modelyard import Client
from modelyard.handle import Handle
from producer.commands import model_command, router_command


class YardProducer:
    """modelyard's client. It keeps the timings that came with the last single answers."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        self.timings: list[dict[str, float]] = []

    def one(self, text: str, timeout_s: float) -> str:
        """Submit one request, wait for its answer and return its text."""
        answer = self._client.submit(text).result(timeout_s)
        self.timings.append(answer.timings.model_dump())
        return answer.text

    def many(self, texts: Sequence[str], timeout_s: float) -> int:
        """Submit all, wait for all and return how many were answered."""
        handles = self._client.submit_many(texts)
        done = self._client.as_completed(handles, timeout_s)
        return sum(1 for handle in done if handle.result(0).text)

    def paced(self, text: str, at_s: Sequence[float], timeout_s: float) -> list[float]:
        """Submit at these seconds from now; return the milliseconds that each took."""
        ended: SimpleQueue[float] = SimpleQueue()

        def note(due: float, _: Handle) -> None:
            ended.put(1000 * (time.perf_counter() - due))

        handles = []
        for due in paced(at_s):
            handle = self._client.submit(text)
            self._client.when_done([handle], partial(note, due))
            handles.append(handle)
        took = gathered(ended, len(handles), timeout_s)
        for handle in handles:
            handle.result(0)  # raises what went wrong
        return took

    def close(self) -> None:
        """Let go of the broker."""
        self._client.close()


OURS: Final = System(
    "modelyard", {"router": router_command(), "pool": model_command("small")}, YardProducer
)
