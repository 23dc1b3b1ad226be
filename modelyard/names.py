"""Every queue, task, Redis key, channel and header name, in one place.

Whoever reads the broker with `redis-cli` finds here what each key is.
"""

from typing import Final

REQUESTS_QUEUE: Final = "requests"
"""Where every request starts; the router worker drains it."""

MODEL_QUEUE_PREFIX: Final = "model."
"""A model's own queue is this and its catalog name."""

ROUTE_TASK: Final = "modelyard.route"
"""First hop. One argument: a `Request` as JSON."""

CALL_TASK: Final = "modelyard.call"
"""Second and later hops. One argument: a `Call` as JSON."""

RESULT_KEY_PREFIX: Final = "celery-task-meta-"
"""Celery's own key (and channel) of a result: any Celery client finds the answer there."""

REPLY_CHANNEL_PREFIX: Final = "modelyard:answers:"
"""A client's channel: the id of each of its requests is published there with its outcome."""

SUBMITTED_KEY_PREFIX: Final = "modelyard:submitted:"
"""Exists once a message with this mark (a request's id, or a hop of it) was put on a queue."""

DEAD_LETTERS_KEY: Final = "modelyard:dead_letters"
"""A hash from request id to `DeadLetter` as JSON."""

ONCE_HEADER: Final = "modelyard-once"
"""Message header: a mark, and for how many seconds a second message with it is not accepted."""

ROUTER_NODE: Final = "router"
"""Celery node name of a router worker, before the @."""


def model_queue(model: str) -> str:
    """Return the queue of the model that the catalog calls `model`."""
    return MODEL_QUEUE_PREFIX + model


def queue_model(queue: str) -> str | None:
    """Return the model whose queue this is, or None if it is no model's queue."""
    return queue.removeprefix(MODEL_QUEUE_PREFIX) if queue.startswith(MODEL_QUEUE_PREFIX) else None


def route_event_id(request_id: str) -> str:
    """Return the id under which the router's own hop appears in events.

    An event of the hop under the request's own id would end the request in Flower before
    the model was even called: there a task has one terminal state.
    """
    return f"{request_id}:route"


def hop_mark(request_id: str, step: int) -> str:
    """Return the mark by which the hop to the plan's step number `step` is made once."""
    return f"{request_id}:{step}"
