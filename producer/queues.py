"""What is in the models' queues and who works on it, as the broker and the workers say."""

from dataclasses import dataclass
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import KombuError

from modelyard.app import make_app
from modelyard.catalog import Catalog, Model
from modelyard.client import broker_error
from modelyard.connect import connect
from modelyard.names import model_queue, queue_model
from modelyard.stranded import advice, other_queues

REPLY_S = 1.0
"""How long the workers have to reply."""


@dataclass(frozen=True, slots=True)
class GoneState:
    """A name that is no model's in the catalog, and its queues; see `ModelState`.

    `why` that is, and `advice` says what to do where it has no worker.
    """

    name: str
    why: str
    queued: int
    in_flight: int
    workers: int
    advice: str

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, as `ModelState` does."""
        known = {"name": self.name, "disabled": self.why}
        model: dict[str, Any] = dict.fromkeys(
            ("provider", "model", "context_tokens", "quality", "price")
        )
        counts = {"queued": self.queued, "in_flight": self.in_flight, "workers": self.workers}
        return {**known, **model, **counts}


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model, the messages that wait in its queue, its calls in flight and its workers."""

    model: Model
    queued: int = 0
    in_flight: int = 0
    workers: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, without addresses and keys."""
        return {
            "name": self.model.name,
            "provider": self.model.provider,
            "model": self.model.provider_model,
            "disabled": self.model.disabled,
            "context_tokens": self.model.context_tokens,
            "quality": self.model.quality,
            "price": self.model.price.model_dump(),
            "queued": self.queued,
            "in_flight": self.in_flight,
            "workers": self.workers,
        }


def model_states(catalog: Catalog, broker_url: str | None) -> list[ModelState | GoneState]:
    """Return the state of each model, and of those that the catalog does not have, if messages wait
    for them or workers serve them; all counts are 0 without a broker.

    Raises `BrokerError`.
    """
    if broker_url is None:
        return [ModelState(model) for model in catalog.models]
    with make_app("modelyard.queues", broker_url, current=False) as app:
        try:
            return read_states(app, catalog, broker_url)
        except (redis.RedisError, KombuError, OSError) as error:
            raise broker_error(error) from error


def read_states(app: Celery, catalog: Catalog, broker_url: str) -> list[ModelState | GoneState]:
    """Ask the broker for the queues' lengths and the workers for what they do."""
    own = [model.name for model in catalog.models]
    inspect = app.control.inspect(timeout=REPLY_S)
    consuming = inspect.active_queues() or {}
    active = inspect.active() or {}
    served = {each["name"] for queues in consuming.values() for each in queues}
    with connect(broker_url) as client:
        named = (queue_model(queue) for queue in (*other_queues(client, catalog), *served))
        others = sorted({name for name in named if name is not None and name not in own})
        names = (*own, *others)
        queued = {name: sum(map(client.llen, both_lanes(name))) for name in names}
    counted: dict[str, tuple[int, int, int]] = {}
    for name in names:
        lanes = both_lanes(name)
        workers = [
            node for node, queues in consuming.items() if lanes & {each["name"] for each in queues}
        ]
        in_flight = sum(
            1
            for tasks in active.values()
            for task in tasks
            if (task.get("delivery_info") or {}).get("routing_key") in lanes
        )
        counted[name] = queued[name], in_flight, len(workers)
    return [
        *(ModelState(model, *counted[model.name]) for model in catalog.models),
        *(
            GoneState(name, why(name, catalog), *counted[name], advice(model_queue(name), catalog))
            for name in others
        ),
    ]


def why(name: str, catalog: Catalog) -> str:
    """Return why a name is no model's."""
    model = catalog.aliases.get(name)
    return "not in the catalog" if model is None else f"an alias of {model}"


def both_lanes(model: str) -> set[str]:
    """Return the queues of a model."""
    return {model_queue(model, batch=batch) for batch in (False, True)}
