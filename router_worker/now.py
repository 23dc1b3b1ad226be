"""What a router of the yard knows now, for commands that decide as it would: read from Redis once.

A router reads along all the time; a command asks for what its request is decided by, and no more.
"""

import time
from dataclasses import replace
from typing import Any

import redis

from modelyard.catalog import Catalog
from modelyard.names import session_key
from modelyard.spent import spent_usd
from modelyard.standings import read_standings, standings
from router_worker.experiments.watch import Progress, asks, experiments, weighs
from router_worker.knowledge import Knowledge


def informed(
    knowledge: Knowledge, catalog: Catalog, payload: Any, client: redis.Redis, now: float
) -> Knowledge:
    """Return the knowledge with what was seen and spent, as far as a request is decided by it.

    The payload may be anything; `now` is in seconds since the epoch. Raises `redis.RedisError`.
    """
    if weighs(catalog) or asks(payload):
        knowledge = knowledge.having(read_all(catalog, client).seen())
    elif experiments(catalog):
        stored = read_standings(standings(client))
        back = frozenset(name for name, each in stored.items() if each.is_back)
        knowledge = replace(knowledge, taken_back=back)
    if catalog.budgets:
        knowledge = replace(knowledge, spent_usd=spent_usd(client, now))
    return knowledge


def escalated_to(payload: Any, client: redis.Redis) -> str | None:
    """Return the model that a request's session was escalated to, or None.

    The payload may be anything. Raises `redis.RedisError`.
    """
    metadata = payload.get("metadata") if isinstance(payload, dict) else None
    if not isinstance(metadata, dict):
        return None
    session, tenant = metadata.get("session"), metadata.get("tenant") or ""
    if not isinstance(session, str) or not isinstance(tenant, str):
        return None
    model: Any = client.get(session_key(tenant, session))
    return None if model is None else model.decode()


def read_all(catalog: Catalog, client: redis.Redis) -> Progress:
    """Return the ledger as a router of this catalog has it that has read all of it.

    What is written meanwhile may be in it, and it ends all the same: at the first page that is not
    full. Raises `redis.RedisError`.
    """
    progress = Progress(catalog, client)
    while progress.read(time.time()):
        pass
    return progress
