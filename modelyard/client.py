"""Submitting requests and fetching their outcomes, for programs that run on threads.

`async_client.AsyncClient` is the same for programs on asyncio.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import redis
from kombu.exceptions import BatchPublishError, OperationalError
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


class Client:
    """A connection to a yard. Safe to share between threads; close it, or use it in a `with`.

    `broker_url` overrides `MODELYARD_BROKER_URL`. A client with a `name` hears the outcomes of
    all requests that a client of that name submitted: a job that is started again uses its name
    again. `patience_s` is for how long a submit tries to reach the broker.
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
        self._waiter = Waiter(self._url, self._channel)
        self._redis = redis.Redis.from_url(self._url, health_check_interval=25)

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
        `BrokerUnavailable` or `BrokerFull`.
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
            try:
                yield arrived.get(timeout=left)
            except Empty:
                what = f"{len(waited) - seen} of {len(waited)} requests"
                raise self._late(what, timeout_s) from None

    def when_done(
        self, handles: "Iterable[Handle]", callback: "Callable[[Handle], object]"
    ) -> None:
        """Call `callback` with each handle when its outcome is there, or can't be waited for.

        It is called in the thread that waits for all outcomes (in this one for what is there
        already), so it must be quick. `handle.result(0)` then returns or raises at once.
        """

        def bind(handle: "Handle") -> "Callable[[Future[Outcome]], object]":
            return lambda _: callback(handle)

        for future, handle in self._futures(list(handles)):
            future.add_done_callback(bind(handle))

    def _futures(self, handles: "Sequence[Handle]") -> "Iterator[tuple[Future[Outcome], Handle]]":
        """Return each handle's future, asking the waiter once for all that have none yet."""
        for own in (True, False):
            new = [h.id for h in handles if h._future is None and h._own is own]
            expected = self._waiter.expect(new, own=own) if new else {}
            for handle in handles:
                if handle._future is None and handle._own is own:
                    handle._future = expected[handle.id]
        return ((handle._future, handle) for handle in handles if handle._future is not None)

    def _peek(self, id: str) -> Outcome | None:
        try:
            raw = self._redis.get(RESULT_KEY_PREFIX + id)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"can't read the result of {id}: {error}") from error
        return None if raw is None else read_outcome(raw)

    def _late(self, what: str, timeout_s: float | None) -> ModelyardError:
        if not self._waiter.connected:
            return BrokerUnavailable(f"{what}: no connection to the broker in {timeout_s} s")
        return ResultTimeout(f"{what}: no outcome within {timeout_s} s")

    def _message(self, id: str, request: Request, once_s: int) -> TaskMessage:
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

    def _publish(self, messages: Sequence[TaskMessage]) -> None:
        """Publish, and publish again after a lost connection: the ids make that harmless."""
        give_up = time.monotonic() + self._patience_s
        backoff_s = 0.1
        while True:
            try:
                self._publish_once(messages)
            except BrokerFull:
                raise
            except BrokerUnavailable:
                if time.monotonic() + backoff_s > give_up:
                    raise
                time.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, 2.0)
            else:
                return

    def _publish_once(self, messages: Sequence[TaskMessage]) -> None:
        try:
            with (
                self._app.producer_pool.acquire(block=True) as producer,
                producer.batch(max_size=PUBLISH_AT_ONCE),
            ):
                for message in messages:
                    publish(producer, message)
        except (BatchPublishError, OperationalError, redis.RedisError, OSError) as error:
            raise broker_error(error) from error


class Handle:
    """A submitted request: its `id`, and its outcome when there is one."""

    def __init__(self, client: Client, id: str, *, own: bool) -> None:
        self.id = id
        self._client = client
        self._own = own
        self._future: Future[Outcome] | None = None

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def done(self) -> bool:
        """Return whether the outcome is there. Raises `BrokerUnavailable`."""
        if self._future is not None and self._future.done():
            return True
        return self._client._peek(self.id) is not None

    def result(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer.

        Raises `RequestFailed` with id, reason and attempts if the request became a dead letter,
        `RequestRevoked`, `ResultTimeout` after `timeout_s` seconds (the request goes on), or
        `BrokerUnavailable`.
        """
        ((future, _),) = self._client._futures([self])
        try:
            outcome = future.result(timeout_s)
        except FutureTimeout:
            raise self._client._late(f"request {self.id}", timeout_s) from None
        if isinstance(outcome, ModelyardError):
            raise outcome
        return outcome


def prepare(
    request: str | Request,
    given: Mapping[str, Any],
    *,
    now: float,
    deadline_s: float | None,
) -> Request:
    """Return the request with what was given, stamped with the time. Raises `InvalidRequest`."""
    fields: dict[str, Any] = (
        {"text": request} if isinstance(request, str) else request.model_dump(exclude_defaults=True)
    )
    if deadline_s is not None:
        if deadline_s <= 0:
            raise InvalidRequest(f"deadline_s must be positive, not {deadline_s}")
        fields["deadline"] = now + deadline_s
    try:
        return Request.model_validate({**fields, **given, "submitted_at": now})
    except ValidationError as error:
        raise InvalidRequest(problems(error)) from error


def broker_error(error: BaseException) -> BrokerError:
    """Return the error of a failed publish in modelyard's words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, redis.exceptions.OutOfMemoryError):
            return BrokerFull("Redis has no memory left (maxmemory): nothing was submitted")
        cause = cause.__cause__ or cause.__context__
    detail = error.__cause__ or error
    return BrokerUnavailable(f"can't reach the broker: {detail}")
