"""The commands of the ledger, feedback, experiments and replay, as one types them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from ledger_entries import arm, entry, failed, put

from modelyard.claims import settle
from modelyard.decision_ledger import Entry, read
from modelyard.endings import answered
from modelyard.messages import Answer, Request
from modelyard.plan import Decision, Plan, Step
from modelyard.standings import read_standings, standings

CATALOG = """
models:
  - {name: small, provider: extractive, model: lead}
  - {name: large, provider: extractive, model: lead}
routes:
  default:
    rules:
      - {when: {keywords: [summarize]}, intent: summarize, models: [small]}
    otherwise: [small]
    experiments:
      - name: try-large
        of: small
        to: large
        percent: 10
        rollback: {max_error_rate: 0.2, min_score: 0.5}
"""
NEW_POLICY = CATALOG.replace("intent: summarize, models: [small]", "intent: sum, models: [large]")
TREATED, CONTROL = (arm("try-large", treated=True),), (arm("try-large", treated=False),)


class Desk:
    """Runs `modelyard` in a folder with a catalog."""

    def __init__(self, folder: Path, url: str, **env: str) -> None:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")
        }
        self.folder = folder
        catalog = folder / "catalog.yaml"
        catalog.write_text(CATALOG)
        self.env = {
            **clean,
            "MODELYARD_BROKER_URL": url,
            "MODELYARD_CATALOG": str(catalog),
            "COLUMNS": "120",
            **env,
        }

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "producer.cli", *words],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *words: str, code: int = 0) -> Any:
        """What a command says to programs, in its one line."""
        done = self(*words, "--json")
        assert done.returncode == code, done.stderr
        (line,) = done.stdout.splitlines()
        return json.loads(line)


@pytest.fixture
def desk(redis_url: str, tmp_path: Path) -> Desk:
    return Desk(tmp_path, redis_url)


def asked(text: str, **fields: Any) -> Entry:
    """A request whose text was kept."""
    return entry(request=Request.of(text).encode(), **fields)


# -- ledger


def test_the_ledger_is_shown_in_figures(desk: Desk, store: redis.Redis) -> None:
    put(
        store,
        entry(id="1", arms=CONTROL),
        entry(id="2", model="large", arms=TREATED, cost_usd=0.05),
        failed("large", id="3", arms=TREATED),
        entry(id="2", kind="feedback", model="large", arms=TREATED, score=0.5),
    )

    said = desk.json("ledger", "show")
    shown = desk("ledger", "show")

    assert said["all"]["requests"] == 3
    assert {row["arm"]: row["answered"] for row in said["arm"]} == {
        "try-large/treatment": 0.5,
        "try-large/control": 1.0,
    }
    assert shown.returncode == 0
    rows = {tuple(line.split()[:3]) for line in shown.stdout.splitlines()}
    assert {("large", "1", "100.0%"), ("try-large/treatment", "2", "50.0%")} <= rows


def test_only_what_was_asked_for_is_counted(desk: Desk, store: redis.Redis) -> None:
    put(store, entry(id="1"), entry(id="2", route="cheap"))
    assert desk.json("ledger", "show", "--route", "cheap")["all"]["requests"] == 1
    assert desk.json("ledger", "show", "--since", "1h")["all"]["requests"] == 2
    assert desk.json("ledger", "show", "--until", "1h")["all"]["requests"] == 0
    assert "nothing was decided" in desk("ledger", "show", "--until", "1h").stdout


def test_the_ledger_is_exported_as_lines(desk: Desk, store: redis.Redis) -> None:
    put(store, entry(id="1", at=1.5), failed("large", id="2", arms=TREATED))

    said = desk.json("ledger", "export", "-o", "ledger.jsonl")

    assert said == {"file": "ledger.jsonl", "format": "jsonl", "exported": 2}
    lines = (desk.folder / "ledger.jsonl").read_text().splitlines()
    assert [Entry.model_validate_json(line) for line in lines] == list(read(store))
    again = desk("ledger", "export", "-o", "ledger.jsonl")
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


def test_the_ledger_is_exported_as_a_table(desk: Desk, store: redis.Redis) -> None:
    import pyarrow.parquet as pq

    put(store, asked("hello", id="1", at=1.5, arms=CONTROL), entry(id="1", kind="feedback"))

    assert desk.json("ledger", "export", "-o", "t.parquet", "--format", "parquet")["exported"] == 2

    first, second = pq.read_table(desk.folder / "t.parquet").to_pylist()
    assert first.keys() == Entry.model_fields.keys()
    assert first["at"].timestamp() == 1.5
    assert first["calls"] == [{"model": "small", "made": 1, "failed": 0, "answered_s": 0.2}]
    assert first["arms"] == [{"experiment": "try-large", "arm": "control"}]
    assert json.loads(first["request"])["messages"][0]["content"] == "hello"
    assert (second["kind"], second["request"]) == ("feedback", None)


def test_what_no_table_can_hold_is_cut_to_the_largest_number(
    desk: Desk, store: redis.Redis
) -> None:
    import pyarrow.parquet as pq

    put(store, entry(id="1", input_tokens=10**30))

    assert desk.json("ledger", "export", "-o", "t.parquet", "--format", "parquet")["exported"] == 1
    assert pq.read_table(desk.folder / "t.parquet").to_pylist()[0]["input_tokens"] == 2**63 - 1


def test_names_that_look_like_markup_are_shown_as_they_are(desk: Desk, store: redis.Redis) -> None:
    put(store, asked("summarize", id="1", intent="[/red]"))

    for words in (("ledger", "show"), ("replay", "--policy", "catalog.yaml")):
        done = desk(*words)
        assert (done.returncode, "[/red]" in done.stdout) == (0, True), done.stderr


def test_an_empty_ledger_is_an_empty_table(desk: Desk) -> None:
    import pyarrow.parquet as pq

    assert desk.json("ledger", "export", "-o", "t.parquet", "--format", "parquet")["exported"] == 0
    assert pq.read_table(desk.folder / "t.parquet").num_rows == 0


def test_without_pyarrow_it_is_said_what_to_do(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('none here')\n")
    desk = Desk(tmp_path, redis_url, PYTHONPATH=str(tmp_path))

    done = desk("ledger", "export", "-o", "t.parquet", "--format", "parquet")

    assert done.returncode == 2
    assert "pip install 'modelyard[parquet]'" in done.stderr
    assert not (tmp_path / "t.parquet").exists()
    assert desk("ledger", "export", "-o", "t.jsonl").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ledger", "show", "--since", "yesterday"), "'yesterday' is no time"),
        (("ledger", "show", "--since", "1h", "--until", "2h"), "nothing is since 1h and until 2h"),
        (("feedback", "r1", "--score", "2"), "a score is from 0 to 1, and not 2"),
        (("feedback", "r\udcff", "--score", "1"), "the id or the comment is not valid Unicode"),
        (("experiments", "back", "try-larger"), "did you mean 'try-large'?"),
        (("replay", "--policy", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_can_t_be_meant_is_refused(desk: Desk, words: tuple[str, ...], said: str) -> None:
    done = desk(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("ledger", "show"),
        ("feedback", "r1", "--score", "1"),
        ("experiments", "list"),
        ("experiments", "back", "try-large"),
        ("replay", "--policy", "catalog.yaml"),
    ],
)
def test_without_a_broker_there_is_one_line_and_exit_code_3(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = Desk(tmp_path, "redis://127.0.0.1:1/0")(*words)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "can't reach the broker" in line


# -- feedback


def test_feedback_is_about_the_model_that_answered(desk: Desk, store: redis.Redis) -> None:
    decision = Decision(
        route="default",
        intent="other",
        why="",
        input_tokens=1,
        arms=TREATED,
        decided_at=1.0,
        plan=Plan(steps=(Step(model="large"),)),
    )
    done = Answer(id="r1", text="42", model="large", provider_model="x", decision=decision)
    settle(store, [answered(done, claim="", ttl_s=60, channel="", now=2.0)])

    said = desk.json("feedback", "r1", "--score", "0.5", "--comment", "so so")

    assert said == {"id": "r1", "model": "large", "score": 0.5}
    (line,) = read(store)
    assert (line.score, line.comment, line.model, line.arms) == (0.5, "so so", "large", TREATED)


def test_there_is_no_feedback_on_what_was_never_answered(desk: Desk, store: redis.Redis) -> None:
    done = desk("feedback", "never", "--score", "1")
    assert done.returncode == 1
    assert "request never: there is no answer to give feedback on" in done.stderr
    assert list(read(store)) == []


# -- experiments


def test_experiments_are_listed_with_their_figures_and_intervals(
    desk: Desk, store: redis.Redis
) -> None:
    put(store, *[entry(arms=CONTROL)] * 30, *[entry(model="large", arms=TREATED)] * 4)

    (said,) = desk.json("experiments", "list")
    shown = desk("experiments", "list")

    assert (said["name"], said["state"], said["percent"]) == ("try-large", "in force", 10.0)
    assert said["arms"]["control"]["error_rate"]["mean"] == 0.0
    low, high = said["arms"]["treatment"]["error_rate"]["interval"]
    assert low == 0.0
    assert 0.3 < high < 1.0
    assert [test["what"] for test in said["tests"]] == ["error_rate", "score"]
    assert shown.stdout.startswith("try-large: canary in route default, small -> large, 10 %")
    assert "calls that fail: at most 20.0% is wanted" in shown.stdout


def test_an_experiment_is_taken_back_and_put_in_force_by_hand(
    desk: Desk, store: redis.Redis
) -> None:
    put(store, *[failed("large", arms=TREATED)] * 5)

    said = desk.json("experiments", "back", "try-large", "--why", "it is rude")
    assert said == {"name": "try-large", "state": "taken back", "changed": True}
    standing = read_standings(standings(store))["try-large"]
    assert (standing.is_back, standing.by, standing.why) == (True, "hand", "it is rude")
    assert desk.json("experiments", "back", "try-large", code=1)["changed"] is False
    assert "by hand: it is rude" in desk("experiments", "list").stdout

    assert desk.json("experiments", "again", "try-large")["state"] == "in force"
    assert not read_standings(standings(store))["try-large"].is_back
    assert desk("experiments", "again", "try-large").returncode == 1
    (said,) = desk.json("experiments", "list")
    assert said["arms"]["treatment"]["requests"] == 0


# -- replay


def test_a_policy_is_tried_on_the_past(desk: Desk, store: redis.Redis) -> None:
    put(
        store,
        asked("Summarize: one. two.", id="1", intent="summarize", cost_usd=0.01),
        asked("hello", id="2", cost_usd=0.02),
        entry(id="3", plan=("large",), model="large", cost_usd=0.5, intent="sum"),
        asked("hello", id="2", kind="shadow", model="large"),
    )
    (desk.folder / "new.yaml").write_text(NEW_POLICY)

    said = desk.json("replay", "--policy", "new.yaml")
    shown = desk("replay", "--policy", "new.yaml")

    assert (said["requests"], said["elsewhere"], said["without_text"]) == (2, 1, 1)
    assert said["moves"] == [{"from": "small", "to": "large", "requests": 1}]
    assert (said["old_cost_usd"], said["new_cost_usd"]) == pytest.approx((0.03, 0.52))
    assert said["intents_changed"] == 1
    assert "1 of 2 requests (50.0%) go elsewhere" in shown.stdout
    assert "1 requests can't be decided again: their text was not kept" in shown.stderr


def test_many_requests_do_not_block_each_other(desk: Desk, store: redis.Redis) -> None:
    """More than the pipes between two programs hold."""
    put(store, *(asked("word " * 400, id=f"r{number}") for number in range(600)))

    assert desk.json("replay", "--policy", "catalog.yaml")["requests"] == 600


def test_the_same_policy_moves_nothing(desk: Desk, store: redis.Redis) -> None:
    put(store, asked("hello", id="1"), asked("hello", id="2"))
    (desk.folder / "same.yaml").write_text(CATALOG.partition("    experiments:")[0])
    said = desk.json("replay", "--policy", "same.yaml")
    assert (said["requests"], said["elsewhere"], said["moves"]) == (2, 0, [])


def test_an_experiment_that_was_taken_back_moves_nothing(desk: Desk, store: redis.Redis) -> None:
    put(store, *(asked("hello", id=f"r{number}") for number in range(100)))
    moved = desk.json("replay", "--policy", "catalog.yaml")["elsewhere"]
    desk.json("experiments", "back", "try-large")

    assert 0 < moved < 40
    assert desk.json("replay", "--policy", "catalog.yaml")["elsewhere"] == 0


def test_a_policy_that_is_wrong_is_refused_before_anything_is_read(
    desk: Desk, store: redis.Redis
) -> None:
    (desk.folder / "wrong.yaml").write_text(CATALOG.replace("[small]", "[smal]"))
    done = desk("replay", "--policy", "wrong.yaml")
    assert done.returncode == 2
    assert "did you mean 'small'?" in done.stderr


def test_its_help_says_that_nothing_is_called(desk: Desk) -> None:
    said = desk("replay", "--help").stdout
    assert "No model is called." in said
    assert "modelyard dead replay" in said
