"""Experiments through real processes: a rollback, sticky arms, a shadow, feedback, a replay."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fake_models import fake_model, fake_models
from waiting import eventually
from workers import Workers, own_yard

from modelyard import Client
from modelyard.decision_ledger import Entry, Kind, read
from modelyard.errors import InvalidRequest
from modelyard.names import DECISIONS_KEY
from modelyard.standings import read_standings, standings
from modelyard.testing import Reply
from producer.commands import model_command

CATALOG = (
    fake_models(
        fake_model("small", usd=1, retry={"calls": 1}),
        fake_model("large", usd=5, retry={"calls": 1}),
    )
    + """
routes:
  default: {otherwise: [small]}
  canary: {otherwise: [small], experiments: [
    {name: careful, of: small, to: large, percent: 50,
     rollback: {max_error_rate: 0.2, min_requests: 5}}]}
  ab: {otherwise: [small], experiments: [
    {name: versus, kind: ab, of: small, to: large, percent: 50}]}
  shadowed: {otherwise: [small], experiments: [
    {name: aside, kind: shadow, of: small, to: large, percent: 100}]}
  graded: {otherwise: [small], experiments: [
    {name: marked, kind: shadow, of: small, to: large, percent: 100,
     rollback: {min_score: 0.7, min_requests: 1}}]}
  policy: {otherwise: [small], experiments: [{name: rules, route: other, percent: 100}]}
  other: {otherwise: [large]}
"""
)


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("yard")
    with own_yard(folder, catalog=CATALOG, env={"MODELYARD_LEDGER_TEXT": "1"}) as yard:
        yard.start_router()
        yard.start("pool", model_command("small", "large"))
        yield yard


@pytest.fixture
def yard(module_yard: Workers) -> Workers:
    module_yard.fake.reset()
    return module_yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        yield store


def ask(client: Client, route: str, user: str) -> Any:
    return client.submit("hello", route=route, metadata={"user": user})


def entries(store: redis.Redis, id: str) -> dict[Kind, Entry]:
    """What the ledger has of a request."""
    return {entry.kind: entry for entry in read(store) if entry.id == id}


def command(yard: Workers, *words: str) -> Any:
    """What a command says to programs."""
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", *words, "--json"],
        env=yard.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_canary_that_fails_is_taken_back_and_nobody_is_harmed(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("large", Reply(status=500))
    asked = 0

    def is_back() -> bool:
        nonlocal asked
        asked += 1
        # `small` stays behind `large`, to fail over to.
        assert ask(client, "canary", f"user-{asked}").result(30).model == "small"
        return "careful" in standings(store)

    eventually(is_back, timeout_s=60)

    standing = read_standings(standings(store))["careful"]
    assert (standing.is_back, standing.by) == (True, "test")
    assert standing.statistics["treatment"]["error_rate"]["mean"] == 1.0
    eventually(lambda: "experiment careful is taken back" in yard.log("router"))

    def all_are_control() -> bool:
        yard.fake.reset()
        handles = [ask(client, "canary", f"late-{number}") for number in range(20)]
        answers = [handle.result(30) for handle in handles]
        return all(
            answer.decision.arms == () and [each.model for each in answer.attempts] == ["small"]
            for answer in answers
        )

    eventually(all_are_control)
    assert {call.model for call in yard.fake.calls} == {"small"}

    (shown,) = [each for each in command(yard, "experiments", "list") if each["name"] == "careful"]
    assert (shown["state"], shown["percent"]) == ("taken back", 0.0)
    command(yard, "experiments", "again", "careful")
    yard.fake.always("large", Reply(text="well again"))
    eventually(lambda: ask(client, "canary", "user-1").result(30).decision.arms)


def test_a_user_stays_where_they_are(yard: Workers, client: Client) -> None:
    users = [f"user-{number}" for number in range(16)]
    rounds = [
        [handle.result(30).model for handle in [ask(client, "ab", user) for user in users]]
        for _ in range(3)
    ]

    assert rounds[0] == rounds[1] == rounds[2]
    assert set(rounds[0]) == {"small", "large"}


def test_a_shadow_s_answer_is_recorded_and_not_given(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.fake.always("small", Reply(text="the answer"))
    yard.fake.always("large", Reply(text="the shadow's"))

    handle = ask(client, "shadowed", "ada")

    assert handle.result(30).text == "the answer"
    eventually(lambda: len(entries(store, handle.id)) == 2)
    found = entries(store, handle.id)
    assert (found[Kind.REQUEST].model, found[Kind.SHADOW].model) == ("small", "large")
    assert [arm.experiment for arm in found[Kind.SHADOW].arms] == ["aside"]
    (shown,) = [each for each in command(yard, "experiments", "list") if each["name"] == "aside"]
    arms = shown["arms"]
    assert (arms["control"]["requests"], arms["treatment"]["requests"]) == (1, 1)
    assert arms["treatment"]["cost_usd"]["mean"] > arms["control"]["cost_usd"]["mean"]
    # The yard keeps text, so that somebody can read and grade it.
    assert (found[Kind.SHADOW].text, found[Kind.REQUEST].text) == ("the shadow's", None)


def test_a_shadow_is_graded_and_its_own_score_is_tested(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    handle = ask(client, "graded", "ada")
    handle.result(30)
    eventually(lambda: len(entries(store, handle.id)) == 2)

    handle.feedback(1.0)
    said = command(yard, "feedback", handle.id, "--score", "0.25", "--model", "large")
    assert said["model"] == "large"
    graded = [each for each in read(store) if each.kind is Kind.FEEDBACK and each.id == handle.id]
    assert [(each.model, each.given) for each in graded] == [("small", True), ("large", False)]
    with pytest.raises(InvalidRequest, match="there are answers of small, large"):
        handle.feedback(1.0, model="medium")

    (shown,) = [each for each in command(yard, "experiments", "list") if each["name"] == "marked"]
    arms = shown["arms"]
    assert (arms["control"]["score"]["mean"], arms["treatment"]["score"]["mean"]) == (1.0, 0.25)
    for _ in range(30):
        handle.feedback(0.0, model="large")
    eventually(lambda: "marked" in standings(store))
    assert read_standings(standings(store))["marked"].why.startswith("its mean score is")


def test_another_route_s_rules_decide(yard: Workers, client: Client, store: redis.Redis) -> None:
    handle = ask(client, "policy", "ada")

    assert handle.result(30).model == "large"
    (arm,) = entries(store, handle.id)[Kind.REQUEST].arms
    assert (arm.experiment, arm.arm) == ("rules", "treatment")


def test_feedback_counts_for_the_arm_of_the_answer(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    handle = ask(client, "policy", "grace")
    handle.result(30)

    handle.feedback(0.25)
    assert command(yard, "feedback", handle.id, "--score", "0.75")["model"] == "large"

    (shown,) = [each for each in command(yard, "experiments", "list") if each["name"] == "rules"]
    assert shown["arms"]["treatment"]["score"]["mean"] == pytest.approx(0.5)


def test_another_policy_is_tried_on_the_past_and_calls_nothing(
    yard: Workers, client: Client, store: redis.Redis, tmp_path: Path
) -> None:
    store.delete(DECISIONS_KEY)
    for handle in [ask(client, "default", f"user-{number}") for number in range(5)]:
        handle.result(30)
    eventually(lambda: len(list(read(store))) == 5)
    called = len(yard.fake.calls)
    policy = tmp_path / "new.yaml"
    policy.write_text(
        CATALOG.replace("default: {otherwise: [small]}", "default: {otherwise: [large]}")
    )

    said = command(yard, "replay", "--policy", str(policy))

    assert (said["requests"], said["elsewhere"], said["without_text"]) == (5, 5, 0)
    assert said["moves"] == [{"from": "small", "to": "large", "requests": 5}]
    assert said["new_cost_usd"] > said["old_cost_usd"] > 0
    assert len(yard.fake.calls) == called
