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
from modelyard.names import model_queue

REPLY_S = 1.0
"""How long the workers have to reply."""


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


def model_states(catalog: Catalog, broker_url: str | None) -> list[ModelState]:
    """Return the state of each model; all counts are 0 without a broker.

    Raises `BrokerError`.
    """
    if broker_url is None:
        return [ModelState(model) for model in catalog.models]
    with make_app("modelyard.queues", broker_url, current=False) as app:
        try:
            return read_states(app, catalog, broker_url)
        except (redis.RedisError, KombuError, OSError) as error:
            raise broker_error(error) from error


def read_states(app: Celery, catalog: Catalog, broker_url: str) -> list[ModelState]:
    """Ask the broker for the queues' lengths and the workers for what they do."""
    with connect(broker_url) as client:
        queued = [
            sum(client.llen(model_queue(model.name, batch=batch)) for batch in (False, True))
            for model in catalog.models
        ]
    inspect = app.control.inspect(timeout=REPLY_S)
    consuming = inspect.active_queues() or {}
    active = inspect.active() or {}
    states = []
    for model, waiting in zip(catalog.models, queued, strict=True):
        lanes = {model_queue(model.name, batch=batch) for batch in (False, True)}
        workers = [
            node for node, queues in consuming.items() if lanes & {each["name"] for each in queues}
        ]
        in_flight = sum(
            1
            for tasks in active.values()
            for task in tasks
            if (task.get("delivery_info") or {}).get("routing_key") in lanes
        )
        states.append(ModelState(model, int(waiting), in_flight, len(workers)))
    return states
