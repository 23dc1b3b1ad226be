"""What autoscalers go by: what waits for each model, what is called, how many processes that wants.

All of it is read from Redis: the queues' lengths, the age of the message that is next, and the
workers' beats.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from modelyard.beat import Beat, NodeState
from modelyard.catalog import Catalog, Model
from modelyard.errors import BrokerUnavailable
from modelyard.health import Scope, Snapshot
from modelyard.names import model_queue
from modelyard.snapshot import take_snapshot
from producer.scaling import Load, Rule, bounded

MOST: Final = 10_000
"""Whoever scales has a limit of its own."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one model has to do, in both lanes. `wanted`: so many processes would take it."""

    queue_length: int
    oldest_age_s: float | None
    in_flight: int
    processes: int
    wanted: int = 0

    @property
    def load(self) -> Load:
        """What its pool is sized by."""
        return Load(self.queue_length, self.in_flight, self.oldest_age_s)


def rule_of(model: Model, wait_s: float) -> Rule:
    """Return by what a model's pool is sized, from nothing up; its calls are as the catalog says.

    An answer is taken to have half of the tokens that it may have.
    """
    latency_s = model.latency_s + 0.5 * model.max_output_tokens / model.tokens_per_s
    return Rule(model.concurrency, latency_s, wait_s, at_least=0, at_most=MOST)


def read_numbers(url: str, catalog: Catalog, wait_s: float) -> dict[str, Numbers]:
    """Return the numbers of each model that workers serve. Raises `BrokerUnavailable`."""
    queues = [queue for model in served(catalog) for queue in lanes(model)]
    snapshot = take_snapshot(url, Scope(queues=tuple(queues)))
    if snapshot.broker.problem:
        raise BrokerUnavailable(f"{snapshot.broker.address}: {snapshot.broker.problem}")
    return numbers(snapshot, catalog, wait_s)


def numbers(snapshot: Snapshot, catalog: Catalog, wait_s: float) -> dict[str, Numbers]:
    """Return what a snapshot says of each model."""
    found = {}
    queues = {queue.name: queue for queue in snapshot.queues}
    for model in served(catalog):
        mine = [queues[name] for name in lanes(model) if name in queues]
        ages = [
            max(0.0, snapshot.at - queue.submitted_at)
            for queue in mine
            if queue.length and queue.submitted_at is not None
        ]
        beats = [
            beat
            for beat in snapshot.beats
            if set(lanes(model)).intersection(beat.queues)
            # What a lost worker had comes back to the queue.
            and beat.state(snapshot.at) is not NodeState.SILENT
        ]
        seen = Numbers(
            queue_length=sum(queue.length for queue in mine),
            oldest_age_s=round(max(ages), 3) if ages else None,
            in_flight=math.ceil(sum(part_of(beat, model, catalog) for beat in beats)),
            processes=sum(beat.state(snapshot.at) is NodeState.CONSUMING for beat in beats),
        )
        rule = rule_of(model, wait_s)
        # From nothing to one, so that something can begin.
        processes = max(seen.processes, min(1, seen.queue_length))
        found[model.name] = replace(seen, wanted=bounded(seen.load, rule, processes))
    return found


def part_of(beat: Beat, model: Model, catalog: Catalog) -> float:
    """Return how many of a worker's calls are this model's: one of several has its share of them.

    Which are whose is not in the beat; by their concurrency it is about right when all are busy.
    """
    every = {other.name: other for other in catalog.models if set(lanes(other)) & set(beat.queues)}
    total = sum(other.concurrency for other in every.values())
    return beat.in_flight * model.concurrency / total if total else 0.0


def lanes(model: Model) -> tuple[str, str]:
    """Return a model's queues."""
    return model_queue(model.name), model_queue(model.name, batch=True)


def served(catalog: Catalog) -> Iterable[Model]:
    """Return the models that have workers somewhere, also those whose key is not here."""
    return (model for model in catalog.models if not model.is_people)


def as_json(every: Mapping[str, Numbers]) -> dict[str, Any]:
    """Return the numbers of all models as JSON values."""
    return {name: asdict(each) for name, each in every.items()}
