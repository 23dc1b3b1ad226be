"""What autoscalers go by: what waits for each model, what is called, how many processes that wants.

All of it is read from Redis: the queues' lengths, the age of the message that is next, deadlines
of some of what waits, and the workers' beats.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import redis

from modelyard.beat import Beat, NodeState
from modelyard.catalog import Catalog, Model
from modelyard.due import Waiting, read_due
from modelyard.errors import BrokerUnavailable
from modelyard.health import CONSUMING, QueueState, Scope, Snapshot
from modelyard.names import BATCH_PREFIX, model_queue
from modelyard.snapshot import open_client, problem_of, take_snapshot
from producer.scaling import Due, Load, Rule, bounded

MOST: Final = 10_000
"""Whoever scales has a limit of its own."""

BATCH_SHARE: Final = 0.2
"""MODELYARD_BATCH_SHARE, where nothing is set."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one model has to do, in both lanes. `wanted`: so many processes would take it.

    `due_s`: in how many seconds the first deadline is of what was looked at; below 0 it has passed.
    """

    queue_length: int
    oldest_age_s: float | None
    in_flight: int
    processes: int
    wanted: int = 0
    due_s: float | None = None
    due: tuple[Due, ...] = ()

    @property
    def load(self) -> Load:
        """What its pool is sized by."""
        return Load(self.queue_length, self.in_flight, self.oldest_age_s, self.due)

    def as_json(self) -> dict[str, Any]:
        """Return what autoscalers are told, as JSON values."""
        return {
            "queue_length": self.queue_length,
            "oldest_age_s": self.oldest_age_s,
            "due_s": self.due_s,
            "in_flight": self.in_flight,
            "processes": self.processes,
            "wanted": self.wanted,
        }


def rule_of(model: Model, wait_s: float) -> Rule:
    """Return by what a model's pool is sized, from nothing up; its calls are as the catalog says.

    An answer is taken to have half of the tokens that it may have.
    """
    latency_s = model.latency_s + 0.5 * model.max_output_tokens / model.tokens_per_s
    return Rule(model.concurrency, latency_s, wait_s, at_least=0, at_most=MOST)


def read_numbers(
    url: str, catalog: Catalog, wait_s: float, batch_share: float = BATCH_SHARE
) -> dict[str, Numbers]:
    """Return the numbers of each model that workers serve. Raises `BrokerUnavailable`."""
    queues = [queue for model in served(catalog) for queue in lanes(model)]
    snapshot = take_snapshot(url, Scope(queues=tuple(queues)))
    address, problem = snapshot.broker.address, snapshot.broker.problem
    if problem:
        raise BrokerUnavailable(f"{address}: {problem}")
    busy = [queue.name for queue in snapshot.queues if queue.length]
    try:
        with open_client(url) as client:
            due = dict(zip(busy, read_due(client, busy), strict=True))
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(f"{address}: {problem_of(error)}") from error
    return numbers(snapshot, catalog, wait_s, due, batch_share)


def numbers(
    snapshot: Snapshot,
    catalog: Catalog,
    wait_s: float,
    due: Mapping[str, Sequence[Waiting]] | None = None,
    batch_share: float = BATCH_SHARE,
) -> dict[str, Numbers]:
    """Return what a snapshot says of each model, and the deadlines in its queues."""
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
            processes=sum(beat.state(snapshot.at) in CONSUMING for beat in beats),
        )
        dues = due_of(mine, due or {}, snapshot.at, batch_share)
        if dues:
            first_s = min(each.in_s for each in dues)
            seen = replace(seen, due=dues, due_s=round(first_s, 3))
        rule = rule_of(model, wait_s)
        # From nothing to one, so that something can begin.
        processes = max(seen.processes, min(1, seen.queue_length))
        found[model.name] = replace(seen, wanted=bounded(seen.load, rule, processes))
    return found


def due_of(
    queues: Sequence[QueueState],
    due: Mapping[str, Sequence[Waiting]],
    now: float,
    batch_share: float,
) -> tuple[Due, ...]:
    """Return what has deadlines in a model's lanes, with what is taken before it from both."""
    found = []
    for queue in queues:
        share = batch_share if queue.name.startswith(BATCH_PREFIX) else 1.0 - batch_share
        others = sum(other.length for other in queues if other is not queue)
        for each in due.get(queue.name, ()):
            mine = each.before + 1
            beside = min(others, math.ceil(mine * (1.0 - share) / share))
            found.append(Due(mine + beside, each.deadline - now))
    return tuple(found)


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
    return {name: each.as_json() for name, each in every.items()}
