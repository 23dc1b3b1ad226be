"""The router's task, and the strategy by which a Celery worker runs it.

A strategy is Celery's own extension point for how a worker handles a task's messages
(`Task.Strategy`). This one routes in the consumer itself: no pool, no result, one decoding.
All the rest stays Celery's: the queue is consumed by the worker's own consumer, so `inspect`,
`control`, warm shutdown and Flower's list of queues need nothing of us.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import redis
from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.worker import state as worker_state
from celery.worker.strategy import default as default_strategy
from kombu.exceptions import OperationalError

from modelyard.catalog import Catalog
from modelyard.dead_letters import end
from modelyard.errors import InvalidRequest
from modelyard.messages import DeadReason
from modelyard.names import CALL_TASK, ROUTE_TASK, hop_mark, model_queue, route_event_id
from modelyard.publish import publish, task_message
from modelyard.received import argument
from modelyard.redis_errors import passes
from router_worker.forward import Forwarded, Refused, forward, refused, summary

logger = logging.getLogger("modelyard.router")

REFUSED_S = 1.0
"""How long the router waits before it writes again to a Redis that refused it, in seconds."""


class RouteTask(Task):
    """First hop of every request."""

    name = ROUTE_TASK
    acks_late = True
    ignore_result = False
    catalog: Catalog
    once_s = 3600

    def run(self, payload: Any) -> None:
        """Route one request in a pool: the path of messages with an ETA."""
        request = self.request
        self.hop(request.id, payload, request.reply_to or "", expiry(request.expires))
        raise Ignore

    def hop(self, id: str, payload: Any, reply_to: str, expires: float | None) -> str:
        """Send a request on, or end it, and return in a few words what was done.

        The message may be acknowledged only after this has returned.
        """
        outcome = forward(id, payload, self.catalog, time.time(), expires)
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
            # A router that dies between this and its ack routes the request again.
            mark=hop_mark(id, 0),
            once_s=self.once_s,
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
        end(self.app, letter, reply_to)
        return f"dead letter: {letter.reason}"

    def take(self, message: Any, reply_to: str) -> str:
        """Route one message whatever is in it, waiting while Redis refuses to be written to.

        Raises connection errors, upon which the worker reconnects and the message comes again,
        and `WorkerShutdown`.
        """
        id = message.headers["id"]
        while True:
            try:
                return self.take_once(id, message, reply_to)
            except redis.ResponseError as error:
                if not passes(error):
                    raise
                logger.warning("Redis refuses to be written to, trying again: %s", error)
                worker_state.maybe_shutdown()
                time.sleep(REFUSED_S)

    def take_once(self, id: str, message: Any, reply_to: str) -> str:
        """Route one message. A request that breaks the router is a dead letter, not its end."""
        try:
            return self.hop(id, argument(message), reply_to, expiry(message.headers.get("expires")))
        except InvalidRequest as error:
            why = str(error)
        except (redis.RedisError, OperationalError, OSError):
            raise
        except Exception as error:
            logger.exception("request %s can't be routed", id)
            why = f"the router failed on it: {type(error).__name__}"
        return self.end(refused(id, DeadReason.INVALID, why, {}, time.time()), reply_to)

    def Strategy(self, task: Task, app: Any, consumer: Any) -> Callable[..., Any]:
        """Return the handler of this task's messages; Celery calls it at each connection."""
        in_pool = default_strategy(task, app, consumer)
        revoked = consumer.controller.state.revoked

        def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
            headers = message.headers
            if not isinstance(headers.get("id"), str):
                logger.error("a message without an id is dropped: nobody can wait for its outcome")
                return reject(logger, consumer.connection_errors)
            if body is not None or headers.get("eta"):
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
                expires=headers.get("expires"),
            )
            send(consumer, "task-started", uuid=event_id)
            did = self.take(message, reply_to)
            worker_state.total_count[self.name] += 1
            ack(logger, consumer.connection_errors)
            runtime = time.monotonic() - started
            logger.info("request %s: %s (%.1f ms)", id, did, 1000 * runtime)
            send(consumer, "task-succeeded", uuid=event_id, result=did, runtime=runtime)
            return None

        return handle


def expiry(expires: str | datetime | None) -> float | None:
    """Return a task message's expiry in seconds since the epoch. One that is none is ignored."""
    if isinstance(expires, str):
        try:
            expires = datetime.fromisoformat(expires)
        except ValueError:
            return None
    if expires is None:
        return None
    return (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp()


def send(consumer: Any, type: str, **fields: Any) -> None:
    """Send an event if anybody asked for events."""
    events = consumer.event_dispatcher
    if events is not None and events.enabled:
        events.send(type, **fields)
