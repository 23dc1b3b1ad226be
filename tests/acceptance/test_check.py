"""`modelyard check` as one uses it: what workers of here can't do, and what they don't look at."""

import json
import os
import subprocess
import sys
from pathlib import Path

CATALOG = """\
models:
  - name: mine
    provider: python
    entry_point: answers:answer
  - name: lost
    provider: python
    entry_point: answers:anwser
  - name: small
    provider: openai
    endpoints:
      - {base_url: "http://127.0.0.1:1/v1", project: p, api_version: "1"}
  - name: other
    provider: litellm
routes: {default: {otherwise: [mine, lost, small, other]}}
"""


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Check the catalog of a folder, whose modules can be imported."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "producer.cli", "check", str(folder / "catalog.yaml"), *options],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_warns_and_the_catalog_is_right_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    (tmp_path / "answers.py").write_text("print('imported')\ndef answer(request): return 'yes'\n")

    done = check(tmp_path, "--json")

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ok"]
    lost, *fields = [each for each in said["warnings"] if "litellm" not in each]
    assert lost.startswith("model 'lost': entry_point 'answers:anwser' can't be imported")
    assert fields == [
        "model 'small', endpoint 1: provider 'openai' does not use 'project'",
        "model 'small', endpoint 1: provider 'openai' does not use 'api_version'",
    ]


def test_people_read_the_warnings_after_what_the_catalog_holds(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    done = check(tmp_path)
    assert done.returncode == 0
    assert "mine: ready" in done.stdout
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning: model 'mine'")]
    assert len(warned) == 1
    assert "No module named 'answers'" in warned[0]


def test_it_says_which_endpoints_are_left_out_and_for_want_of_what(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(
        """\
models:
  - name: small
    provider: openai
    endpoints:
      - {base_url: "http://127.0.0.1:1/v1"}
      - {name: west, base_url: "http://127.0.0.1:2/v1", api_key: "${NOBODY_SET_THIS}"}
routes: {default: {otherwise: [small]}}
"""
    )
    done = check(tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        "  small: ready, without 1 of 2 endpoints",
        "    west is off: NOBODY_SET_THIS is not set",
    ]
    said = json.loads(check(tmp_path, "--json").stdout)
    assert said["models"] == {"small": "ok"}
    assert said["endpoints_off"] == [
        {"model": "small", "endpoint": "west", "missing": ["NOBODY_SET_THIS"]}
    ]
