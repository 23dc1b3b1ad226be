"""The asyncio twin of `client.Client`: the same calls, awaited."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from modelyard.client import Client
from modelyard.handle import Handle
from modelyard.messages import Answer, Lane, Request
from modelyard.outbox import Delivery
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
        idempotency_key: str | None = None,
        route: str | None = None,
        lane: Lane | str | None = None,
        models: Sequence[str] | None = None,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
        once_s: int | None = None,
        wait_s: float | None = 0.0,
    ) -> "AsyncHandle":
        """Put a request on the queue, as `Client.submit`."""
        (handle,) = await self._submitted(
            [request],
            ids=None if id is None else [id],
            keys=None if idempotency_key is None else [idempotency_key],
            given={
                "route": route,
                "lane": lane,
                "models": models,
                "params": params,
                "metadata": metadata,
            },
            deadline_s=deadline_s,
            once_s=once_s,
            wait_s=wait_s,
        )
        return handle

    async def submit_many(
        self,
        requests: Iterable[str | Request],
        *,
        ids: Iterable[str] | None = None,
        idempotency_keys: Iterable[str | None] | None = None,
        route: str | None = None,
        lane: Lane | str | None = None,
        models: Sequence[str] | None = None,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
        once_s: int | None = None,
        wait_s: float | None = None,
    ) -> "list[AsyncHandle]":
        """Put many requests on the queue, as `Client.submit_many`.

        A task that is cancelled while this waits for room sends nothing more.
        """
        return await self._submitted(
            requests,
            ids=ids,
            keys=idempotency_keys,
            given={
                "route": route,
                "lane": lane,
                "models": models,
                "params": params,
                "metadata": metadata,
            },
            deadline_s=deadline_s,
            once_s=once_s,
            wait_s=wait_s,
        )

    async def _submitted(
        self, requests: Iterable[str | Request], **given: Any
    ) -> "list[AsyncHandle]":
        def begin() -> tuple[Delivery, Callable[[], list[Handle]], float | None]:
            delivery, handles = self._client._deliver(requests, **given)
            return delivery, handles, delivery.step()

        delivery, handles, pause_s = await asyncio.to_thread(begin)
        while pause_s is not None:
            await asyncio.sleep(pause_s)
            pause_s = await asyncio.to_thread(delivery.step)
        return [AsyncHandle(handle) for handle in handles()]

    def handle(self, id: str) -> "AsyncHandle":
        """Return the handle of a request that was submitted before."""
        return AsyncHandle(self._client.handle(id))

    async def feedback(
        self, id: str, score: float, comment: str | None = None, *, model: str | None = None
    ) -> None:
        """Say what the answer to a request is worth, as `Client.feedback`."""
        await self.handle(id).feedback(score, comment, model=model)

    async def as_completed(
        self, handles: "Iterable[AsyncHandle]", timeout_s: float | None = None
    ) -> "AsyncIterator[AsyncHandle]":
        """Yield each handle when its outcome is there, as `Client.as_completed`."""
        waited = list(handles)
        inbox = self._client._inbox
        arrivals = Arrivals(asyncio.get_running_loop())
        by_handle: dict[Handle, list[AsyncHandle]] = {}
        for each in waited:
            by_handle.setdefault(each._handle, []).append(each)

        def put(done: Handle) -> None:
            arrivals.put(by_handle[done])

        await asyncio.to_thread(inbox.when_done, by_handle, put)
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        for seen in range(len(waited)):
            left = None if deadline is None else max(0.0, deadline - loop.time())
            handle = await arrivals.first(left)
            if handle is None:
                await asyncio.to_thread(inbox.look, by_handle)
                handle = await arrivals.first(0.0)
            if handle is None:
                raise inbox.late(f"{len(waited) - seen} of {len(waited)} requests", timeout_s)
            yield handle


class Arrivals:
    """What has arrived, from the waiter's thread to a coroutine; many cost one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._there: deque[AsyncHandle] = deque()
        self._some = asyncio.Event()
        self._told = False

    def put(self, handles: "Iterable[AsyncHandle]") -> None:
        """Add handles, in any thread."""
        self._there.extend(handles)
        # Told after it is there: `_tell` takes the flag back before anybody looks.
        if not self._told:
            self._told = True
            # The loop may have ended by now, and nobody listens.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._told = False
        self._some.set()

    async def first(self, timeout_s: float | None) -> "AsyncHandle | None":
        """Return what is there or comes within `timeout_s` seconds, or None."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._there:
                    self._some.clear()
                    await self._some.wait()
        return self._there.popleft() if self._there else None


class AsyncHandle:
    """A submitted request: its `id`, and its outcome when there is one."""

    def __init__(self, handle: Handle) -> None:
        self.id = handle.id
        self._handle = handle

    def __repr__(self) -> str:
        return f"AsyncHandle({self.id!r})"

    async def done(self) -> bool:
        """Return whether the outcome is there."""
        return await asyncio.to_thread(self._handle.done)

    async def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer; raises what `Handle.result` raises."""
        inbox = self._handle._inbox
        (expected,) = inbox.expect([self._handle])
        if not expected.done:
            loop = asyncio.get_running_loop()
            there = asyncio.Event()

            def tell() -> None:
                # The loop may have ended by now, and nobody listens.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(there.set)

            expected.when_done(tell)
            try:
                await asyncio.wait_for(there.wait(), timeout_s)
            except TimeoutError:
                await asyncio.to_thread(inbox.look, [self._handle])
            finally:
                expected.forget(tell)
        return self._handle._read(expected, timeout_s)

    async def cancel(self) -> bool:
        """Have the request end as `RequestRevoked`, as `Handle.cancel`."""
        return await asyncio.to_thread(self._handle.cancel)

    async def feedback(
        self, score: float, comment: str | None = None, *, model: str | None = None
    ) -> None:
        """Say what the answer is worth, as `Client.feedback`."""
        await asyncio.to_thread(self._handle.feedback, score, comment, model=model)
