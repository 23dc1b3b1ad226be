"""Submitting requests and fetching their outcomes, for programs that run on threads.

`async_client.AsyncClient` is the same for programs on asyncio.
"""

import os
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import redis

from modelyard.address import broker_address
from modelyard.cancel import Broadcast, cancel
from modelyard.errors import BrokerUnavailable, InvalidRequest
from modelyard.handle import Handle, Inbox
from modelyard.messages import Lane, Request
from modelyard.names import REPLY_CHANNEL_PREFIX
from modelyard.outbox import FIRST_BACKOFF_S, LAST_BACKOFF_S, Bounds, Delivery, Outbox
from modelyard.redis_errors import broker_error
from modelyard.settings import Settings, load_settings
from modelyard.submission import ONCE_S, names, prepare, submission
from modelyard.waiter import Waiter

__all__ = ["ONCE_S", "Client", "Handle", "broker_error", "prepare"]


READ_AFTER_S: Final = 0.01
"""A result that nobody told of is read so long after its submit, and not at once."""


class Client:
    """A connection to a yard. Safe to share between threads; close it, or use it in a `with`.

    `broker_url` overrides `MODELYARD_BROKER_URL`. A client with a `name` hears the outcomes of
    all requests that a client of that name submitted: a job that is started again uses its name
    again. `patience_s` is for how long a submit tries to reach the broker. A process that is forked
    after this was made (a web server that preloads its program) has connections of its own.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        *,
        name: str | None = None,
        patience_s: float = 10.0,
        settings: Settings | None = None,
    ) -> None:
        self._settings = settings or load_settings()
        self._url = broker_address(broker_url, self._settings)
        self._named = name is not None
        self._closed = False
        self._channel = REPLY_CHANNEL_PREFIX + (name or str(uuid.uuid4()))
        self._patience_s = patience_s
        self._connect()
        self._inbox = Inbox(self._waiter, self._outbox.redis, self._cancel)
        open_clients.add(self)

    def _connect(self) -> None:
        bounds = Bounds(self._settings.queue_limit, self._settings.dead_letter_limit)
        self._waiter = Waiter(self._url, self._channel)
        self._outbox = Outbox(self._url, bounds, self._patience_s)
        self._broadcast = Broadcast(self._url, self._settings, self._outbox.timeouts)

    def _after_fork(self) -> None:
        """Share no thread, lock or socket with the parent process."""
        self._waiter.abandon()
        self._connect()
        # The handles that were inherited keep their inbox.
        self._inbox.waiter, self._inbox.store = self._waiter, self._outbox.redis

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the broker. Requests go on; results that are waited for here are given up."""
        self._closed = True
        open_clients.discard(self)
        self._waiter.close()
        self._outbox.close()
        self._broadcast.close()

    def submit(
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
    ) -> Handle:
        """Put a request on the queue and return its handle at once.

        `request` is a text (one user message) or a whole `Request`, whose fields the other
        arguments override. `deadline_s` counts from now. A second submit of the same `id`, or of
        the same `idempotency_key`, within `once_s` seconds is not a second request: the handle is
        that of the first. `once_s` is by default 600 for ids, and as long as answers are kept for
        keys. A queue that is full is waited for up to `wait_s` seconds (None: as long as it takes).

        Raises `InvalidRequest`, `MessageTooLarge`, `QueueFull`, `BrokerUnavailable`, `BrokerFull`,
        or `BrokerError` in Redis's own words if it refuses.
        """
        delivery, handles = self._deliver(
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
        finish(delivery)
        return handles()[0]

    def submit_many(
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
    ) -> list[Handle]:
        """Put many requests on the queue, many at a time, and return their handles in order.

        `route` to `deadline_s` are those of `submit`, for all of them. Nothing is sent if one is
        invalid. A queue that is full is waited for as long as it takes, or up to `wait_s` seconds
        in all. Raises as `submit` does; after a `BrokerError`
        (`QueueFull` is one) submit the same `ids` or `idempotency_keys` again: what was accepted is
        not accepted twice.
        """
        delivery, handles = self._deliver(
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
        finish(delivery)
        return handles()

    def _deliver(
        self,
        requests: Iterable[str | Request],
        *,
        ids: Iterable[str] | None,
        keys: Iterable[str | None] | None,
        once_s: int | None,
        wait_s: float | None,
        given: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
    ) -> tuple[Delivery, Callable[[], list[Handle]]]:
        """Return what is to be carried out, and what returns the handles after it.

        Nothing is sent yet. Raises `InvalidRequest` and `MessageTooLarge`.
        """
        if self._closed:
            raise BrokerUnavailable("the client was closed")
        if wait_s is not None and wait_s < 0:
            raise InvalidRequest(f"wait_s must not be negative, and is {wait_s}")
        now = time.time()
        fields = {key: value for key, value in (given or {}).items() if value is not None}
        named = names(
            ids,
            keys,
            once_s=once_s,
            key_once_s=self._settings.result_ttl_s,
            # Nobody else submits this id; a try after a lost connection does.
            made_once_s=max(60, round(3 * self._patience_s)),
        )
        every = []
        for request in requests:
            name = next(named, None)
            if name is None:
                raise InvalidRequest("there are more requests than ids or idempotency keys")
            ready = prepare(request, fields, now=now, deadline_s=deadline_s)
            every.append(
                submission(
                    ready,
                    name,
                    reply_to=self._channel,
                    max_bytes=self._settings.max_message_bytes,
                )
            )
        if (ids is not None or keys is not None) and next(named, None) is not None:
            raise InvalidRequest("there are more ids or idempotency keys than requests")
        delivery = Delivery(self._outbox, every, wait_s)

        def handles() -> list[Handle]:
            # Another client's request is told on another client's channel. An id that was made
            # here and is known was accepted at an earlier try.
            read_at = time.monotonic() + READ_AFTER_S
            return [
                Handle(
                    self._inbox,
                    id,
                    own=not known or self._named or (ids is None and id == sent),
                    # What was accepted a moment ago is hardly answered yet.
                    read_at=0.0 if known else read_at,
                )
                for sent, id, known in delivery.accepted_as()
            ]

        return delivery, handles

    def handle(self, id: str) -> Handle:
        """Return the handle of a request that was submitted before, here or elsewhere."""
        return Handle(self._inbox, id, own=self._named)

    def feedback(
        self, id: str, score: float, comment: str | None = None, *, model: str | None = None
    ) -> None:
        """Say what the answer to a request is worth, from 0 to 1: experiments go by it.

        `model` is another one that answered it, such as a shadow, where it is about that. Raises
        `InvalidRequest` for another score or model, `ModelyardError` where there is no answer
        (yet), `RequestFailed` or `RequestRevoked` where there will be none, and `BrokerError`.
        """
        self.handle(id).feedback(score, comment, model=model)

    def as_completed(
        self, handles: Iterable[Handle], timeout_s: float | None = None
    ) -> Iterator[Handle]:
        """Yield each handle when its outcome is there, whatever the order.

        Raises `ResultTimeout` (or `BrokerUnavailable`) when `timeout_s` seconds passed in all.
        """
        return self._inbox.as_completed(handles, timeout_s)

    def when_done(self, handles: Iterable[Handle], callback: Callable[[Handle], object]) -> None:
        """Call `callback` with each handle when its outcome is there, or can't be waited for.

        It is called in the thread that waits for all outcomes (in this one for what is there
        already), so it must be quick. `handle.result(0)` then returns or raises at once.
        """
        self._inbox.when_done(handles, callback)

    def _cancel(self, id: str) -> bool:
        """Cancel a request, as `Handle.cancel`."""
        now = time.time()
        give_up = time.monotonic() + self._patience_s
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                won = cancel(
                    self._outbox.redis,
                    id,
                    channel=self._channel,
                    ttl_s=self._settings.result_ttl_s,
                    now=now,
                )
            except (redis.RedisError, OSError) as error:
                told = broker_error(error)
                passes = isinstance(told, BrokerUnavailable)
                if not passes or time.monotonic() + backoff_s > give_up:
                    raise told from error
                time.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
            else:
                break
        if won:
            self._broadcast.revoke(id)
        return won


def finish(delivery: Delivery) -> None:
    """Carry a delivery out, with its pauses. Raises `BrokerError`."""
    while (pause_s := delivery.step()) is not None:
        time.sleep(pause_s)


open_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def after_fork() -> None:
    """Give the open clients of a forked child connections of their own."""
    for client in list(open_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
