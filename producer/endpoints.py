"""The command `modelyard endpoints`: how the workers find the endpoints of the models.

What it reads is written by the workers, `model_workers/endpoints/board.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import redis
from rich import box
from rich.table import Table

from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.catalog_file import default_catalog
from modelyard.names import ENDPOINTS_KEY_PREFIX
from modelyard.redis_errors import broker_error
from producer.broker import broker
from producer.display import out, plain, print_json
from producer.options import AsJson

GONE_S: Final = 10.0
"""A worker that said nothing for so long counts no more."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint, as the workers that called it lately find it.

    `state`: `well`; `failing`, `limited` or `denied`, which are left alone and probed in
    `probed_in_s`; or `off` (its environment variable is not set). `latency_s` is the mean of its
    answers' times.
    """

    model: str
    endpoint: str
    state: str
    probed_in_s: float | None
    in_flight: int
    latency_s: float | None
    workers: int


def endpoints(as_json: AsJson = False) -> None:
    """Say how the workers find the models' endpoints, and which are left alone until when."""
    catalog = default_catalog()
    with broker() as client:
        try:
            states = endpoint_states(client, catalog)
        except redis.RedisError as error:
            raise broker_error(error) from error
    if as_json:
        print_json([asdict(state) for state in states])
        return
    if not states:
        plain("no model of the catalog has an endpoint")
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("model", "endpoint", "state"):
        table.add_column(name, overflow="fold")
    for name in ("in flight", "mean s", "workers"):
        table.add_column(name, justify="right", no_wrap=True)
    for state in states:
        until = "" if state.probed_in_s is None else f", probed in {state.probed_in_s:.0f} s"
        mean = "-" if state.latency_s is None else f"{state.latency_s:.2f}"
        table.add_row(
            *(state.model, state.endpoint, state.state + until),
            *(f"{state.in_flight:,}", mean, str(state.workers)),
        )
    out.print(table)


def endpoint_states(client: redis.Redis, catalog: Catalog) -> list[EndpointState]:
    """Return the state of each endpoint of the catalog. Raises `redis.RedisError`."""
    seconds, micros = client.time()
    now = seconds + micros / 1e6
    states = []
    for model in catalog.models:
        if model.endpoints:
            said = read(client.hgetall(ENDPOINTS_KEY_PREFIX + model.name))
            states += [state_of(model, each, said, now) for each in model.endpoints]
    return states


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
    model: Model, endpoint: Endpoint, said: Mapping[str, Any], now: float
) -> EndpointState:
    """Return how an endpoint is; `now` is in seconds since the epoch, by Redis's clock."""
    label = endpoint.label
    loads = [
        worker["loads"][label]
        for name, worker in said.items()
        if name.startswith("@")
        and worker.get("at", 0.0) >= now - GONE_S
        and label in worker.get("loads", {})
    ]
    times = [load[1] for load in loads if load[1]]
    state, probed_in_s = "well", None
    if endpoint.disabled is not None:
        state = "off"
    elif label in said:
        state = str(said[label].get("why", "failing"))
        probed_in_s = max(0.0, round(said[label].get("until", now) - now, 1))
    return EndpointState(
        model=model.name,
        endpoint=label,
        state=state,
        probed_in_s=probed_in_s,
        in_flight=sum(load[0] for load in loads),
        latency_s=round(sum(times) / len(times), 3) if times else None,
        workers=len(loads),
    )
