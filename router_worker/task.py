"""The router's task, and the strategy by which a Celery worker runs it.

A strategy is Celery's own extension point for how a worker handles a task's messages
(`Task.Strategy`). This one routes in the consumer itself: no pool, no result, no second decoding.
All the rest stays Celery's: the queue is consumed by the worker's own consumer, so `inspect`,
`control`, warm shutdown and Flower's list of queues need nothing of us.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from celery import Task, states
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.worker import state as worker_state
from celery.worker.strategy import default as default_strategy
from kombu.exceptions import ContentDisallowed, DecodeError

from modelyard.catalog import Catalog
from modelyard.dead_letters import as_error, bury
from modelyard.errors import InvalidRequest
from modelyard.messages import DeadReason
from modelyard.names import CALL_TASK, ROUTE_TASK, model_queue, route_event_id
from modelyard.publish import publish, task_message
from router_worker.forward import Forwarded, Refused, forward, refused, summary

logger = logging.getLogger("modelyard.router")


class RouteTask(Task):
    """First hop of every request."""

    name = ROUTE_TASK
    acks_late = True
    ignore_result = False
    catalog: Catalog

    def run(self, payload: Any) -> None:
        """Route one request in a pool: the path of messages with an ETA or an expiry."""
        request = self.request
        self.hop(request.id, payload, request.reply_to or "")
        raise Ignore

    def hop(self, id: str, payload: Any, reply_to: str) -> str:
        """Send a request on, or end it, and return in a few words what was done.

        The message may be acknowledged only after this has returned.
        """
        outcome = forward(id, payload, self.catalog, time.time())
        if isinstance(outcome, Refused):
            return self.end(outcome, reply_to)
        return self.send_on(id, outcome, reply_to)

    def send_on(self, id: str, forwarded: Forwarded, reply_to: str) -> str:
        """Publish the next hop under the same id."""
        words = summary(forwarded.call.decision)
        queue = model_queue(forwarded.call.model)
        message = task_message(
            self.app,
            task=CALL_TASK,
            id=id,
            payload=forwarded.call.encode(),
            queue=queue,
            summary=words,
            reply_to=reply_to,
            parent_id=route_event_id(id),
            shadow=queue,
        )
        with self.app.producer_pool.acquire(block=True) as producer:
            publish(producer, message)
        return words

    def end(self, ended: Refused, reply_to: str) -> str:
        """Store the dead letter, then the error that the producer gets."""
        letter = ended.letter
        logger.warning(
            "request %s is a dead letter: %s: %s", letter.id, letter.reason, letter.message
        )
        bury(self.app, letter)
        self.app.backend.store_result(
            letter.id, as_error(letter), states.FAILURE, request=Context(reply_to=reply_to)
        )
        return f"dead letter: {letter.reason}"

    def Strategy(self, task: Task, app: Any, consumer: Any) -> Callable[..., Any]:
        """Return the handler of this task's messages; Celery calls it at each connection."""
        in_pool = default_strategy(task, app, consumer)
        revoked = consumer.controller.state.revoked

        def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
            headers = message.headers
            if body is not None or headers.get("eta") or headers.get("expires"):
                return in_pool(message, body, ack, reject, callbacks)
            id = headers["id"]
            reply_to = message.properties.get("reply_to") or ""
            if id in revoked:
                app.backend.mark_as_revoked(id, "revoked", request=Context(reply_to=reply_to))
                send(
                    consumer, "task-revoked", uuid=id, terminated=False, signum=None, expired=False
                )
                return ack(logger, consumer.connection_errors)
            started = time.monotonic()
            event_id = route_event_id(id)
            send(
                consumer,
                "task-received",
                uuid=event_id,
                name=self.name,
                args=headers.get("argsrepr", ""),
                kwargs="{}",
                root_id=id,
                parent_id=None,
                retries=0,
                eta=None,
                expires=None,
            )
            send(consumer, "task-started", uuid=event_id)
            try:
                did = self.hop(id, payload_of(message), reply_to)
            except InvalidRequest as error:
                did = self.end(
                    refused(id, DeadReason.INVALID, str(error), {}, time.time()), reply_to
                )
            worker_state.total_count[self.name] += 1
            ack(logger, consumer.connection_errors)
            runtime = time.monotonic() - started
            logger.info("request %s: %s (%.1f ms)", id, did, 1000 * runtime)
            send(consumer, "task-succeeded", uuid=event_id, result=did, runtime=runtime)
            return None

        return handle


def payload_of(message: Any) -> Any:
    """Return the message's one argument. Raises `InvalidRequest` if it can't be read."""
    try:
        args, kwargs, _ = message.payload
    except (DecodeError, ContentDisallowed, ValueError, TypeError) as error:
        raise InvalidRequest(f"its message can't be read: {str(error)[:300]}") from error
    if len(args) == 1 and not kwargs:
        return args[0]
    if not args and set(kwargs) == {"payload"}:
        return kwargs["payload"]
    return {"args": args, "kwargs": kwargs}


def send(consumer: Any, type: str, **fields: Any) -> None:
    """Send an event if anybody asked for events."""
    events = consumer.event_dispatcher
    if events is not None and events.enabled:
        events.send(type, **fields)
