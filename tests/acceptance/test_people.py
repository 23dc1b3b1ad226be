"""The commands for people, as one types them, against a real Redis."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from inbox_requests import CATALOG, PROMPT, call, escalated, send
from waiting import eventually

from modelyard.app import make_app
from modelyard.messages import Answer
from modelyard.names import DEAD_LETTERS_KEY, RESULT_KEY_PREFIX
from modelyard.outcome import read_outcome


class Desk:
    """Runs `modelyard` for one Redis and one catalog."""

    def __init__(self, url: str, catalog: Path) -> None:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")
        }
        self._env = {**clean, "MODELYARD_BROKER_URL": url, "MODELYARD_CATALOG": str(catalog)}

    def __call__(self, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "producer.cli", *words],
            env=self._env,
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *words: str, input: str = "") -> Any:
        """What a command says to programs, in its one line."""
        done = self(*words, "--json", input=input)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        return json.loads(line)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG)
    return path


@pytest.fixture
def desk(redis_url: str, catalog: Path) -> Desk:
    return Desk(redis_url, catalog)


def answer(store: redis.Redis, id: str) -> Answer:
    found = read_outcome(store.get(RESULT_KEY_PREFIX + id) or b"", id)
    assert isinstance(found, Answer)
    return found


def test_a_list_has_what_waits_and_no_prompt(desk: Desk, store: redis.Redis) -> None:
    send(store, "a1", escalated())
    send(store, "l1", model="legal@v2")
    send(store, "a2", call(deadline=time.time() - 5))

    done = desk("inbox", "list")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert lines[0] == "3 in the inbox: 2 for support, 1 for legal@v2".split()
    assert [line[:3] for line in lines if line[0] in {"a1", "a2", "l1"}] == [
        ["a1", "support", "waiting"],
        ["a2", "support", "expired"],
        ["l1", "legal@v2", "waiting"],
    ]
    assert "parcel is lost" not in done.stdout

    said = desk.json("inbox", "list", "--model", "support", "--limit", "1")
    assert (said["count"], said["models"], said["more"]) == (2, {"support": 2}, True)
    (waiting,) = said["waiting"]
    assert (waiting["id"], waiting["drafts"], waiting["intent"]) == ("a1", 1, "parcel")
    assert "parcel is lost" not in json.dumps(said)


def test_an_empty_inbox_is_no_error(desk: Desk) -> None:
    assert desk("inbox", "list").stdout == "0 in the inbox\n"


def test_one_request_is_shown_whole(desk: Desk, store: redis.Redis) -> None:
    send(store, "a1", escalated(metadata={"tenant": "t"}))
    done = desk("inbox", "show", "a1")
    assert done.returncode == 0, done.stderr
    for part in (PROMPT, "tenant=t", "It is on its way.", "graded 0.2", "waiting"):
        assert part in done.stdout
    said = desk.json("inbox", "show", "a1")
    assert said["call"]["request"]["messages"][0]["content"] == PROMPT

    missing = desk("inbox", "show", "nobody")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "nobody is not in the inbox" in missing.stderr


def test_an_answer_is_given_on_the_command_line_or_on_standard_input(
    desk: Desk, store: redis.Redis
) -> None:
    for id in ("a1", "a2", "a3"):
        send(store, id)
    done = desk("inbox", "answer", "a1", "In Hamburg.", "--by", "ada")
    assert (done.returncode, done.stdout) == (0, "request a1: answered\n")
    assert (answer(store, "a1").text, answer(store, "a1").provider_model) == ("In Hamburg.", "ada")

    said = desk.json("inbox", "answer", "a2", "-", input="Two\nlines\n")
    assert said == {"id": "a2", "model": "support", "by": "person", "answered": True}
    assert answer(store, "a2").text == "Two\nlines"
    assert desk("inbox", "answer", "a3", input="Three").returncode == 0

    again = desk("inbox", "answer", "a1", "In Bremen.")
    assert again.returncode == 1
    assert "request a1 was answered already, by support (ada)" in again.stderr
    assert desk("inbox", "answer", "a3", " ").returncode == 2


def test_a_request_is_declined(desk: Desk, store: redis.Redis) -> None:
    send(store, "a1")
    assert desk("inbox", "decline", "a1").returncode == 2  # it needs a reason
    done = desk("inbox", "decline", "a1", "--why", "no such parcel", "--by", "ada")
    assert (done.returncode, done.stdout) == (0, "request a1: declined\n")
    letter = json.loads(store.hget(DEAD_LETTERS_KEY, "a1") or b"")
    assert (letter["reason"], letter["message"]) == (
        "refused",
        "support: declined by ada: no such parcel",
    )


def test_flower_hears_of_it(desk: Desk, store: redis.Redis, redis_url: str) -> None:
    send(store, "a1")
    send(store, "a2")
    heard: list[dict[str, Any]] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append(event)
        receiver.should_stop = len(heard) >= 6

    def listen() -> None:
        with contextlib.suppress(TimeoutError):
            receiver.capture(limit=None, timeout=60)

    with (
        make_app("listener", redis_url, current=False) as app,
        app.connection_for_read() as connection,
    ):
        receiver = app.events.Receiver(connection, handlers={"*": hear})
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        eventually(lambda: store.pubsub_channels() or store.pubsub_numpat())
        assert desk("inbox", "answer", "a1", "In Hamburg.").returncode == 0
        assert desk("inbox", "decline", "a2", "--why", "no").returncode == 0
        listener.join(60)
    assert [(event["uuid"], event["type"]) for event in heard] == [
        ("a1", "task-received"),
        ("a1", "task-started"),
        ("a1", "task-succeeded"),
        ("a2", "task-received"),
        ("a2", "task-started"),
        ("a2", "task-failed"),
    ]
    assert heard[0]["name"] == "model.support"
    assert PROMPT not in json.dumps(heard)


def test_models_shows_people_and_how_many_wait(desk: Desk, store: redis.Redis) -> None:
    send(store, "a1")
    send(store, "a2", batch=True)
    said = {model["name"]: model for model in desk.json("models")}
    assert (said["support"]["provider"], said["support"]["queued"]) == ("people", 2)
    table = desk("models").stdout
    assert "people" in table
    assert "support: 2 wait for people (modelyard inbox list)" in table
    assert "legal@v2: people (modelyard inbox)" in desk("check").stdout


def test_what_waits_for_people_is_no_sickness(desk: Desk, store: redis.Redis) -> None:
    send(store, "a1")
    said = json.loads(desk("health", "--json").stdout)
    assert "model.support" not in {finding["about"] for finding in said["findings"]}


@pytest.mark.parametrize(
    ("words", "code", "wrong"),
    [
        (("inbox", "list", "--model", "suport"), 2, "did you mean 'support'"),
        (("inbox", "list", "--model", "small"), 2, "model 'small' is no people's"),
        (("worker", "model", "support"), 2, "model 'support' is people"),
        (("inbox", "decline", "a", "--why", " "), 2, "the reason has no text"),
    ],
)
def test_what_makes_no_sense_is_refused(
    desk: Desk, words: tuple[str, ...], code: int, wrong: str
) -> None:
    done = desk(*words)
    assert done.returncode == code
    assert wrong in done.stderr


def test_a_catalog_without_people_has_no_inbox(redis_url: str, tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    path.write_text(CATALOG.split("  - name: support")[0] + CATALOG[CATALOG.index("routes") :])
    done = Desk(redis_url, path)("inbox", "list")
    assert done.returncode == 2
    assert "alone.yaml has no model with provider: people" in done.stderr


def test_no_broker_is_one_line_and_its_own_exit_code(catalog: Path) -> None:
    desk = Desk("redis://127.0.0.1:1/0", catalog)
    for words in (("list",), ("show", "a"), ("answer", "a", "b"), ("decline", "a", "--why", "b")):
        done = desk("inbox", *words)
        assert done.returncode == 3
        assert "can't reach the broker" in done.stderr
        assert "Traceback" not in done.stderr
