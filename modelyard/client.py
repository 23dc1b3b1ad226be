"""Submitting requests and fetching their outcomes, for programs that run on threads.

`async_client.AsyncClient` is the same for programs on asyncio.
"""

import os
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import redis
from kombu import pools
from kombu.exceptions import BatchPublishError, LimitExceeded, OperationalError
from kombu.messaging import Producer
from pydantic import ValidationError

from modelyard.app import make_app
from modelyard.errors import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    InvalidRequest,
    ModelyardError,
    ResultTimeout,
)
from modelyard.messages import Answer, Lane, Request, problems
from modelyard.names import REPLY_CHANNEL_PREFIX, REQUESTS_QUEUE, RESULT_KEY_PREFIX, ROUTE_TASK
from modelyard.outcome import Outcome, read_outcome
from modelyard.publish import TaskMessage, publish, task_message
from modelyard.settings import Settings, load_settings
from modelyard.tokens import estimate_tokens
from modelyard.waiter import Waiter

PUBLISH_AT_ONCE = 200
ONCE_S = 600
"""For how long a publish that is tried again is recognized as the same one, in seconds."""
PASSING = ("READONLY", "LOADING", "MISCONF", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN")
"""Redis refuses with these for a while only: it starts, fails over or can't save just now."""
UNENCODABLE = (ValueError, TypeError, RecursionError)
"""What encoders raise: pydantic, `json` and `str.encode`."""


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
        self._app = make_app("modelyard.client", broker_url, self._settings, current=False)
        self._named = name is not None
        self._channel = REPLY_CHANNEL_PREFIX + (name or str(uuid.uuid4()))
        self._patience_s = patience_s
        self._url: str = self._app.conf.broker_url
        # A Redis that hangs holds a submit up for half the patience, so there is a second try.
        # `retry_on_timeout` stays unset: with it kombu sends a batch one by one.
        self._socket_timeouts = dict.fromkeys(
            ("socket_timeout", "socket_connect_timeout"), max(1.0, patience_s / 2)
        )
        self._app.conf.broker_transport_options = {
            **self._app.conf.broker_transport_options,
            **self._socket_timeouts,
            "max_retries": 0,  # `_publish` tries again
        }
        self._connect()
        open_clients.add(self)

    def _connect(self) -> None:
        self._waiter = Waiter(self._url, self._channel)
        self._redis = redis.Redis.from_url(
            self._url, health_check_interval=25, **self._socket_timeouts
        )

    def _after_fork(self) -> None:
        """Share no thread, lock or socket with the parent process."""
        self._app._after_fork()
        self._waiter.abandon()
        self._connect()

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
        open_clients.discard(self)
        self._waiter.close()
        self._redis.close()
        self._app.close()

    def submit(
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
    ) -> "Handle":
        """Put a request on the queue and return its handle at once.

        `request` is a text (one user message) or a whole `Request`, whose fields the other
        arguments override. `deadline_s` counts from now. A second submit of the same `id` within
        `once_s` seconds is not a second request. Raises `InvalidRequest`, `MessageTooLarge`,
        `BrokerUnavailable`, `BrokerFull`, or `BrokerError` in Redis's own words if it refuses.
        """
        given = {
            "route": route,
            "lane": lane,
            "models": models,
            "params": params,
            "metadata": metadata,
        }
        ready = prepare(
            request,
            {key: value for key, value in given.items() if value is not None},
            now=time.time(),
            deadline_s=deadline_s,
        )
        id = id or str(uuid.uuid4())
        self._publish([self._message(id, ready, once_s)])
        return Handle(self, id, own=True)

    def submit_many(
        self,
        requests: Iterable[str | Request],
        *,
        ids: Iterable[str] | None = None,
        once_s: int = ONCE_S,
    ) -> "list[Handle]":
        """Put many requests on the queue, many at a time, and return their handles in order.

        Nothing is sent if one of them is invalid. Raises as `submit` does; after a
        `BrokerError` submit the same `ids` again: what was accepted is not accepted twice.
        """
        now = time.time()
        ready = [prepare(request, {}, now=now, deadline_s=None) for request in requests]
        named = list(ids) if ids is not None else [str(uuid.uuid4()) for _ in ready]
        messages = [
            self._message(id, request, once_s) for id, request in zip(named, ready, strict=True)
        ]
        for start in range(0, len(messages), PUBLISH_AT_ONCE):
            self._publish(messages[start : start + PUBLISH_AT_ONCE])
        return [Handle(self, id, own=True) for id in named]

    def handle(self, id: str) -> "Handle":
        """Return the handle of a request that was submitted before, here or elsewhere."""
        return Handle(self, id, own=self._named)

    def as_completed(
        self, handles: "Iterable[Handle]", timeout_s: float | None = None
    ) -> "Iterator[Handle]":
        """Yield each handle when its outcome is there, whatever the order.

        Raises `ResultTimeout` (or `BrokerUnavailable`) when `timeout_s` seconds passed in all.
        """
        waited = list(handles)
        arrived: SimpleQueue[Handle] = SimpleQueue()
        self.when_done(waited, arrived.put)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for seen in range(len(waited)):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            handle = first(arrived, left)
            if handle is None:
                self._look(waited)
                handle = first(arrived, 0.0)
            if handle is None:
                raise self._late(f"{len(waited) - seen} of {len(waited)} requests", timeout_s)
            yield handle

    def when_done(
        self, handles: "Iterable[Handle]", callback: "Callable[[Handle], object]"
    ) -> None:
        """Call `callback` with each handle when its outcome is there, or can't be waited for.

        It is called in the thread that waits for all outcomes (in this one for what is there
        already), so it must be quick. `handle.result(0)` then returns or raises at once.
        """

        def bind(handle: "Handle") -> "Callable[[Future[Outcome]], object]":
            return lambda _: callback(handle)

        waited = list(handles)
        for handle in waited:
            handle._forget_failure()
        for future, handle in self._futures(waited):
            future.add_done_callback(bind(handle))

    def _futures(self, handles: "Sequence[Handle]") -> "list[tuple[Future[Outcome], Handle]]":
        """Return each handle's future, asking the waiter once for all that have none yet."""
        waiter = self._waiter
        futures = {h: known for h in handles if (known := h._known(waiter)) is not None}
        new = [handle for handle in dict.fromkeys(handles) if handle not in futures]
        for own in (True, False):
            some = [h for h in new if (h._own and h._client is self) is own]
            expected = waiter.expect([h.id for h in some], own=own) if some else {}
            for handle in some:
                futures[handle] = expected[handle.id]
                handle._asked = waiter, expected[handle.id]
        return [(futures[handle], handle) for handle in handles]

    def _look(self, handles: "Iterable[Handle]") -> None:
        """Have what is still open read once more, before giving up."""
        self._waiter.look([handle.id for handle in handles if not handle._ended])

    def _peek(self, id: str) -> Outcome | None:
        try:
            raw = self._redis.get(RESULT_KEY_PREFIX + id)
        except (redis.RedisError, OSError) as error:
            raise broker_error(error) from error
        return None if raw is None else read_outcome(raw, id)

    def _late(self, what: str, timeout_s: float | None) -> ModelyardError:
        if not self._waiter.connected:
            return BrokerUnavailable(f"{what}: no connection to the broker in {timeout_s} s")
        return ResultTimeout(f"{what}: no outcome within {timeout_s} s")

    def _message(self, id: str, request: Request, once_s: int) -> TaskMessage:
        try:
            id.encode()
            return task_message(
                self._app,
                task=ROUTE_TASK,
                id=id,
                payload=request.encode(),
                queue=REQUESTS_QUEUE,
                summary=f"about {estimate_tokens(request.text):,} tokens",
                reply_to=self._channel,
                once_s=once_s,
                max_bytes=self._settings.max_message_bytes,
            )
        except InvalidRequest:
            raise
        except UNENCODABLE as error:
            raise unencodable(error) from error

    def _publish(self, messages: Sequence[TaskMessage]) -> None:
        """Publish, and publish again after a lost connection: the ids make that harmless."""
        give_up = time.monotonic() + self._patience_s
        backoff_s = 0.1
        while True:
            try:
                self._publish_once(messages, give_up)
            except BrokerUnavailable:
                if time.monotonic() + backoff_s > give_up:
                    raise
                time.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, 2.0)
            else:
                return

    def _publish_once(self, messages: Sequence[TaskMessage], give_up: float) -> None:
        left = max(0.0, give_up - time.monotonic())
        try:
            # Not the pool of producers: it waits for a connection without a limit.
            with self._app.pool.acquire(block=True, timeout=left) as connection:
                producer = Producer(connection)
                with producer.batch(max_size=PUBLISH_AT_ONCE):
                    for message in messages:
                        publish(producer, message)
        except LimitExceeded as error:
            raise BrokerUnavailable(
                f"all {error} connections of this process are in use by other threads"
            ) from error
        except (BatchPublishError, OperationalError, redis.RedisError, OSError) as error:
            raise broker_error(error) from error


class Handle:
    """A submitted request: its `id`, and its outcome when there is one."""

    def __init__(self, client: Client, id: str, *, own: bool) -> None:
        self.id = id
        self._client = client
        self._own = own
        self._asked: tuple[Waiter, Future[Outcome]] | None = None

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def done(self) -> bool:
        """Return whether the outcome is there. Raises `BrokerError`."""
        if self._ended and not self._given_up:
            return True
        return self._client._peek(self.id) is not None

    def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer.

        Raises `RequestFailed` with id, reason and attempts if the request became a dead letter,
        `RequestRevoked`, `ResultTimeout` after `timeout_s` seconds (the request goes on), or
        `BrokerUnavailable`. After the last two it can be called again.
        """
        ((future, _),) = self._client._futures([self])
        wait([future], timeout_s)
        if not future.done():
            self._client._look([self])
        return self._read(future, timeout_s)

    def _read(self, future: "Future[Outcome]", timeout_s: float | None) -> Answer:
        """Return or raise what is in the future after `timeout_s` seconds."""
        if not future.done():
            raise self._client._late(f"request {self.id}", timeout_s)
        try:
            outcome = future.result()
        except BrokerUnavailable:
            self._forget_failure()
            raise
        if isinstance(outcome, ModelyardError):
            raise outcome
        return outcome

    @property
    def _ended(self) -> bool:
        return self._asked is not None and self._asked[1].done()

    @property
    def _given_up(self) -> bool:
        """Whether it ended without an outcome."""
        if self._asked is None or not self._asked[1].done():
            return False
        future = self._asked[1]
        return future.cancelled() or future.exception() is not None

    def _known(self, waiter: Waiter) -> "Future[Outcome] | None":
        """Return the future that `waiter` was asked for, or another's that has ended."""
        if self._asked is None:
            return None
        asked, future = self._asked
        return future if asked is waiter or future.done() else None

    def _forget_failure(self) -> None:
        """Let the next wait begin anew: the broker may be back."""
        if self._given_up:
            self._asked = None


def first(arrived: "SimpleQueue[Handle]", timeout_s: float | None) -> Handle | None:
    """Return what is there or comes within `timeout_s` seconds, or None."""
    try:
        return arrived.get(timeout=timeout_s)
    except Empty:
        return None


def prepare(
    request: str | Request,
    given: Mapping[str, Any],
    *,
    now: float,
    deadline_s: float | None,
) -> Request:
    """Return the request with what was given, stamped with the time. Raises `InvalidRequest`."""
    try:
        fields: dict[str, Any] = (
            {"text": request}
            if isinstance(request, str)
            else request.model_dump(exclude_defaults=True)
        )
    except UNENCODABLE as error:
        raise unencodable(error) from error
    if deadline_s is not None:
        if deadline_s <= 0:
            raise InvalidRequest(f"deadline_s must be positive, not {deadline_s}")
        fields["deadline"] = now + deadline_s
    try:
        return Request.model_validate({**fields, **given, "submitted_at": now})
    except ValidationError as error:
        raise InvalidRequest(problems(error)) from error


def unencodable(error: Exception) -> InvalidRequest:
    """Return the error of a request that JSON has no form for."""
    return InvalidRequest(f"the request can't be written as JSON in UTF-8: {error}")


def broker_error(error: BaseException) -> BrokerError:
    """Return the error of a failed command in modelyard's words, or in Redis's if it refused."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, redis.ConnectionError | redis.TimeoutError):
        if isinstance(cause, redis.ResponseError):
            return refusal(cause)
        cause = cause.__cause__ or cause.__context__
    return BrokerUnavailable(f"can't reach the broker: {error.__cause__ or error}")


def refusal(error: redis.ResponseError) -> BrokerError:
    """Return the error of a command that Redis refused: for ever, or for as long as it is so."""
    # Before Redis's words redis-py has the command, and for some errors it cuts their code off.
    words = str(error).rpartition(" caused error: ")[2]
    if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM " in words:
        return BrokerFull("Redis has no memory left (maxmemory): nothing was submitted")
    passes = isinstance(
        error,
        redis.exceptions.ReadOnlyError
        | redis.exceptions.ClusterDownError
        | redis.exceptions.TryAgainError,
    ) or any(code in words for code in PASSING)
    kind = BrokerUnavailable if passes else BrokerError
    return kind(f"the broker refused it: {words}")


open_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def after_fork() -> None:
    """Do for the open clients of a forked child what kombu does for billiard's."""
    clients = list(open_clients)
    if clients:
        pools.connections.clear()
    for client in clients:
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
