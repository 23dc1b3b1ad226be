"""The router's task, and the strategy by which a Celery worker runs it.

A strategy is Celery's own extension point for how a worker handles a task's messages
(`Task.Strategy`). This one routes in the consumer itself, in batches: no pool, no result, one
decoding. All the rest stays Celery's: the queue is consumed by the worker's own consumer, so
`inspect`, `control`, warm shutdown and Flower's list of queues need nothing of us.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import redis
from celery import Task
from celery.exceptions import Ignore
from celery.worker.strategy import default as default_strategy

from modelyard.holdings import ledger
from modelyard.names import ROUTE_TASK
from modelyard.settling import settle_surely
from router_worker.basis import Basis
from router_worker.batch import Batch, route
from router_worker.expiry import expiry
from router_worker.now import escalated_to

logger = logging.getLogger("modelyard.router")


class RouteTask(Task):
    """First hop of every request."""

    name = ROUTE_TASK
    acks_late = True
    ignore_result = False
    basis: Basis
    result_ttl_s = 7 * 24 * 3600

    def run(self, payload: Any) -> None:
        """Route one request in a pool: the path of messages with an ETA, or under a rate limit."""
        request, basis, client = self.request, self.basis, self.app.backend.client
        claim, expires = request.properties["delivery_tag"], expiry(request.expires)
        basis.heed(payload, expires)
        settlement, _ = route(
            claim,
            request.id,
            payload,
            catalog=basis.catalog,
            result_ttl_s=self.result_ttl_s,
            reply_to=request.reply_to or "",
            expires=expires,
            redelivered=bool((request.delivery_info or {}).get("redelivered")),
            now=time.time(),
            knowledge=basis.knowledge(),
            escalated=remembered(payload, client),
        )
        settle_surely(client, settlement)
        ledger.settled([claim])
        raise Ignore

    def Strategy(self, task: Task, app: Any, consumer: Any) -> Callable[..., Any]:
        """Return the handler of this task's messages; Celery calls it at each connection."""
        in_pool = default_strategy(task, app, consumer)
        batch = Batch(self.name, lambda: self.basis, self.result_ttl_s, consumer)

        def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
            headers = message.headers
            if not isinstance(headers.get("id"), str):
                logger.error("a message without an id is dropped: nobody can wait for its outcome")
                return reject(logger, consumer.connection_errors)
            # `control rate_limit` holds messages back one by one, which is the pool's path too.
            if body is not None or headers.get("eta") or consumer.task_buckets[task.name]:
                return in_pool(message, body, ack, reject, callbacks)
            return batch.take(message)

        return handle


def remembered(payload: Any, client: redis.Redis) -> str | None:
    """Return the model that a request's session was escalated to, or None where nobody tells."""
    try:
        return escalated_to(payload, client)
    except UnicodeEncodeError:
        return None  # a lone surrogate: the request is refused for it
    except (redis.RedisError, OSError) as error:
        # What is remembered of sessions is not worth holding up requests for.
        logger.warning("Redis does not tell where sessions are: %s", error)
        return None
