"""Which models a worker serves, how many calls it may hold, and what a changed catalog changes."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from celery.worker.control import pool_grow, pool_shrink
from kombu.entity import Queue

from modelyard.app import lanes
from modelyard.catalog import Catalog, Model, UnknownName
from modelyard.errors import ModelyardError
from modelyard.meant import meant
from modelyard.names import model_queue, queue_model

logger = logging.getLogger("modelyard.calls")


def served_models(catalog: Catalog, queues: Sequence[str]) -> tuple[Model, ...]:
    """Return the models whose queues these are; no queues stand for all that can be called.

    Queues that are no model's are somebody else's business. Raises `UnknownName`.
    """
    named = dict.fromkeys(queue_model(queue.strip()) for queue in queues)
    models = {model.name: model for name in named if name for model in (catalog.model(name),)}
    return tuple(models.values()) or catalog.live_models


def unknown_models(catalog: Catalog, queues: Sequence[str]) -> dict[str, str]:
    """Return the models of these queues that the catalog does not have, and what is told of each.

    None of them if it has none at all: there is nothing that a worker of these could do.
    """
    unknown = {}
    named = {name for queue in queues if (name := queue_model(queue.strip()))}
    for name in sorted(named):
        try:
            catalog.model(name)
        except UnknownName as error:
            unknown[name] = str(error)
    return unknown if len(unknown) < len(named) else {}


def leave_unknown(queues: Any, unknown: Mapping[str, str]) -> set[str]:
    """Have a worker that has yet to begin consume no queue of these models, and return those.

    What waits there is not called in the model's name by who does not know it, nor made a dead
    letter of: the catalog of another machine may have it. `queues` is the app's `amqp.queues`.
    """
    for why in unknown.values():
        told = (
            "%s: its queue is not served here, and what waits there goes on waiting, until the "
            "catalog has that model, or an alias of that name"
        )
        logger.warning(told, why)
    left = {queue for queue in queues.consume_from if queue_model(queue) in unknown}
    queues.deselect(sorted(left))
    return left


def known_again(catalog: Catalog, left: Iterable[str]) -> list[str]:
    """Return those of the queues that can be served here now."""
    known = []
    for queue in sorted(left):
        try:
            model = catalog.model(queue_model(queue) or "")
        except UnknownName:
            continue
        if model.disabled is None and not model.is_people:
            known.append(queue)
    return known


def concurrency(catalog: Catalog, queues: Sequence[str]) -> int:
    """Return how many calls a worker of these queues may hold.

    Raises `UnknownName`, and `ModelyardError` for queues that no worker serves, or that this one
    can't.
    """
    models = served_models(catalog, queues)
    people = [model.name for model in models if model.is_people]
    if people:
        raise ModelyardError(
            f"{', '.join(people)}: provider people has no worker: what waits there is answered by "
            "`modelyard inbox`"
        )
    off = [f"{model.name} ({model.disabled})" for model in models if model.disabled is not None]
    if off:
        # It would take messages from workers that have the key, and could only refuse them.
        raise ModelyardError(f"can't be called here: {', '.join(off)}")
    if not queues and not models:
        # Celery would have it consume `requests`, which is the router's.
        raise ModelyardError(f"no model of the catalog can be called here ({catalog.summary()})")
    return sum(model.concurrency for model in models) or 1


def queue_limits(catalog: Catalog, queues: Sequence[str]) -> dict[str, int]:
    """Return how many messages of each queue, both lanes together, a worker of several may have.

    A worker of one model is bounded by its concurrency, which can be changed as it runs.
    """
    served = served_models(catalog, queues)
    if len(served) == 1:
        return {}
    return {model_queue(model.name): model.concurrency for model in served}


def going_on(catalog: Catalog, before: Catalog, queues: Sequence[str]) -> Catalog:
    """Return a changed catalog as a worker of these queues uses it, which used `before`.

    What waits for a model that is gone, or whose new key this process does not have, is called as
    it was until then: somebody has to empty its queue. So is what a worker has in hand for a model
    that persons answer from now on.
    """
    stay = []
    for model in served_models(before, queues):
        known = [each for each in catalog.models if each.name == model.name]
        if not known and model.name not in catalog.aliases:
            logger.warning(
                "%s is gone from the catalog: its queue is served to its end", model.name
            )
            stay.append(model)
        elif known and known[0].is_people and not model.is_people:
            logger.warning("%s is people's from now on: its queue is left to them", model.name)
            stay.append(model)
        elif known and known[0].disabled is not None and model.disabled is None:
            why = known[0].disabled
            logger.error(
                "%s stays as it was until this worker is started anew: %s", model.name, why
            )
            stay.append(model)
    if not stay:
        return catalog
    names = {model.name for model in stay}
    others = (model for model in catalog.models if model.name not in names)
    return catalog.model_copy(update={"models": (*others, *stay)})


def resize(consumer: Any, more: int) -> None:
    """Have a worker that was sized by the catalog hold so many calls `more`, or fewer.

    As `celery control pool_grow` and `pool_shrink` do it.
    """
    state = SimpleNamespace(consumer=consumer)
    if more > 0:
        pool_grow(state, more)
    elif more < 0:
        pool_shrink(state, -more)


def consume_new(consumer: Any, catalog: Catalog, before: Catalog) -> None:
    """Have a worker of all models consume the queues of those that came."""
    known = {model.name for model in before.live_models}
    new = [
        queue
        for model in catalog.live_models
        if model.name not in known
        for queue in lanes(model_queue(model.name))
    ]
    consume(consumer, new)


def consume(consumer: Any, queues: Sequence[Queue]) -> None:
    """Have a worker consume these queues, too."""
    for queue in queues:
        # All of them first: they are consumed after a new connection, if this one is lost here.
        consumer.app.amqp.queues.select_add(queue)
    for queue in queues:
        consumer.add_task_queue(queue.name)
        meant.add(queue.name)


def leave_to_people(consumer: Any, catalog: Catalog, left: set[str]) -> None:
    """Have a worker consume no queue of a model that `catalog` leaves to persons, and again those
    that it leaves to them no more. `left` are the queues that were left so far, and changes.
    """
    people = {model.name for model in catalog.models if model.is_people}
    for queue in tuple(consumer.app.amqp.queues.consume_from):
        if queue_model(queue) in people:
            left.add(queue)
            meant.discard(queue)
            consumer.cancel_task_queue(queue)
    for queue in sorted(left):
        if queue_model(queue) not in people:
            left.discard(queue)
            consumer.add_task_queue(queue)
            meant.add(queue)
