"""The numbers of `modelyard scale-metrics` in Prometheus' text format, for graphs and alerts.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import redis

from modelyard.alerts import WHYS, News, is_down
from modelyard.catalog import Catalog
from modelyard.errors import BrokerUnavailable
from modelyard.names import DEAD_LETTERS_KEY
from modelyard.news import read_news
from modelyard.snapshot import open_client, problem_of, shown
from producer.scale_numbers import Numbers

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class State:
    """What wants a person, as far as Redis knows it. `limit`: most dead letters; 0: no bound."""

    news: News
    dead_letters: int
    limit: int


def read_state(url: str, catalog: Catalog, limit: int) -> State:
    """Return what wants a person. Raises `BrokerUnavailable`."""
    try:
        with open_client(url) as client:
            return State(read_news(client, catalog), int(client.hlen(DEAD_LETTERS_KEY)), limit)
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(f"{shown(url)}: {problem_of(error)}") from error


def exposition(every: Mapping[str, Numbers], state: State) -> str:
    """Return all metrics as text. All of them are gauges; what is not known is not there."""
    lines: list[str] = []
    for name, words, samples in (*of_models(every), *of_state(state)):
        if samples:
            lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
            lines += [f"{name}{braces(labels)} {value!r}" for labels, value in samples]
    return "\n".join([*lines, ""])


def of_models(every: Mapping[str, Numbers]) -> Iterable[tuple[str, str, Sequence[Sample]]]:
    """Yield the metrics that pools are sized by."""
    said = {name: each.as_json() for name, each in every.items()}
    for key, name, words in (
        ("queue_length", "modelyard_queue_length", "Requests that wait for the model, both lanes."),
        (
            "oldest_age_s",
            "modelyard_queue_oldest_age_seconds",
            "How long ago the next request was submitted.",
        ),
        (
            "due_s",
            "modelyard_queue_due_seconds",
            "Seconds to the first deadline among the waiting requests that were looked at.",
        ),
        ("in_flight", "modelyard_in_flight", "Requests in workers' hands."),
        ("processes", "modelyard_processes", "Worker processes that take requests."),
        ("wanted", "modelyard_processes_wanted", "Worker processes that the load wants."),
    ):
        samples = [
            ({"model": model}, float(numbers[key]))
            for model, numbers in said.items()
            if numbers[key] is not None
        ]
        yield name, words, samples


def of_state(state: State) -> Iterable[tuple[str, str, Sequence[Sample]]]:
    """Yield the metrics that people are called by."""
    endpoints, budgets = state.news.endpoints, state.news.budgets
    yield (
        "modelyard_endpoint_open",
        "1 for why workers leave an endpoint alone, until one of its calls is answered.",
        [
            (
                {"model": each.model, "endpoint": each.endpoint, "why": why},
                float(each.why == why),
            )
            for each in endpoints
            for why in WHYS
        ],
    )
    yield (
        "modelyard_model_open",
        "1 while every endpoint of a model is left alone.",
        [
            ({"model": model}, float(is_down(tuple(some))))
            for model, some in groupby(endpoints, key=lambda each: each.model)
        ],
    )
    yield "modelyard_dead_letters", "Dead letters in the store.", [({}, float(state.dead_letters))]
    yield (
        "modelyard_dead_letters_limit",
        "So many dead letters at most; nothing is accepted then.",
        [({}, float(state.limit))] if state.limit else [],
    )
    for name, words, values in (
        (
            "modelyard_budget_spent_usd",
            "Spent today (UTC), in US dollars.",
            [each.spent_usd for each in budgets],
        ),
        (
            "modelyard_budget_usd_per_day",
            "What may be spent in a day, in US dollars.",
            [each.usd_per_day for each in budgets],
        ),
    ):
        yield (
            name,
            words,
            [
                ({"tenant": each.tenant, "route": each.route, "over": each.over}, value)
                for each, value in zip(budgets, values, strict=True)
            ],
        )


def braces(labels: Mapping[str, str]) -> str:
    """Return labels as the format has them."""
    pairs = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def escaped(value: str) -> str:
    """Return the value of a label as it stands in quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
