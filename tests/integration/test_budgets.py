"""Budgets through real processes: each call's cost is counted once, and what is spent is spent."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from strategy_yard import MODELS, strategy_yard
from waiting import eventually
from workers import Workers

from modelyard import Client, RequestFailed
from modelyard.budgets import bill
from modelyard.claims import (
    DONE,
    FENCED,
    LOST,
    Ack,
    Claims,
    End,
    Join,
    JoinPoint,
    New,
    Record,
    Spread,
    Want,
    put,
)
from modelyard.messages import Attempt, Usage
from modelyard.names import RESULT_KEY_PREFIX, SPENT_KEY_PREFIX
from modelyard.plan import Decision, Plan, Step
from modelyard.testing import Gate, Reply

ROUTES = """
routes:
  default: {otherwise: [small, large]}
  dear: {otherwise: [large]}
  wanted: {otherwise: {models: [small], after: [json]}}
  judged: {otherwise: {models: [small, large], strategy: cascade,
    accept: {judge: judge, judge_floor: 0.7}}}
  best: {otherwise: {models: [small, medium, large], strategy: ensemble,
    combine: {how: best, judge: judge}}}
  quorum: {otherwise: {models: [small, large], strategy: ensemble,
    combine: {how: concatenate, quorum: 1}}}
  shadowed: {otherwise: [small], experiments: [
    {name: try-large, kind: shadow, of: small, to: large, percent: 100}]}
budgets:
  - {usd_per_day: 1000}
  - {tenant: acme, usd_per_day: 0.00002, over: stop}
  - {route: dear, usd_per_day: 0.00005, over: downgrade, downgrade_to: [small]}
"""

CALL_NANO_USD = 15_000
"""What one call of `small` costs; `medium` is twice as dear, `large` four times, `judge` eight."""


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with strategy_yard(tmp_path_factory.mktemp("yard"), routes=ROUTES) as yard:
        yield yard


@pytest.fixture
def yard(module_yard: Workers) -> Workers:
    module_yard.fake.reset()
    for model in MODELS:
        says(module_yard, model, "text")
    return module_yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url, decode_responses=True) as store:
        for key in store.keys(f"{SPENT_KEY_PREFIX}*"):
            store.delete(key)
        yield store


def says(yard: Workers, model: str, text: str, **fields: Any) -> None:
    usage = Usage(input_tokens=10, output_tokens=5)
    yard.fake.always(model, Reply(text=text, usage=usage, **fields))


def spent(store: redis.Redis) -> dict[str, int]:
    """The sums of all days, in billionths: a test may run at midnight."""
    sums: dict[str, int] = {}
    for key in store.keys(f"{SPENT_KEY_PREFIX}*"):
        found: Any = store.hgetall(key)
        for label, nano_usd in found.items():
            sums[label] = sums.get(label, 0) + int(nano_usd)
    return sums


@pytest.mark.parametrize(
    ("route", "calls"),
    [
        ("default", 1),
        ("judged", 1 + 8 + 4),  # not accepted: the last model's answer stands
        ("best", 1 + 2 + 4 + 8),
    ],
)
def test_drafts_members_and_judges_count_once(
    yard: Workers, client: Client, store: redis.Redis, route: str, calls: int
) -> None:
    says(yard, "judge", "1")
    answer = client.submit("hello", route=route).result(30)
    assert spent(store) == {"*/*": calls * CALL_NANO_USD}
    assert sum(each.cost_usd for each in answer.attempts) == pytest.approx(calls * 15e-6)
    assert answer.decision.budgets == ("*/*",)


def test_sums_are_kept_for_eight_days(client: Client, store: redis.Redis) -> None:
    client.submit("hello").result(30)
    (key, *_) = store.keys(f"{SPENT_KEY_PREFIX}*")
    assert 7 * 86400 < store.ttl(key) <= 8 * 86400


def test_a_member_that_nobody_waited_for_counts_too(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    first, late = Gate(), Gate()
    says(yard, "small", "first", gate=first)
    says(yard, "large", "late", gate=late)
    handle = client.submit("hello", route="quorum")
    eventually(lambda: yard.fake.in_flight == 2)
    first.open()
    handle.result(30)
    assert spent(store) == {"*/*": CALL_NANO_USD}
    late.open()
    eventually(lambda: spent(store) == {"*/*": 5 * CALL_NANO_USD})


def test_a_shadow_counts(client: Client, store: redis.Redis) -> None:
    client.submit("hello", route="shadowed").result(30)
    eventually(lambda: spent(store) == {"*/*": 5 * CALL_NANO_USD})


def test_what_a_dead_letter_was_paid_for_counts(client: Client, store: redis.Redis) -> None:
    with pytest.raises(RequestFailed):
        client.submit("hello", route="wanted").result(30)
    assert spent(store) == {"*/*": 2 * CALL_NANO_USD}


def test_a_tenant_whose_budget_is_spent_is_refused_until_there_is_more(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    def submit(**fields: Any) -> str:
        try:
            return client.submit("hello", metadata={"tenant": "acme"}, **fields).result(30).text
        except RequestFailed as failed:
            assert failed.reason == "refused"
            assert "the budget acme/* of $2e-05 a day (UTC) is spent" in str(failed)
            return "refused"

    assert submit() == "text", "there is something left"
    eventually(lambda: submit() == "refused")
    assert spent(store)["acme/*"] >= 2 * CALL_NANO_USD
    calls = len(yard.fake.calls)
    assert submit(models=["large"]) == "refused"
    assert submit(route="judged") == "refused"
    assert len(yard.fake.calls) == calls, "what is refused costs nothing"
    assert client.submit("hello", metadata={"tenant": "other"}).result(30).text == "text"

    for key in store.keys(f"{SPENT_KEY_PREFIX}*"):
        store.delete(key)
    eventually(lambda: submit() == "text", message="the router reads the sums again")


def test_a_route_whose_budget_is_spent_is_downgraded(client: Client, store: redis.Redis) -> None:
    def model() -> str:
        return client.submit("hello", route="dear").result(30).model

    assert model() == "large"
    eventually(lambda: model() == "small")
    assert client.submit("hello", models=["large"]).result(30).model == "large", "another route"


def test_the_command_says_what_was_spent(yard: Workers, client: Client, store: redis.Redis) -> None:
    client.submit("hello").result(30)

    def say(*options: str) -> str:
        command = [sys.executable, "-m", "producer", "budgets", *options]
        return subprocess.run(
            command, env=yard.env, check=True, capture_output=True, text=True
        ).stdout

    said = json.loads(say("--json"))
    assert [(each["tenant"], each["route"]) for each in said] == [
        ("*", "*"),
        ("acme", "*"),
        ("*", "dear"),
    ]
    assert said[0]["spent_usd"] == pytest.approx(15e-6)
    assert [each["is_spent"] for each in said] == [False, False, False]

    store.hincrby(next(iter(store.keys(f"{SPENT_KEY_PREFIX}*"))), "*/dear", 60_000)
    shown = say()
    assert "0.000015" in shown
    assert "spent: to small" in shown


# -- one step in Redis, told again or too late


def paid(usd: float) -> str:
    """A bill of so much."""
    attempt = Attempt(model="a", endpoint="", started_at=0, duration_ms=1, cost_usd=usd)
    decision = Decision(
        route="default",
        intent="other",
        why="",
        input_tokens=1,
        decided_at=0,
        budgets=("a/b",),
        plan=Plan(steps=(Step(model="a"),)),
    )
    return bill(decision, [attempt], 0.0)


def end_of(claim: str, status: str, usd: float) -> End:
    key, result = f"{RESULT_KEY_PREFIX}a", json.dumps({"status": status, "usd": usd})
    return End(claim=claim, key=key, result=result, ttl_s=60, id="a", bill=paid(usd))


def claimed(claims: Claims, url: str, *ids: str) -> list[str]:
    with redis.Redis.from_url(url) as client:
        put(client, "queue", [New(id, id) for id in ids])
        return [each.claim for each in claims.claim([Want("queue", 9, 9)], 9)[0]]


@pytest.fixture
def claims(redis_url: str) -> Iterator[Claims]:
    with redis.Redis.from_url(redis_url) as client:
        yield Claims(client)


def total(url: str) -> int:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return int(client.hget(f"{SPENT_KEY_PREFIX}1970-01-01", "a/b") or 0)


def test_an_end_that_is_told_twice_counts_once(claims: Claims, redis_url: str) -> None:
    (claim,) = claimed(claims, redis_url, "a")
    end = end_of(claim, "SUCCESS", 0.5)
    assert claims.settle([end]) == [DONE]
    assert claims.settle([end]) == [DONE], "the reply was lost"
    assert total(redis_url) == 500_000_000


def test_what_comes_after_the_outcome_counts_while_it_has_its_claim(
    claims: Claims, redis_url: str
) -> None:
    mine, twin = claimed(claims, redis_url, "a", "a")
    assert claims.settle([end_of("", "REVOKED", 0.0), end_of(mine, "SUCCESS", 0.5)]) == [DONE, LOST]
    assert total(redis_url) == 500_000_000, "it was cancelled while it ran"
    late = end_of(twin, "SUCCESS", 0.25)
    assert claims.settle([late, late]) == [LOST, LOST]
    assert total(redis_url) == 750_000_000


def test_a_failure_that_does_not_count_was_paid_for(claims: Claims, redis_url: str) -> None:
    whole, mine, member = claimed(claims, redis_url, "w", "a", "m")
    point = JoinPoint("w", 1, 2, 10_000, "queue", "joined", ttl_s=60)
    assert claims.settle([Spread(whole, (), point), Ack(mine), Ack(member)]) == [DONE] * 3
    letter = replace(end_of(mine, "FAILURE", 0.5), letter="died")
    assert claims.settle([letter]) == [FENCED]
    assert total(redis_url) == 500_000_000
    assert claims.settle([Join(member, "w", 1, "failed", bill=paid(0.25))]) == [FENCED]
    assert total(redis_url) == 750_000_000


def test_a_member_and_a_record_count_once(claims: Claims, redis_url: str) -> None:
    whole, member, late, shadow = claimed(claims, redis_url, "a", "m", "l", "s")
    point = JoinPoint("a", 1, 2, 10_000, "queue", "joined", ttl_s=60)
    assert claims.settle([Spread(whole, (), point)]) == [DONE]
    join = Join(member, "a", 1, "one", True, bill=paid(0.5))
    assert claims.settle([join, join]) == [DONE, DONE]
    assert total(redis_url) == 500_000_000
    nobodys = Join(late, "gone", 2, "two", True, bill=paid(0.25))
    assert claims.settle([nobodys, nobodys]) == [LOST, LOST]
    assert total(redis_url) == 750_000_000
    record = Record(shadow, "", 9, paid(0.125))
    assert claims.settle([record, record]) == [DONE, LOST]
    assert total(redis_url) == 875_000_000
