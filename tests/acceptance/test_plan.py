"""`modelyard plan`, as one uses it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CATALOG = """
models:
  - name: small
    provider: openai
    endpoints: [{base_url: "http://127.0.0.1:1/v1", quota: {requests_per_min: 6000}}]
    price: {input_usd_per_mtok: 1.0, output_usd_per_mtok: 2.0}
    concurrency: 100
  - name: large
    provider: openai
    endpoints: [{base_url: "http://127.0.0.1:1/v1"}]
    price: {input_usd_per_mtok: 10.0, output_usd_per_mtok: 20.0}
    concurrency: 50
  - {name: support, provider: people}
routes:
  default: {otherwise: [small, large]}
  both:
    otherwise: {models: [small, large], strategy: cascade, accept: {expression: "len(text) > 9"}}
"""


def plan(folder: Path, *options: object, code: int = 0) -> str:
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG)
    env = {name: value for name, value in os.environ.items() if "MODELYARD" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "producer", "plan", *map(str, options)],
        env={**env, "MODELYARD_CATALOG": str(catalog), "COLUMNS": "120"},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout or done.stderr


def planned(folder: Path, *options: object, code: int = 0) -> Any:
    return json.loads(plan(folder, *options, "--json", code=code))


def test_it_says_how_many_processes_hold_the_promise_and_what_it_costs(tmp_path: Path) -> None:
    said = planned(
        *(tmp_path, "--rate", "50/s", "--latency", "8s", "--slo", "p95<60s", "--model", "small"),
        *("--input-tokens", 1000, "--output-tokens", 500),
    )
    # 50/s for 8 s each are 400 calls in flight, 100 in a process, and no process may be full.
    assert said["ok"]
    assert said["processes"] == 5
    assert said["usd_per_1000"] == pytest.approx(2.0)
    assert said["usd_per_hour"] == pytest.approx(360.0)
    assert said["p50_s"] < said["p95_s"] < said["p99_s"] < 60
    assert said["bottleneck"]["what"] == "calls in flight"
    assert 50 < said["bottleneck"]["full_at_per_s"] < 75


def test_it_is_a_table_for_people(tmp_path: Path) -> None:
    text = plan(tmp_path, "--rate", "50/s", "--latency", "8s", "--model", "small")
    assert text.startswith("50/s with p95 < 60 s: 5 worker processes\n")
    assert re.search(r"\nsmall: quota of requests \(small at 127.0.0.1:1/v1\): (49|50|51)%\n", text)
    assert "full first: small, calls in flight" in text


def test_failed_calls_are_paid_where_they_are_answered(tmp_path: Path) -> None:
    options = ("--rate", "5/s", "--latency", "2s", "--failures", "30%")
    small, large = planned(tmp_path, *options)["models"]
    assert small["calls"] == pytest.approx(1 + 0.3 + 0.09, rel=0.1)
    assert 0 < large["usd_per_1000"] < small["usd_per_1000"]


def test_a_model_that_is_down_is_paid_for_at_the_next_one(tmp_path: Path) -> None:
    options = ("--rate", "5/s", "--latency", "2s", "--failures", "small=100%")
    said = planned(tmp_path, *options)
    small, large = said["models"]
    assert small["usd_per_1000"] == 0.0
    assert small["calls"] < 0.1  # its breaker is open
    assert large["calls"] == 1.0
    assert "small: 100.0% of the calls fail, each by itself" in " ".join(said["assumptions"])


def test_a_limit_that_the_catalog_does_not_know_is_named(tmp_path: Path) -> None:
    options = ("--rate", "20/s", "--latency", "1s", "--model", "large", "--limit", "600/min")
    said = planned(tmp_path, *options, code=1)
    assert said["why"] == "large: limit of calls (127.0.0.1:1/v1) is full"
    assert said["models"][0]["limited"] > 0.0
    assert "answered with 429" in " ".join(said["assumptions"])


def test_a_cascade_pays_for_answers_that_are_not_accepted(tmp_path: Path) -> None:
    options = ("--rate", "10/s", "--latency", "1s", "--route", "both", "--escalate", "20%")
    said = planned(tmp_path, *options)
    small, large = said["models"]
    assert small["usd_per_1000"] == pytest.approx(1.6)
    assert large["calls"] == small["escalated"] == pytest.approx(0.2, abs=0.02)
    assert large["usd_per_1000"] == pytest.approx(0.2 * 16.0, rel=0.1)
    text = plan(tmp_path, *options)
    assert re.search(r"\nsmall: (19|20)\.\d% of the requests go on after its answer\n", text)
    assert "\nassumes: small: 20.0% of its answers are not accepted" in text


def test_a_quota_that_is_too_small_is_named(tmp_path: Path) -> None:
    said = planned(tmp_path, "--rate", "150/s", "--latency", "1s", "--model", "small", code=1)
    assert not said["ok"]
    assert said["why"] == "small: quota of requests (small at 127.0.0.1:1/v1) is full"


def test_calls_that_were_observed_count_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "seconds.txt").write_text("1.0\n1.0\n\n1.0\n")
    options = ("--rate", "10/s", "--model", "large", "--latencies", tmp_path / "seconds.txt")
    assert planned(tmp_path, *options)["p99_s"] == pytest.approx(1.0, abs=0.1)
    (tmp_path / "seconds.txt").write_text("1.0\nsoon\n")
    assert "seconds.txt:2: 'soon' is no time" in plan(tmp_path, *options, code=2)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--rate", "fast"), "'fast' is no rate"),
        (("--rate", "1/s", "--slo", "95"), "'95' is no promise"),
        (("--rate", "1/s", "--model", "smal"), "did you mean 'small'?"),
        (("--rate", "1/s", "--model", "support"), "people have no worker processes"),
        (("--rate", "1/s", "--route", "both"), "is a cascade"),
        (("--rate", "1/s", "--latency", "huge=1s"), "the plan has the models small, large"),
        (("--rate", "1/s", "--failures", "huge=1%"), "the plan has the models small, large"),
        (("--rate", "1/s", "--failures", "120%"), "'120%' is no share"),
        (("--rate", "1/s", "--failures", "often"), "'often' is no share"),
        (("--rate", "1/s", "--limit", "small/west=1/s"), "endpoints of small are 127.0.0.1:1/v1"),
        (("--rate", "1/s", "--limit", "small=lots"), "'lots' is no rate"),
    ],
)
def test_what_can_t_be_planned_is_told(tmp_path: Path, options: tuple[str, ...], why: str) -> None:
    assert why in " ".join(plan(tmp_path, *options, code=2).split())
