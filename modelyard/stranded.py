"""Queues that no model of the catalog has: of models that were taken out, and names that became
aliases.

A worker that runs on serves such a queue to its end. One that is started anew does not, and what
waits there then is stranded until the catalog has the name again: routers look after it
(`router_worker.stranded`), `modelyard health` and `models` tell of it, and people may answer or
decline it with `modelyard inbox`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import redis

from modelyard.beat import Beat, NodeState
from modelyard.names import (
    BATCH_PREFIX,
    BEHIND_KEY_PREFIX,
    REQUESTS_QUEUE,
    WORKERS_KEY,
    in_lane,
    model_queue,
    queue_model,
)

if TYPE_CHECKING:
    from modelyard.catalog import Catalog  # half a second, which probes do without

BEHIND_KEYS: Final = [
    BEHIND_KEY_PREFIX + in_lane(REQUESTS_QUEUE, batch=batch) for batch in (False, True)
]
"""Where it is kept to which queues requests went on."""

AWAY: Final = frozenset({NodeState.SILENT, NodeState.STOPPING})


def queues_behind(client: redis.Redis) -> set[str]:
    """Return the models' queues to which requests went on, in both lanes; some may be empty.

    Raises `redis.RedisError`.
    """
    members: set[Any] = client.sunion(BEHIND_KEYS)
    names = {each.decode(errors="replace") for each in members}
    return {name for name in names if queue_model(name) is not None}


def other_queues(
    client: redis.Redis, catalog: "Catalog", former: Iterable[str] = ()
) -> dict[str, int]:
    """Return the queues that no model of the catalog has by its own name and in which messages
    wait, and how many do.

    The queues of the `former` models are looked at, too, whether or not requests went there since.
    Raises `redis.RedisError`.
    """
    own = {model.name for model in catalog.models}
    looked_at = {model_queue(name, batch=batch) for name in former for batch in (False, True)}
    others = sorted(
        name for name in looked_at | queues_behind(client) if queue_model(name) not in own
    )
    if not others:
        return {}
    with client.pipeline(transaction=False) as asked:
        for name in others:
            asked.llen(name)
        lengths = asked.execute()
    return {name: length for name, length in zip(others, lengths, strict=True) if length}


def unserved_queues(
    client: redis.Redis, catalog: "Catalog", former: Iterable[str] = ()
) -> dict[str, int]:
    """Return those of `other_queues` that no worker consumes. Raises `redis.RedisError`."""
    others = other_queues(client, catalog, former)
    served = served_queues(client) if others else frozenset()
    return {name: length for name, length in others.items() if name not in served}


def served_queues(client: redis.Redis) -> frozenset[str]:
    """Return the queues that workers consume now, as their beats say. Raises `redis.RedisError`."""
    seconds, microseconds = client.time()
    now = seconds + microseconds / 1e6
    served: set[str] = set()
    for text in client.hvals(WORKERS_KEY):
        try:
            beat = Beat.decode(text)
        except ValueError:
            continue  # `modelyard health` says so
        if beat.state(now) not in AWAY:
            served.update(beat.queues)
    return frozenset(served)


def advice(queue: str, catalog: "Catalog") -> str:
    """Return what to do with what waits in a queue that nobody consumes; '' for a model's own."""
    name = queue_model(queue)
    if name is None or name in {model.name for model in catalog.models}:
        return ""
    model = catalog.aliases.get(name)
    if model is not None:
        return f"{name!r} is an alias of {model!r} by now, to which a router moves it soon"
    return (
        f"{name!r} is not in the catalog: put it back, or an alias of that name; `modelyard inbox` "
        "lists, answers and declines what waits"
    )


def note_queues(client: redis.Redis, queues: Iterable[str]) -> None:
    """Have submits and `modelyard health` look at these queues: what a worker puts back into one
    that was empty is no hop. Raises `redis.RedisError`.
    """
    for queue in queues:
        client.sadd(BEHIND_KEYS[queue.startswith(BATCH_PREFIX)], queue)
