"""The asyncio twin of `client.Client`: the same calls, awaited."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from modelyard.client import ONCE_S, Client, Handle
from modelyard.errors import BrokerUnavailable
from modelyard.messages import Answer, Lane, Request
from modelyard.settings import Settings


class AsyncClient:
    """A connection to a yard for coroutines; use it in an `async with`.

    Publishing runs in a thread, and waiting costs no thread: all handles share one subscription.
    The arguments are `Client`'s.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        *,
        name: str | None = None,
        patience_s: float = 10.0,
        settings: Settings | None = None,
    ) -> None:
        self._client = Client(broker_url, name=name, patience_s=patience_s, settings=settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the broker, as `Client.close`."""
        await asyncio.to_thread(self._client.close)

    async def submit(
        self,
        request: str | Request,
        *,
        id: str | None = None,
        route: str | None = None,
        lane: Lane | str | None = None,
        models: Sequence[str] | None = None,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
        once_s: int = ONCE_S,
    ) -> "AsyncHandle":
        """Put a request on the queue, as `Client.submit`."""
        handle = await asyncio.to_thread(
            self._client.submit,
            request,
            id=id,
            route=route,
            lane=lane,
            models=models,
            params=params,
            metadata=metadata,
            deadline_s=deadline_s,
            once_s=once_s,
        )
        return AsyncHandle(self._client, handle)

    async def submit_many(
        self,
        requests: Iterable[str | Request],
        *,
        ids: Iterable[str] | None = None,
        once_s: int = ONCE_S,
    ) -> "list[AsyncHandle]":
        """Put many requests on the queue, as `Client.submit_many`."""
        handles = await asyncio.to_thread(
            self._client.submit_many, requests, ids=ids, once_s=once_s
        )
        return [AsyncHandle(self._client, handle) for handle in handles]

    def handle(self, id: str) -> "AsyncHandle":
        """Return the handle of a request that was submitted before."""
        return AsyncHandle(self._client, self._client.handle(id))

    async def as_completed(
        self, handles: "Iterable[AsyncHandle]", timeout_s: float | None = None
    ) -> "AsyncIterator[AsyncHandle]":
        """Yield each handle when its outcome is there, as `Client.as_completed`."""
        waited = list(handles)
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[AsyncHandle] = asyncio.Queue()
        by_handle: dict[Handle, list[AsyncHandle]] = {}
        for each in waited:
            by_handle.setdefault(each._handle, []).append(each)

        def put(done: Handle) -> None:
            # In the waiter's thread; the loop may have ended by then.
            if not loop.is_closed():
                for handle in by_handle[done]:
                    loop.call_soon_threadsafe(arrived.put_nowait, handle)

        await asyncio.to_thread(self._client.when_done, by_handle, put)
        deadline = None if timeout_s is None else loop.time() + timeout_s
        for seen in range(len(waited)):
            left = None if deadline is None else max(0.0, deadline - loop.time())
            handle = await first(arrived, left)
            if handle is None:
                await asyncio.to_thread(self._client._look, by_handle)
                handle = await first(arrived, 0.0)
            if handle is None:
                raise self._client._late(
                    f"{len(waited) - seen} of {len(waited)} requests", timeout_s
                )
            yield handle


class AsyncHandle:
    """A submitted request: its `id`, and its outcome when there is one."""

    def __init__(self, client: Client, handle: Handle) -> None:
        self.id = handle.id
        self._client = client
        self._handle = handle

    def __repr__(self) -> str:
        return f"AsyncHandle({self.id!r})"

    async def done(self) -> bool:
        """Return whether the outcome is there."""
        return await asyncio.to_thread(self._handle.done)

    async def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer; raises what `Handle.result` raises."""
        ((future, _),) = await asyncio.to_thread(
            lambda: list(self._client._futures([self._handle]))
        )
        # Shielded: a caller that gives up must not cancel the wait of another.
        ended = asyncio.shield(asyncio.wrap_future(future))
        with contextlib.suppress(BrokerUnavailable):  # read and raised below
            try:
                await asyncio.wait_for(ended, timeout_s)
            except TimeoutError:
                await asyncio.to_thread(self._client._look, [self._handle])
        return self._handle._read(future, timeout_s)


async def first(
    arrived: "asyncio.Queue[AsyncHandle]", timeout_s: float | None
) -> AsyncHandle | None:
    """Return what is there or comes within `timeout_s` seconds, or None."""
    if not arrived.empty():
        return arrived.get_nowait()
    try:
        return await asyncio.wait_for(arrived.get(), timeout_s)
    except TimeoutError:
        return None
