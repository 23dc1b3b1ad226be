"""What wants a person is told by commands and metrics, of a real worker whose endpoint denies."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from waiting import eventually
from workers import Workers, workers

from modelyard import RequestFailed
from modelyard.catalog_file import load_catalog
from modelyard.testing import Reply
from producer.scale_prometheus import exposition, read_state

CATALOG = """
models:
  - name: keyed
    provider: openai
    endpoints: [{name: west, base_url: "${FAKE_URL}", api_key: "${FAKE_KEY}"}]
    price: {input_usd_per_mtok: 100.0, output_usd_per_mtok: 100.0}
    concurrency: 4
    retry: {calls: 1}
    breaker: {denied_s: 0.5}
budgets:
  - {tenant: acme, usd_per_day: 0.000001}
routes:
  default: {otherwise: [keyed]}
"""


def run(yard: Workers, *arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in yard.env.items() if name not in without.split()}
    return subprocess.run(
        [sys.executable, "-m", "producer", *arguments],
        env={**env, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def alerts(yard: Workers) -> dict[str, str]:
    """What `health` tells programs to call a person for, by what it is about."""
    done = run(yard, "health", "--json")
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    found = {
        each["about"]: each["message"] for each in said["findings"] if each["level"] == "alert"
    }
    assert said["healthy"]
    assert (said["status"] == "alert") == bool(found)
    return found


def metrics(yard: Workers, without: str = "") -> set[str]:
    env = {name: value for name, value in yard.env.items() if name not in without.split()}
    catalog = load_catalog(yard.folder / "catalog.yaml", env)
    return set(exposition({}, read_state(yard.broker_url, catalog, 0)).splitlines())


@pytest.mark.timeout(300)
def test_an_endpoint_that_denies_is_told_until_it_answers_again(
    tmp_path: Path, redis_url: str
) -> None:
    denied = 'modelyard_endpoint_open{model="keyed",endpoint="west",why="denied"}'
    with workers(tmp_path, redis_url, catalog=CATALOG) as yard, yard.client() as client:
        yard.start_router()
        yard.start_pool("keyed")
        assert run(yard, "health", "--alerts-fail").returncode == 0
        assert f"{denied} 0.0" in metrics(yard)

        yard.fake.always("keyed", Reply(status=401))
        with pytest.raises(RequestFailed):
            client.submit("hello").result(30)
        eventually(lambda: f"{denied} 1.0" in metrics(yard))
        # The very next run says so, and no probe fails for it.
        assert set(alerts(yard)) == {"keyed at west", "keyed"}
        assert "denies our calls" in alerts(yard)["keyed at west"]
        told = run(yard, "health", "--alerts-fail")
        assert (told.returncode, "alert" in told.stdout) == (1, True)
        assert run(yard, "health", "--node", "keyed", "--liveness").returncode == 0
        assert run(yard, "health", "--queue", "model.keyed").returncode == 0
        assert 'modelyard_model_open{model="keyed"} 1.0' in metrics(yard)
        [state] = json.loads(run(yard, "endpoints", "--json").stdout)
        assert state["state"] == "denied"
        assert state["until"] > state["since"]
        assert "alert: keyed at west: denies our calls" in run(yard, "endpoints").stdout
        # What workers found is told where nobody has their key and their address.
        lacks = "FAKE_KEY FAKE_URL"
        told = run(yard, "health", "--alerts-fail", without=lacks)
        assert (told.returncode, "keyed at west" in told.stdout) == (1, True)
        assert json.loads(run(yard, "endpoints", "--json", without=lacks).stdout) == [
            {**state, "probed_in_s": ANY, "in_flight": 0, "workers": ANY}
        ]
        assert f"{denied} 1.0" in metrics(yard, without=lacks)

        yard.fake.always("keyed", Reply(text="here again"))

        def answered() -> bool:
            try:
                return client.submit("hello").result(30).text == "here again"
            except RequestFailed:
                return False

        eventually(answered, timeout_s=30)
        eventually(lambda: f"{denied} 0.0" in metrics(yard))
        assert alerts(yard) == {}

        client.submit("hello", metadata={"tenant": "acme"}).result(30)
        [(about, message)] = alerts(yard).items()
        assert about == "budget acme/*"
        assert "new requests are refused" in message
        assert any(
            line.startswith('modelyard_budget_spent_usd{tenant="acme",route="*",over="stop"} 0.00')
            for line in metrics(yard)
        )
