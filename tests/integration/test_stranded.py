"""What waits for a model that is no more in the catalog, while no worker serves its queue."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from fake_models import fake_model, fake_models
from waiting import eventually
from workers import Workers, own_yard

from modelyard import Client, RequestFailed
from modelyard.names import BEHIND_KEY_PREFIX, REQUESTS_QUEUE
from modelyard.testing import Reply
from producer.commands import model_command

LEASE_S = 0.9
PEOPLE = "  - {name: support, provider: people}\n"
ROUTES: Mapping[str, Any] = {
    "default": {"otherwise": ["second"]},
    "all": {
        "otherwise": {
            "models": ["second", "third"],
            "strategy": "ensemble",
            "combine": {"how": "concatenate"},
        }
    },
    "judged": {
        "otherwise": {
            "models": ["second", "first"],
            "strategy": "cascade",
            "accept": {"judge": "third"},
        }
    },
}


def catalog(*models: str, aliases: Mapping[str, str] | None = None, more: str = "") -> str:
    """A catalog of these models, and of the routes that can do with them."""
    text = fake_models(*(fake_model(name) for name in models)) + more
    routes = {
        name: route
        for name, route in ROUTES.items()
        if "third" in models or "third" not in json.dumps(route)
    }
    return f"{text}\naliases: {json.dumps(aliases or {})}\nroutes: {json.dumps(routes)}\n"


BEFORE = catalog("first", "second", "third", more=PEOPLE)
AFTER = catalog("first", "second")


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Workers]:
    """A router, and a worker of `first` and `second`. Nobody serves `third`."""
    with own_yard(tmp_path, catalog=BEFORE, env={"MODELYARD_LEASE_S": str(LEASE_S)}) as yard:
        yard.start_router()
        yard.start("pool", model_command("first", "second"))
        yield yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        yield store


def change(yard: Workers, text: str) -> None:
    """Put another catalog in place, and wait until the router decides by it."""
    path = yard.folder / "catalog.yaml"
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)
    for name in ("router", "pool"):
        eventually(lambda name=name: ", changed: " in yard.log(name), message=f"{name} has it")  # type: ignore[misc]


def run(yard: Workers, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "producer", *command],
        env=yard.env,
        cwd=yard.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def waits(store: redis.Redis, queue: str, count: int = 1) -> None:
    eventually(lambda: store.llen(queue) == count, message=f"{count} wait in {queue}")


def findings(yard: Workers) -> dict[str, str]:
    """What health finds, by what it is about."""
    told = json.loads(run(yard, "health", "--json").stdout)["findings"]
    return {each["about"]: each["message"] for each in told}


def test_it_is_told_until_its_deadline_ends_it(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    handle = client.submit("hello", models=("third",), lane="batch", deadline_s=12)
    waits(store, "batch.model.third")
    change(yard, AFTER)

    health = run(yard, "health")
    assert health.returncode == 1
    assert "batch.model.third: no worker consumes it, and 1 messages wait" in health.stdout
    assert "'third' is not in the catalog: put it back" in health.stdout
    (told,) = (each for each in models(yard) if each["name"] == "third")
    assert (told["disabled"], told["queued"], told["workers"]) == ("not in the catalog", 1, 0)
    assert "third: 1 wait and nobody serves them" in run(yard, "models").stdout

    with pytest.raises(RequestFailed, match="not in the catalog") as caught:
        handle.result(60)
    assert caught.value.reason == "expired"
    assert store.llen("batch.model.third") == 0
    assert findings(yard) == {}
    assert "third" not in {each["name"] for each in models(yard)}


def models(yard: Workers) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(run(yard, "models", "--json").stdout)
    return told


def test_it_goes_on_with_the_next_model_of_its_plan(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    handle = client.submit("hello", models=("third", "second"))
    only = client.submit("alone", models=("third",))
    waits(store, "model.third", 2)
    change(yard, AFTER)
    answer = handle.result(60)
    assert answer.model == "second"
    passed, _ = answer.attempts
    assert (passed.model, passed.endpoint) == ("third", "none")
    assert "unknown model 'third'" in passed.message
    # What only that model could answer is no dead letter: it waits for it to come back.
    assert only.id.encode() in store.lrange("model.third", 0, -1)[0]
    change(yard, BEFORE)
    yard.start_pool("third")
    assert only.result(60).model == "third"


def test_an_ensemble_is_joined_without_it_and_a_judge_does_not_grade(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("second", Reply(text="as the second says"))
    together = client.submit("all", route="all")
    judged = client.submit("judged", route="judged")
    waits(store, "model.third", 2)
    change(yard, AFTER)
    assert together.result(60).text.endswith("as the second says")
    assert judged.result(60).model == "first"
    waits(store, "model.third", 0)


def test_an_answer_that_waits_for_a_judge_that_is_gone_is_not_lost_with_the_deadline(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("second", Reply(text="as the second says"))
    handle = client.submit("hello", route="judged", deadline_s=6)
    waits(store, "model.third")
    yard.fake.always("first", Reply(delay_s=10))
    change(yard, AFTER)
    assert handle.result(60).text == "as the second says"


def test_what_waits_for_a_name_that_became_an_alias_is_answered_by_the_models_workers(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    handles = [client.submit("hello", models=("third",), lane=lane) for lane in ("batch", None)]
    waits(store, "model.third")
    waits(store, "batch.model.third")
    change(yard, catalog("first", "second", aliases={"third": "second"}))
    assert [handle.result(60).model for handle in handles] == ["second"] * 2


def test_a_queue_that_is_served_to_its_end_is_left_alone(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.start_pool("third", "-c", "1")
    yard.fake.always("third", Reply(delay_s=0.5))
    handles = [client.submit(f"number {at}", models=("third", "second")) for at in range(12)]
    change(yard, AFTER)
    assert findings(yard) == {}
    assert {handle.result(60).model for handle in handles} == {"third"}
    (told,) = (each for each in models(yard) if each["name"] == "third")
    assert (told["queued"], told["workers"]) == (0, 1)


def test_people_that_are_gone_can_answer_what_waits_and_deadlines_are_kept(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    late = client.submit("late", models=("support",), deadline_s=8)
    kept = client.submit("kept", models=("support",))
    waits(store, "model.support", 2)
    change(yard, AFTER)
    assert "'support' is not in the catalog" in findings(yard)["model.support"]
    told = json.loads(run(yard, "inbox", "list", "--json").stdout)
    assert told["models"] == {"support": 2}
    with pytest.raises(RequestFailed) as caught:
        late.result(60)
    assert caught.value.reason == "expired"
    done = run(yard, "inbox", "answer", kept.id, "In Hamburg.", "--by", "ada")
    assert done.returncode == 0, done.stderr
    assert kept.result(30).text == "In Hamburg."
    none = run(yard, "inbox", "list")
    assert none.returncode == 2
    assert "has no model with provider: people" in none.stderr


def test_a_queue_that_a_submit_found_empty_is_known_again_once_something_is_put_back(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    client.submit("hello", models=("third",))
    waits(store, "model.third")
    # As where a worker had all of it in hand, a client looked, and the worker was lost.
    store.delete(BEHIND_KEY_PREFIX + REQUESTS_QUEUE)
    change(yard, AFTER)
    eventually(lambda: "model.third" in findings(yard), message="health tells of it")
