"""A catalog that changes while workers run: they go on with it, and nothing is lost or repeated."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from test_yard import running
from waiting import eventually
from workers import KEY, Workers, own_yard, workers

from modelyard import Client
from modelyard.catalog_file import load_catalog
from modelyard.errors import RequestFailed
from modelyard.names import in_lane, model_queue
from modelyard.settings import Settings
from modelyard.testing import FakeProvider, Gate, Reply
from producer.autoscale import Scale
from producer.commands import model_command, node_name
from producer.yard import Yard

MODEL = """
  - name: {name}
    provider: openai
    model: {calls}
    endpoints: [{{base_url: "${{FAKE_URL}}", api_key: "${{{key}}}"}}]
    context_tokens: 100000
    concurrency: {concurrency}
    timeout_s: 30
"""
ALL = "all@%h"


def model(name: str, *, calls: str = "", concurrency: int = 5, key: str = "FAKE_KEY") -> str:
    return MODEL.format(name=name, calls=calls or name, concurrency=concurrency, key=key)


def catalog(*models: str, current: str, **aliases: str) -> str:
    named = json.dumps({"current": current, **aliases})
    routes = "routes: {default: {otherwise: [current]}}"
    return f"models: {''.join(models)}\naliases: {named}\n{routes}\n"


FIRST = catalog(model("small@1"), model("small@2"), current="small@1")


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Workers]:
    """A router, and one worker of all models."""
    with own_yard(tmp_path, catalog=FIRST) as yard:
        yard.start_router()
        command = [sys.executable, "-m", "celery", "-A", "model_workers", "worker", "-n", ALL]
        yard.start("all", [*command, "--loglevel", "INFO"])
        yield yard


def write(yard: Workers, text: str) -> None:
    replace(yard.folder / "catalog.yaml", text)


def replace(path: Path, text: str) -> None:
    """Put another catalog in place in one step, as Kubernetes and careful editors do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def inspect(yard: Workers, node: str, command: str) -> dict[str, Any]:
    """Return what the worker of this name says."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "modelyard", "inspect", command, "--json"],
        env=yard.env,
        cwd=yard.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return next(dict(told) for name, told in said.items() if name.startswith(f"{node}@"))


def in_use(yard: Workers, name: str, times: int) -> None:
    """Wait until a worker has taken up so many changes."""
    eventually(lambda: yard.log(name).count(", changed: ") >= times, message=f"{name} has it")


def both_use(yard: Workers, times: int = 1) -> None:
    in_use(yard, "router", times)
    in_use(yard, "all", times)


def test_an_alias_turns_to_another_version_and_what_is_in_flight_keeps_its_own(
    yard: Workers, client: Client
) -> None:
    gate = Gate()
    yard.fake.always("small@1", Reply(gate=gate))
    before = [client.submit(f"before {number}") for number in range(12)]
    yard.fake.wait_until(lambda fake: fake.in_flight == 5)
    write(yard, catalog(model("small@1"), model("small@2"), current="small@2"))
    both_use(yard)
    after = [client.submit(f"after {number}") for number in range(12)]
    pinned = client.submit("pinned", models=["current"])
    assert {handle.result(30).model for handle in (*after, pinned)} == {"small@2"}
    gate.open()
    # Five were being called, and seven waited in the queue of the version that they were given.
    assert {handle.result(30).model for handle in before} == {"small@1"}
    assert len(yard.fake.calls) == 25
    assert inspect(yard, "router", "catalog")["aliases"] == {"current": "small@2"}


def test_a_new_model_is_served_and_one_that_is_gone_to_the_end_of_its_queue(
    yard: Workers, client: Client
) -> None:
    gate = Gate()
    yard.fake.always("small@1", Reply(gate=gate))
    old = [client.submit(f"old {number}") for number in range(12)]
    yard.fake.wait_until(lambda fake: fake.in_flight == 5)
    write(yard, catalog(model("small@2"), model("large"), current="large"))
    both_use(yard)
    new = [client.submit(f"new {number}") for number in range(12)]
    assert {handle.result(30).model for handle in new} == {"large"}
    gate.open()
    assert {handle.result(30).model for handle in old} == {"small@1"}
    assert "small@1 is gone from the catalog" in yard.log("all")


def test_a_worker_holds_as_many_calls_as_the_catalog_says_by_now(
    yard: Workers, client: Client
) -> None:
    def limit() -> int:
        return int(inspect(yard, "all", "stats")["pool"]["max-concurrency"])

    assert limit() == 10
    gate = Gate()
    yard.fake.always("small@1", Reply(gate=gate))
    handles = [client.submit(f"number {number}") for number in range(20)]
    yard.fake.wait_until(lambda fake: fake.in_flight == 5)
    more = catalog(model("small@1", concurrency=12), model("small@2"), current="small@1")
    write(yard, more)
    yard.fake.wait_until(lambda fake: fake.in_flight == 12)
    assert limit() == 17
    write(yard, FIRST)
    both_use(yard, 2)
    assert limit() == 10
    gate.open()
    assert all(handle.result(30) for handle in handles)
    assert yard.fake.max_in_flight == 12


def test_a_catalog_that_is_none_changes_nothing_until_it_is_mended(
    yard: Workers, client: Client
) -> None:
    write(yard, "models: [")
    told = "the catalog was changed and stays as it was"
    for name in ("router", "all"):
        eventually(lambda name=name: told in yard.log(name), message=told)  # type: ignore[misc]
        assert "not valid YAML" in inspect(yard, name, "catalog")["problem"]
    assert client.submit("still").result(30).model == "small@1"
    write(yard, catalog(model("small@1"), model("small@2"), current="small@2"))
    both_use(yard)
    assert inspect(yard, "router", "catalog")["problem"] is None
    assert client.submit("again").result(30).model == "small@2"


def test_a_model_whose_new_key_this_process_does_not_have_stays_as_it_was(
    yard: Workers, client: Client
) -> None:
    assert "NEW_KEY" not in os.environ
    write(yard, catalog(model("small@1", key="NEW_KEY"), model("small@2"), current="small@2"))
    both_use(yard)
    assert "small@1 stays as it was until this worker is started anew" in yard.log("all")
    assert client.submit("on").result(30).model == "small@2"


def test_what_waits_for_a_model_that_becomes_an_alias_is_called_as_often_as_it_may_be(
    yard: Workers, client: Client
) -> None:
    gate = Gate()
    yard.fake.always("small@1", Reply(gate=gate))
    handles = [client.submit(f"number {number}") for number in range(6)]
    yard.fake.wait_until(lambda fake: fake.in_flight == 5)
    yard.fake.always("small@2", Reply(status=500))
    write(yard, catalog(model("small@2"), current="small@2", **{"small@1": "small@2"}))
    both_use(yard)
    gate.open()
    assert [handle.result(30).model for handle in handles[:5]] == ["small@1"] * 5
    with pytest.raises(RequestFailed, match="HTTP 500"):
        handles[5].result(60)
    assert sum(call.model == "small@2" for call in yard.fake.calls) == 3


def test_a_new_worker_empties_the_queue_of_a_name_that_became_an_alias(
    tmp_path: Path, redis_url: str
) -> None:
    with workers(tmp_path, redis_url, catalog=FIRST) as yard, yard.client() as client:
        yard.start_router()
        handles = [client.submit("hello", lane=lane) for lane in ("interactive", "batch")]
        eventually(lambda: "routed 2 requests" in yard.log("router"), message="they wait")
        write(yard, catalog(model("small@2"), current="small@2", **{"small@1": "small@2"}))
        yard.start_pool("small@1")
        assert [handle.result(30).model for handle in handles] == ["small@2"] * 2


@pytest.mark.parametrize("back", ["itself", "alias"])
def test_a_worker_that_is_started_anew_leaves_alone_what_it_does_not_know(
    tmp_path: Path, redis_url: str, back: str
) -> None:
    with workers(tmp_path, redis_url, catalog=FIRST) as yard, yard.client() as client:
        yard.start_router()
        waiting = [client.submit("hello", lane=lane) for lane in ("interactive", "batch")]
        eventually(lambda: "routed 2 requests" in yard.log("router"), message="they wait")
        write(yard, catalog(model("small@2"), current="small@2"))
        yard.start("both", model_command("small@2", "small@1"))
        in_use(yard, "router", 1)
        assert client.submit("on").result(30).model == "small@2"
        assert "unknown model 'small@1'" in yard.log("both")
        with redis.Redis.from_url(yard.broker_url) as db:
            lanes = [in_lane(model_queue("small@1"), batch=batch) for batch in (False, True)]
            assert [db.llen(lane) for lane in lanes] == [1, 1]
        alias = catalog(model("small@2"), current="small@2", **{"small@1": "small@2"})
        write(yard, FIRST if back == "itself" else alias)
        model_now = "small@1" if back == "itself" else "small@2"
        assert [handle.result(30).model for handle in waiting] == [model_now] * 2


def test_a_model_that_people_answer_from_now_on_is_left_to_them_and_taken_up_again(
    yard: Workers, client: Client
) -> None:
    people = "\n  - {name: small@2, provider: people}\n"
    write(yard, catalog(model("small@1"), people, current="small@2"))
    both_use(yard)
    handles = [client.submit(f"number {number}") for number in range(3)]
    queue = model_queue("small@2")
    with redis.Redis.from_url(yard.broker_url) as db:
        eventually(lambda: db.llen(queue) == 3, message="they wait")
        eventually(lambda: "Canceling queue" in yard.log("all"), message="it is left")
    assert not yard.fake.calls
    assert client.submit("other", models=["small@1"]).result(30).model == "small@1"
    write(yard, catalog(model("small@1"), model("small@2"), current="small@1"))
    assert {handle.result(30).model for handle in handles} == {"small@2"}


def test_many_changes_under_load_lose_nothing_and_repeat_nothing(
    yard: Workers, client: Client
) -> None:
    yard.fake.always("small@1", Reply(delay_s=0.05))
    yard.fake.always("small@2", Reply(delay_s=0.05))
    handles = []
    for change in range(1, 9):
        handles += [client.submit(f"{change}, {number}") for number in range(60)]
        version, concurrency = 1 + change % 2, 5 + change
        changed = model(f"small@{version}", concurrency=concurrency, calls=f"small@{version}")
        other = model(f"small@{3 - version}", concurrency=20 - concurrency)
        write(yard, catalog(changed, other, current=f"small@{version}"))
        both_use(yard, change)
    answers = [handle.result(60) for handle in handles]
    assert {answer.model for answer in answers} == {"small@1", "small@2"}
    assert len(yard.fake.calls) == len(handles)
    assert all(len(answer.attempts) == 1 for answer in answers)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("most", [None, 2], ids=["fixed", "scaled"])
def test_a_yard_starts_pools_for_models_that_are_new(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(catalog(model("small@1"), current="small@1"))
    with FakeProvider(api_key=KEY) as fake:
        monkeypatch.setenv("FAKE_URL", fake.base_url)
        monkeypatch.setenv("FAKE_KEY", KEY)
        followed = load_catalog(path, os.environ)
        yard = Yard(
            redis_url,
            tmp_path,
            ["small@1"],
            flower=False,
            catalog=path,
            follows=followed,
            scale=Scale(followed, most) if most else None,
        )
        with running(yard), Client(redis_url, settings=Settings(catalog=path)) as client:
            assert client.submit("one").result(60).model == "small@1"
            replace(path, catalog(model("small@1"), model("small@2"), current="small@2"))
            log = yard.log_dir / "router.log"
            eventually(lambda: ", changed: " in log.read_text(), message="the router has it")
            assert client.submit("two").result(60).model == "small@2"
            if most is None:
                return
            gate = Gate()
            fake.always("small@2", Reply(gate=gate))
            handles = [client.submit(f"number {number}") for number in range(30)]
            fake.wait_until(lambda fake: fake.in_flight == most * 5, timeout_s=60)
            gate.open()
            assert all(handle.result(60).model == "small@2" for handle in handles)


@pytest.mark.timeout(240)
def test_a_yard_does_without_a_worker_of_a_model_that_is_gone_until_it_is_there_again(
    tmp_path: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "modelyard.yard")
    path = tmp_path / "catalog.yaml"
    both = catalog(model("small@1"), model("small@2"), current="small@2")
    path.write_text(both)
    with FakeProvider(api_key=KEY) as fake:
        monkeypatch.setenv("FAKE_URL", fake.base_url)
        monkeypatch.setenv("FAKE_KEY", KEY)
        followed = load_catalog(path, os.environ)
        models = ["small@1", "small@2"]
        yard = Yard(redis_url, tmp_path, models, flower=False, catalog=path, follows=followed)
        with running(yard), Client(redis_url, settings=Settings(catalog=path)) as client:
            log = yard.log_dir / f"{node_name('small@1', None)}.log"
            eventually(lambda: log.exists() and " ready." in log.read_text(), message="it is ready")
            replace(path, catalog(model("small@2"), current="small@2"))
            eventually(lambda: ", changed: " in log.read_text(), message="it has it")
            (pid,) = re.findall(r"started small=1 \(process (\d+)\)", caplog.text)
            os.kill(int(pid), signal.SIGKILL)
            given_up = "going on without small=1"
            eventually(lambda: given_up in caplog.text, timeout_s=60, message=given_up)
            assert "unknown model 'small@1'" in log.read_text()
            assert client.submit("on").result(30).model == "small@2"
            replace(path, both)
            router = yard.log_dir / "router.log"
            eventually(lambda: router.read_text().count(", changed: ") == 2, message="it is back")
            assert client.submit("again", models=["small@1"]).result(60).model == "small@1"
