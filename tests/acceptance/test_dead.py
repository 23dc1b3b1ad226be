"""The commands for dead letters, as one types them, against a real Redis."""

import json
import os
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis

from modelyard.claims import DONE, settle
from modelyard.dead_letters import DeadLetters
from modelyard.endings import died
from modelyard.errors import FailureKind
from modelyard.messages import Attempt, DeadLetter, Request
from modelyard.names import DEAD_LETTERS_KEY

PROMPT = "Summarize: the secret plans of the yard."


class Desk:
    """Runs `modelyard dead` for one Redis."""

    def __init__(self, url: str, **env: str) -> None:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")
        }
        self._env = {**clean, "MODELYARD_BROKER_URL": url, **env}

    def __call__(self, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "producer.cli", "dead", *words],
            env=self._env,
            input=input,
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
def dead(redis_url: str) -> Desk:
    return Desk(redis_url)


def bury(store: redis.Redis, id: str, age_s: float = 60.0, **fields: Any) -> None:
    """End a request as a worker does."""
    attempt = Attempt(
        model="small",
        endpoint="here",
        started_at=1.0,
        duration_ms=2.0,
        kind=FailureKind.RETRYABLE,
        status=503,
        message=f"I can't do {PROMPT}",
    )
    letter = DeadLetter.model_validate(
        {
            "id": id,
            "reason": "exhausted",
            "message": f"small: {attempt.message}",
            "request": Request.of(PROMPT, metadata={"tenant": id[0]}).encode(),
            "attempts": (attempt,),
            "died_at": time.time() - age_s,
            **fields,
        }
    )
    assert settle(store, [died(letter, claim="", ttl_s=600, channel="")]) == [DONE]


def left(store: redis.Redis) -> list[str]:
    return [entry.id for entry in DeadLetters(store).find()]


def test_a_list_has_the_letters_newest_first_and_no_prompt(dead: Desk, store: redis.Redis) -> None:
    bury(store, "a1", age_s=3 * 3600 + 5)
    bury(store, "a2", age_s=130, reason="expired", attempts=(), message="it was late")
    bury(store, "b1", age_s=2 * 86400 + 5)

    done = dead("list")

    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == "3 of at most 100,000 dead letters: 2 exhausted, 1 expired".split()
    assert [row[:3] for row in rows if row and row[0] in {"a1", "a2", "b1"}] == [
        ["a2", "expired", "2m"],
        ["a1", "exhausted", "3h"],
        ["b1", "exhausted", "2d"],
    ]
    assert "secret" not in done.stdout + done.stderr
    assert "secret" not in json.dumps(dead.json("list"))


def test_ids_can_be_copied_from_a_list(dead: Desk, store: redis.Redis) -> None:
    id = str(uuid.uuid4())
    bury(store, id, request=Request.of(PROMPT, route="a-route-with-a-long-name").encode())
    assert id in dead("list").stdout.split()


def test_a_list_for_programs_has_the_counts_of_all_and_the_letters_that_are_meant(
    dead: Desk, store: redis.Redis
) -> None:
    for id in ("a1", "a2", "b1"):
        bury(store, id)
    said = dead.json("list", "--metadata", "tenant=a", "--limit", "1", "--model", "small")
    assert (said["count"], said["by_reason"], said["more"]) == (3, {"exhausted": 3}, True)
    (letter,) = said["letters"]
    assert letter["id"] == "a2"
    assert (letter["models"], letter["attempts"], letter["replays"]) == (["small"], 1, 0)


def test_an_empty_store_is_no_error(dead: Desk, redis_url: str) -> None:
    assert dead("list").stdout.startswith("0 of at most 100,000 dead letters")
    assert dead.json("replay")["replayed"] == 0
    assert dead.json("drop", "--yes") == {"dropped": 0, "missing": []}


def test_a_store_that_is_nearly_full_is_told_loudly(redis_url: str, store: redis.Redis) -> None:
    for number in range(4):
        bury(store, f"{number}")
    small = Desk(redis_url, MODELYARD_DEAD_LETTER_LIMIT="5")
    assert "nearly full (4 of 5)" in small("list").stderr
    assert small.json("list")["near_limit"] is True


def test_one_letter_is_shown_with_its_prompt_and_attempts(dead: Desk, store: redis.Redis) -> None:
    bury(store, "a1", traceback="Traceback: somewhere")
    done = dead("show", "a1")
    assert done.returncode == 0
    for part in (PROMPT, "exhausted", "tenant=a", "small at here", "retryable 503", "somewhere"):
        assert part in done.stdout
    assert DeadLetter.model_validate(dead.json("show", "a1")).request["messages"]


def test_a_letter_that_is_not_there_is_an_error(dead: Desk, redis_url: str) -> None:
    done = dead("show", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no dead letter nobody" in done.stderr


def test_a_replay_says_what_it_would_do_and_then_does_it(dead: Desk, store: redis.Redis) -> None:
    bury(store, "a1")
    bury(store, "b1")
    bury(store, "b2", request=Request.of(PROMPT, deadline=5.0).encode())

    would = dead("replay", "--dry-run")
    assert would.stdout == "2 would be replayed: 2 onto requests\n"
    assert "1 would be refused: its deadline has passed" in would.stderr
    assert sorted(left(store)) == ["a1", "b1", "b2"]

    did = dead("replay")
    assert (did.returncode, did.stdout) == (1, "2 replayed: 2 onto requests\n")
    assert "--no-deadline) [b2]" in did.stderr
    assert left(store) == ["b2"]
    said = dead.json("replay", "--deadline", "10m")
    assert (said["replayed"], said["complete"], said["refused"]) == (1, True, [])
    assert store.llen("requests") == 3


def test_a_replay_may_go_to_another_route_or_model(dead: Desk, store: redis.Redis) -> None:
    bury(store, "a1")
    assert dead("replay", "--to-model", "local-small", "--to-route", "default").returncode == 0
    message = json.loads(store.lrange("requests", 0, 0)[0])
    request = json.loads(message["body"])[0][0]
    assert (message["headers"]["id"], request["models"]) == ("a1", ["local-small"])


def test_ids_that_are_not_there_are_told(dead: Desk, store: redis.Redis) -> None:
    bury(store, "a1")
    said = dead.json("replay", "--id", "a1", "--id", "a2", code=1)
    assert (said["replayed"], said["missing"]) == (1, ["a2"])
    assert "1 not there (replayed or dropped before?): a1" in dead("drop", "--id", "a1").stderr


def test_a_drop_asks_first(dead: Desk, store: redis.Redis) -> None:
    for id in ("a1", "a2", "b1"):
        bury(store, id)
    refused = dead("drop", "--metadata", "tenant=a", input="n\n")
    assert refused.returncode == 1
    assert "Delete 2 dead letters for good?" in refused.stderr
    assert dead("drop").returncode == 1  # nobody is there to ask
    assert len(left(store)) == 3

    assert dead("drop", "--metadata", "tenant=a", input="y\n").stdout == "2 dropped\n"
    assert left(store) == ["b1"]
    assert dead.json("drop", "--reason", "exhausted", "--yes")["dropped"] == 1


def test_ages_filter(dead: Desk, store: redis.Redis) -> None:
    bury(store, "old", age_s=7200)
    bury(store, "new", age_s=10)
    assert dead.json("drop", "--older-than", "1h", "--yes")["dropped"] == 1
    assert left(store) == ["new"]
    assert dead.json("drop", "--newer-than", "1h", "--yes")["dropped"] == 1


def test_an_export_is_whole_private_and_then_dropped(
    dead: Desk, store: redis.Redis, tmp_path: Path
) -> None:
    for number in range(30):
        bury(store, f"{number:02}")
    path = tmp_path / "dead.jsonl"

    done = dead("export", str(path), "--drop")

    assert done.stdout == f"30 exported to {path}, 30 dropped\n"
    letters = [DeadLetter.model_validate_json(line) for line in path.read_text().splitlines()]
    assert sorted(letter.id for letter in letters) == [f"{number:02}" for number in range(30)]
    assert {letter.request["messages"][0]["content"] for letter in letters} == {PROMPT}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert left(store) == []

    again = dead("export", str(path))
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_an_export_to_standard_output(dead: Desk, store: redis.Redis) -> None:
    bury(store, "a1")
    bury(store, "b1")
    done = dead("export", "-", "--id", "b1")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, "b1")
    assert dead("export", "-", "--drop").returncode == 2
    assert len(left(store)) == 2


def test_an_export_that_can_t_be_written_drops_nothing(dead: Desk, store: redis.Redis) -> None:
    bury(store, "a1")
    done = dead("export", "/nowhere/dead.jsonl", "--drop")
    assert done.returncode == 2
    assert "there is no folder /nowhere" in done.stderr
    assert left(store) == ["a1"]


def test_what_is_no_letter_can_be_shown_and_exported(dead: Desk, store: redis.Redis) -> None:
    store.hset(DEAD_LETTERS_KEY, "odd", '{"id": "odd"}')
    assert dead.json("list")["by_reason"] == {"unreadable": 1}
    assert "unreadable" in dead("list").stdout
    assert dead.json("show", "odd")["unreadable"] == '{"id": "odd"}'
    assert "not a dead letter" in dead("replay").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reason", "exausted"), "unknown reason 'exausted' (did you mean 'exhausted'?)"),
        (("--older-than", "3 days"), "'3 days' is no duration: write 90s, 15m, 2h or 3d"),
        (("--metadata", "tenant"), "--metadata takes KEY=VALUE, not 'tenant'"),
        (("--to-model", "local-smal"), "unknown model 'local-smal' (did you mean 'local-small'?)"),
        (("--to-route", "defalt"), "unknown route 'defalt' (did you mean 'default'?)"),
        (("--deadline", "1h", "--no-deadline"), "either a new deadline or none"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(
    words: tuple[str, ...], said: str
) -> None:
    done = Desk("redis://127.0.0.1:1/0")("replay", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_no_broker_is_one_line_and_its_own_exit_code() -> None:
    for words in (("list",), ("replay",), ("show", "a")):
        done = Desk("redis://127.0.0.1:1/0")(*words)
        assert done.returncode == 3
        assert "can't reach the broker" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("list",), ("export", "-"), ("drop", "--yes"), ("replay",)])
def test_a_letter_that_is_asked_for_by_id_and_not_there_is_a_failure(
    dead: Desk, store: redis.Redis, words: tuple[str, ...]
) -> None:
    bury(store, "a1")

    done = dead(*words, "--id", "a1", "--id", "nosuch")

    assert done.returncode == 1
    assert "1 not there (replayed or dropped before?): nosuch" in done.stderr


def test_an_alias_means_its_model_and_a_name_that_is_none_is_told(
    redis_url: str, store: redis.Redis, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(
        "models:\n  - {name: small, provider: extractive}\naliases: {current: small}\n"
        "routes: {default: {otherwise: [small]}}\n"
    )
    dead = Desk(redis_url, MODELYARD_CATALOG=str(catalog))
    bury(store, "a1")

    assert [each["id"] for each in dead.json("list", "--model", "current")["letters"]] == ["a1"]
    told = dead("replay", "--model", "smal", "--route", "nosuch")
    assert "the catalog has no model 'smal' (did you mean 'small'?)" in told.stderr
    assert "the catalog has no route 'nosuch'" in told.stderr
    assert left(store) == ["a1"]
