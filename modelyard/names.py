"""Every queue, task, Redis key, channel and header name, in one place.

Whoever reads the broker with `redis-cli` finds here what each key is.
"""

from typing import Final

REQUESTS_QUEUE: Final = "requests"
"""Where every request starts; the router worker drains it."""

MODEL_QUEUE_PREFIX: Final = "model."
"""A model's own queue is this and its catalog name."""

BATCH_PREFIX: Final = "batch."
"""Before a queue's name: its batch lane. Without it: the interactive lane."""

ROUTE_TASK: Final = "modelyard.route"
"""First hop. One argument: a `Request` as JSON."""

CALL_TASK: Final = "modelyard.call"
"""Second and later hops. One argument: a `Call` as JSON."""

RESULT_KEY_PREFIX: Final = "celery-task-meta-"
"""Celery's own key (and channel) of a result: any Celery client finds the answer there."""

REPLY_CHANNEL_PREFIX: Final = "modelyard:answers:"
"""A client's channel: the id and the result of each of its requests are published there."""

SUBMITTED_KEY_PREFIX: Final = "modelyard:submitted:"
"""The id of the request that was put on a queue under this mark: its id, or the producer's key."""

CLAIMS_KEY: Final = "modelyard:claims"
"""A hash from claim to what some worker has in hand: queue, a zero byte, message."""

LEASES_KEY: Final = "modelyard:leases"
"""A sorted set of claims by when their lease runs out, in milliseconds since the epoch."""

WAKE_KEY_PREFIX: Final = "modelyard:wake:"
"""Before a queue's name: a list of at most one token, which wakes one idle worker."""

BEHIND_KEY_PREFIX: Final = "modelyard:behind:"
"""Before the name of a lane of `requests`: a set of the queues to which its requests go on."""

CANCELLED_KEY: Final = "modelyard:cancelled"
"""A sorted set of cancelled ids by when they may be forgotten, in seconds since the epoch."""

DEAD_LETTERS_KEY: Final = "modelyard:dead_letters"
"""A hash from request id to `DeadLetter` as JSON."""

DEAD_LETTERS_BY_AGE_KEY: Final = "modelyard:dead_letters:by_age"
"""A sorted set of the ids in `DEAD_LETTERS_KEY` by when they died, in seconds since the epoch."""

COUNTERS_KEY: Final = "modelyard:counters"
"""A hash of counts since the store was made: `taken_over`, `duplicates`,
`dead_<reason>`, `replayed`, `dropped`."""

WORKERS_KEY: Final = "modelyard:workers"
"""A hash from node name to the last heartbeat of a worker as JSON."""

ONCE_HEADER: Final = "modelyard-once"
"""Message header: a mark, and for how many seconds a second message with it is not accepted."""

DELIVERIES_HEADER: Final = "modelyard-deliveries"
"""Message header: how many times a worker that had this message was lost."""

ROUTER_NODE: Final = "router"
"""Celery node name of a router worker, before the @."""


def in_lane(queue: str, *, batch: bool) -> str:
    """Return the name of `queue` in its batch or its interactive lane."""
    queue = queue.removeprefix(BATCH_PREFIX)
    return BATCH_PREFIX + queue if batch else queue


def model_queue(model: str, *, batch: bool = False) -> str:
    """Return the queue of the model that the catalog calls `model`."""
    return in_lane(MODEL_QUEUE_PREFIX + model, batch=batch)


def queue_model(queue: str) -> str | None:
    """Return the model whose queue this is, in either lane, or None if it is no model's queue."""
    queue = queue.removeprefix(BATCH_PREFIX)
    return queue.removeprefix(MODEL_QUEUE_PREFIX) if queue.startswith(MODEL_QUEUE_PREFIX) else None


def route_event_id(request_id: str) -> str:
    """Return the id under which the router's own hop appears in events.

    An event of the hop under the request's own id would end the request in Flower before
    the model was even called: there a task has one terminal state.
    """
    return f"{request_id}:route"
