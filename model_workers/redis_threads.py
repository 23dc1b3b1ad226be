"""A connection to Redis that coroutines use, in threads of its own so that the loop goes on."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import redis

T = TypeVar("T")


class RedisThreads:
    """Opened by what is run first, and again by what is run after `close`.

    A connection and its threads belong together: what is still running in them when they are
    closed keeps them to its end, and what is run afterwards, on whichever loop, has others.
    """

    def __init__(self, connect: Callable[[], redis.Redis], name: str, threads: int = 1) -> None:
        self._connect = connect
        self._name = name
        self._count = threads
        self._open: Opened | None = None

    async def run(self, act: Callable[[redis.Redis], T]) -> T:
        """Return `act(client)`, and raise what it raises. Who does not wait does not stop it."""
        if self._open is None:
            self._open = Opened(self._connect, ThreadPoolExecutor(self._count, self._name))
        opened = self._open
        return await asyncio.get_running_loop().run_in_executor(opened.threads, opened.run, act)

    def close(self) -> None:
        """Let go of the connection, after what is being run. Does not wait for that."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.end(wait=False)

    async def aclose(self) -> None:
        """Let go of the connection, once what is being run has ended."""
        opened, self._open = self._open, None
        if opened is not None:
            await asyncio.to_thread(opened.end, wait=True)


class Opened:
    """One connection and its threads. What is here is done in these threads alone."""

    def __init__(self, connect: Callable[[], redis.Redis], threads: ThreadPoolExecutor) -> None:
        self.threads = threads
        self._connect = connect
        self._client: redis.Redis | None = None
        self._opening = threading.Lock()

    def run(self, act: Callable[[redis.Redis], T]) -> T:
        with self._opening:
            if self._client is None:
                self._client = self._connect()
        return act(self._client)

    def end(self, *, wait: bool) -> None:
        # Behind what was begun: a client that is in use is closed by nobody.
        self.threads.submit(self._close)
        self.threads.shutdown(wait=wait)

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
