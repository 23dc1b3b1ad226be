"""Reading what `modelyard.alerts` judges. The workers write it, `model_workers/endpoints/board.py`.

It is news, not truth: what nobody called lately is forgotten.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import redis

from modelyard.alerts import WHYS, BudgetNews, EndpointNews, News
from modelyard.budgets import spent_key
from modelyard.catalog import Catalog, Model
from modelyard.endpoint_labels import named
from modelyard.names import ENDPOINTS_KEY_PREFIX

STALE_S: Final = 600.0
"""Who was to be probed so long ago, and was not, is called by nobody any more."""

LAST_TIME: Final = 1e11
"""No time of these days; later ones than that no calendar can write."""


def read_news(client: redis.Redis, catalog: Catalog) -> News:
    """Return what Redis knows of a catalog, in one round trip. Raises `redis.RedisError`."""
    models = [model for model in catalog.models if model.endpoints]
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        for model in models:
            pipe.hgetall(ENDPOINTS_KEY_PREFIX + model.name)
        (seconds, micros), *hashes = pipe.execute()
    now = seconds + micros / 1e6
    endpoints = [
        news
        for model, fields in zip(models, hashes, strict=True)
        for news in endpoint_news(model, fields, now)
    ]
    if not catalog.budgets:
        return News(tuple(endpoints))
    sums: Mapping[bytes, bytes] = client.hgetall(spent_key(now))  # type: ignore[assignment]
    budgets = tuple(
        BudgetNews(
            budget.tenant,
            budget.route,
            spent_usd(sums.get(budget.label.encode())),
            budget.usd_per_day,
            budget.over,
        )
        for budget in catalog.budgets
    )
    return News(tuple(endpoints), budgets)


def endpoint_news(
    model: Model, fields: Mapping[bytes, bytes], now: float
) -> Iterable[EndpointNews]:
    """Return what a model's hash says of its endpoints that can be called, here or by workers."""
    for each in named(model, heard(fields, now)):
        if each.known:
            said = circuit(fields.get(each.label.encode("utf-8", "replace")), now)
            yield EndpointNews(model.name, each.label, *said)


def heard(fields: Mapping[bytes, bytes], now: float) -> set[str]:
    """Return the labels of the endpoints that workers left alone, or had of late."""
    found: set[str] = set()
    for raw, value in fields.items():
        name = raw.decode("utf-8", "replace")
        if name.startswith("@"):
            found |= loads(value, now)
        elif not name.startswith("~") and circuit(value, now)[0]:
            found.add(name)
    return found


def loads(text: bytes, now: float) -> set[str]:
    """Return the labels of a worker's endpoints, if it spoke of late.

    What no worker of this version writes says nothing.
    """
    try:
        said: Any = json.loads(text)
        return {str(label) for label in said["loads"]} if said["at"] >= now - STALE_S else set()
    except (ValueError, LookupError, TypeError, RecursionError):
        return set()


def circuit(text: bytes | None, now: float) -> tuple[str, float | None, float | None]:
    """Return why, since when and until when an endpoint is left alone, as a worker wrote it.

    What no worker of this version writes says nothing.
    """
    try:
        said: Any = json.loads(text or b"")
        why, since, until = str(said["why"]), float(said["since"]), float(said["until"])
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return "", None, None
    told = why in WHYS and 0 <= since < LAST_TIME and now - STALE_S <= until < LAST_TIME
    return (why, since, until) if told else ("", None, None)


def spent_usd(nano_usd: bytes | None) -> float:
    """Return what a day's sum says; what no worker of this version writes says nothing."""
    try:
        return int(nano_usd or 0) / 1e9
    except (ValueError, OverflowError):
        return 0.0


def labels(model: Model) -> list[str]:
    """Return the names by which workers tell a model's endpoints apart that can be called, in
    order: those of two keys may have one address.
    """
    seen: dict[str, int] = {}
    named = []
    for endpoint in model.live_endpoints:
        number = seen[endpoint.label] = seen.get(endpoint.label, 0) + 1
        named.append(endpoint.label if number == 1 else f"{endpoint.label} ({number})")
    return named
