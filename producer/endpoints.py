"""The command `modelyard endpoints`: how the workers find the endpoints of the models.

What it reads is written by the workers, `model_workers/endpoints/board.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

import redis

from modelyard.alerts import EndpointNews, clock, endpoint_findings
from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.catalog_file import default_catalog
from modelyard.endpoint_labels import named
from modelyard.names import ENDPOINTS_KEY_PREFIX
from modelyard.news import endpoint_news, heard
from modelyard.redis_errors import broker_error
from producer.broker import broker
from producer.display import out, plain, print_json
from producer.learned_limits import Learned, learned_of, words
from producer.narrow import Column, show_rows
from producer.options import AsJson

GONE_S: Final = 10.0
"""A worker that said nothing for so long counts no more."""

WELL, OFF = "well", "off"


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint, as the workers that called it lately find it.

    `state`: `well`; `failing`, `limited` or `denied`, which are left alone since `since`, until
    `until` (seconds since the epoch) and probed in `probed_in_s`; or `off`: its environment
    variable is not set here, and no worker told of it. `latency_s` is the mean of its answers'
    times. `learned`: of its limits.
    """

    model: str
    endpoint: str
    state: str
    probed_in_s: float | None
    in_flight: int
    latency_s: float | None
    workers: int
    since: float | None = None
    until: float | None = None
    learned: Learned | None = None


def endpoints(as_json: AsJson = False) -> None:
    """Say how the workers find the models' endpoints, and which are left alone until when."""
    catalog = default_catalog()
    with broker() as client:
        try:
            now, states = endpoint_states(client, catalog)
        except redis.RedisError as error:
            raise broker_error(error) from error
    if as_json:
        print_json([asdict(state) for state in states])
        return
    if not states:
        plain("no model of the catalog has an endpoint")
        return
    columns = [Column("model"), Column("endpoint"), Column("state", folds=True)]
    columns += [Column(name, right=True) for name in ("in flight", "mean s", "workers")]
    taught = any(state.learned for state in states)
    if taught:
        columns.append(Column("learned, a minute", folds=True))
    rows = []
    for state in states:
        until = ""
        if state.probed_in_s is not None:
            until = f" since {clock(state.since)}, probed in {state.probed_in_s:.0f} s"
        mean = "-" if state.latency_s is None else f"{state.latency_s:.2f}"
        rows.append(
            [
                *(state.model, state.endpoint, state.state + until),
                *(f"{state.in_flight:,}", mean, str(state.workers)),
                *([words(state.learned)] if taught else []),
            ]
        )
    show_rows(out, columns, rows)
    for model, some in groupby(states, key=lambda state: state.model):
        news = [as_news(state) for state in some if state.state != OFF]
        for finding in endpoint_findings(model, news, now):
            plain(f"{finding.level}: {finding.about}: {finding.message}")


def endpoint_states(client: redis.Redis, catalog: Catalog) -> tuple[float, list[EndpointState]]:
    """Return the time and the state of each endpoint of the catalog. Raises `redis.RedisError`."""
    seconds, micros = client.time()
    now = seconds + micros / 1e6
    states = []
    for model in catalog.models:
        if model.endpoints:
            fields = client.hgetall(ENDPOINTS_KEY_PREFIX + model.name)
            states += states_of(model, fields, now)
    return now, states


def states_of(model: Model, fields: Mapping[Any, Any], now: float) -> list[EndpointState]:
    """Return the state of each of a model's endpoints, given what is in its hash."""
    said = read(fields)
    alone = {each.endpoint: each for each in endpoint_news(model, fields, now)}
    return [
        state_of(model, each.endpoint, each.label, said, alone.get(each.label), now)
        for each in named(model, heard(fields, now))
    ]


def as_news(state: EndpointState) -> EndpointNews:
    """Return what alerts are judged by."""
    why = "" if state.state == WELL else state.state
    return EndpointNews(state.model, state.endpoint, why, state.since, state.until)


def read(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the values of a model's hash, without what can't be read."""
    said = {}
    for name, value in fields.items():
        try:
            read = json.loads(value)
        except ValueError:
            continue
        if isinstance(read, dict):
            said[name.decode("utf-8", "replace")] = read
    return said


def state_of(
    model: Model,
    endpoint: Endpoint,
    label: str,
    said: Mapping[str, Any],
    news: EndpointNews | None,
    now: float,
) -> EndpointState:
    """Return how an endpoint is; `now` is in seconds since the epoch, by Redis's clock."""
    loads = [
        worker["loads"][label]
        for name, worker in said.items()
        if name.startswith("@")
        and worker.get("at", 0.0) >= now - GONE_S
        and label in worker.get("loads", {})
    ]
    times = [load[1] for load in loads if load[1]]
    state, probed_in_s, since, until = WELL, None, None, None
    if news is None:
        state = OFF
    elif news.why:
        state, since, until = news.why, news.since, news.until
        probed_in_s = max(0.0, round((until or now) - now, 1))
    return EndpointState(
        model=model.name,
        endpoint=label,
        state=state,
        probed_in_s=probed_in_s,
        in_flight=sum(load[0] for load in loads),
        latency_s=round(sum(times) / len(times), 3) if times else None,
        workers=len(loads),
        since=since,
        until=until,
        learned=learned_of(endpoint.quota, said.get(f"~{label}"), now),
    )
