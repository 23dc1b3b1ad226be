"""Entries of the decision ledger for tests."""

import time
from typing import Any

import redis

from modelyard.decision_ledger import Entry, write
from modelyard.plan import Arm


def entry(**fields: Any) -> Entry:
    """An answered request to `small`, but for the fields."""
    model = fields.get("model", "small")
    calls = {model: {"made": 1, "failed": 0, "answered_s": 0.2}} if model else {}
    return Entry.model_validate(
        {
            "kind": "request",
            "id": "r1",
            "at": time.time(),
            "route": "default",
            "intent": "other",
            "plan": ("small",),
            "model": "small",
            "outcome": "answered",
            "cost_usd": 0.01,
            "latency_s": 0.3,
            "calling_s": 0.2,
            "input_tokens": 100,
            "output_tokens": 50,
            "calls": calls,
            **fields,
        }
    )


def arm(experiment: str, *, treated: bool) -> Arm:
    """An arm of an experiment."""
    return Arm(experiment=experiment, arm="treatment" if treated else "control")


def failed(model: str, **fields: Any) -> Entry:
    """A request whose one call of a model failed and that nobody answered."""
    calls = {model: {"made": 1, "failed": 1, "answered_s": 0.0}}
    return entry(**{"model": "", "outcome": "exhausted", "cost_usd": 0.0, "calls": calls, **fields})


def put(client: redis.Redis, *entries: Entry) -> None:
    """Write entries as workers do."""
    for each in entries:
        write(client, each)
