"""That `explain` and `replay` decide as the yard's own router does, from what it learned."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fake_models import fake_model, fake_models
from ledger_entries import entry, put
from waiting import eventually
from workers import Workers, own_yard

from modelyard import Client
from modelyard.app import make_app
from modelyard.budgets import spent_key
from modelyard.decision_ledger import read
from modelyard.messages import Request
from modelyard.names import REQUESTS_QUEUE, ROUTE_TASK, session_key
from modelyard.plan import Decision
from producer.commands import model_command

CATALOG = (
    fake_models(fake_model("small"), fake_model("large"))
    + """
budgets:
  - {tenant: poor, usd_per_day: 1.0, over: downgrade, downgrade_to: [small]}
routes:
  default: {otherwise: [small, large]}
  dear: {otherwise: [large]}
  sticky: {sticky: true, otherwise: {models: [small, large], strategy: cascade,
    accept: {expression: "len(text) > 0"}}}
"""
)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("yard")
    with own_yard(folder, catalog=CATALOG, env={"MODELYARD_LEDGER_TEXT": "1"}) as yard:
        yard.start_router()
        yard.start("pool", model_command("small", "large"))
        yield yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        yield store


def models(decision: Decision) -> list[str]:
    return [step.model for step in decision.plan.steps]


def explained(yard: Workers, **request: Any) -> list[str]:
    """The plan that `explain` tells of such a request."""
    done = subprocess.run(
        [sys.executable, "-m", "router_worker", "explain"],
        env=yard.env,
        input=json.dumps({"text": "hello", **request}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return models(Decision.decode(json.loads(done.stdout)))


def test_a_request_s_limit_goes_by_what_calls_took_and_explain_says_so(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    """No target of the catalog asks for it: the ledger is followed from such a request on."""
    asked = {"limits": {"max_latency_s": 20.0}}
    request = Request.of("hello", **asked)
    slow = {"small": {"made": 1, "failed": 0, "answered_s": 500.0}}
    put(store, *[entry(calls=slow)] * 20)

    def goes_to_large() -> bool:
        return models(client.submit(request).result(30).decision) == ["large"]

    eventually(goes_to_large)
    assert models(client.submit("hello").result(30).decision) == ["small", "large"]
    assert explained(yard, **asked) == ["large"]
    assert explained(yard) == ["small", "large"]


def test_a_session_that_was_escalated_is_explained_and_replayed_where_it_is(
    yard: Workers, client: Client, store: redis.Redis, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"route": "sticky", "metadata": {"session": "s", "tenant": "t"}}
    store.set(session_key("t", "s"), "large")

    handle = client.submit("hello", **asked)

    assert models(handle.result(30).decision) == explained(yard, **asked) == ["large"]
    (told,) = [each for each in read(store) if each.id == handle.id]
    assert told.escalated == "large"
    policy = tmp_path / "same.yaml"
    policy.write_text(CATALOG)
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", "replay", "--policy", str(policy), "--json"],
        env=yard.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    moves = json.loads(done.stdout)["moves"]
    assert [move for move in moves if move["from"].startswith(("large", "cascade"))] == []


def test_a_session_is_known_where_its_request_was_to_be_routed_later(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    """Such a message goes through the router's pool."""
    store.set(session_key("t", "later"), "large")
    asked = {"text": "hello", "route": "sticky", "metadata": {"session": "later", "tenant": "t"}}

    with make_app("eta", yard.broker_url, current=False) as app:
        sent = app.send_task(ROUTE_TASK, [asked], countdown=0.2, queue=REQUESTS_QUEUE)
        assert models(client.handle(sent.id).result(30).decision) == ["large"]


def test_a_budget_that_is_spent_is_explained(yard: Workers, store: redis.Redis) -> None:
    asked = {"route": "dear", "metadata": {"tenant": "poor"}}
    assert explained(yard, **asked) == ["large"]

    store.hset(spent_key(time.time()), "poor/*", 2_000_000_000)

    assert explained(yard, **asked) == ["small"]
