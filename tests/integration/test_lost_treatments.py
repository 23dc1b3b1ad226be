"""Rollbacks of treatments that never come to a call which could fail, through real processes."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from fake_models import fake_model, fake_models
from waiting import eventually
from workers import Workers, own_yard

from modelyard import Client, Handle, RequestFailed
from modelyard.decision_ledger import Kind, read
from modelyard.names import model_queue
from modelyard.standings import Standing, read_standings, standings
from modelyard.testing import Gate, Reply
from producer.commands import model_command

COUNT = 12
ROLLBACK = "rollback: {max_error_rate: 0.2, min_requests: 5}"
CATALOG = (
    fake_models(fake_model("small"), fake_model("large"))
    + f"""
routes:
  default: {{otherwise: [small], experiments: [
    {{name: try, of: small, to: large, percent: 100, {ROLLBACK}}}]}}
  aside: {{otherwise: [small], experiments: [
    {{name: shadow, kind: shadow, of: small, to: large, percent: 100, {ROLLBACK}}}]}}
"""
)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Workers]:
    with own_yard(tmp_path, catalog=CATALOG, env={"MODELYARD_LEASE_S": "0.9"}) as yard:
        yard.start_router()
        yield yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        yield store


def taken_back(store: redis.Redis, name: str) -> Standing:
    """How an experiment stands once its test took it back."""
    eventually(lambda: name in standings(store), timeout_s=30)
    standing = read_standings(standings(store))[name]
    assert (standing.is_back, standing.by) == (True, "test")
    assert standing.statistics["treatment"]["error_rate"]["mean"] == 1.0
    return standing


def reason(handle: Handle) -> str:
    """Why a request died."""
    with pytest.raises(RequestFailed) as failed:
        handle.result(30)
    return failed.value.reason


def kill_with_all_in_hand(yard: Workers, command: list[str]) -> None:
    """Lose so many workers of `large` that what they had is poison, and start one more."""
    gate = Gate()
    yard.fake.always("large", Reply(gate=gate))
    for _ in range(4):
        yard.start("large", command)
        yard.fake.wait_until(lambda fake: fake.in_flight == COUNT, timeout_s=30)
        yard.stop("large", signal.SIGKILL)
        yard.fake.wait_until(lambda fake: fake.in_flight == 0, timeout_s=30)
    gate.open()
    yard.start("large", command)


def test_a_treatment_whose_workers_come_too_late_is_taken_back(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    handles = [client.submit(f"hello {number}", deadline_s=5.0) for number in range(COUNT)]
    late = time.time() + 5.0
    eventually(lambda: store.llen(model_queue("large")) == COUNT)
    eventually(lambda: time.time() > late)

    yard.start("large", model_command("large"))

    assert {reason(handle) for handle in handles} == {"expired"}
    assert not yard.fake.calls
    taken_back(store, "try")


def test_a_treatment_that_kills_its_workers_is_taken_back(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    handles = [client.submit(f"hello {number}") for number in range(COUNT)]

    kill_with_all_in_hand(yard, model_command("large"))

    assert {reason(handle) for handle in handles} == {"poison"}
    taken_back(store, "try")
    dead = [entry for entry in read(store) if entry.outcome == "poison"]
    assert {entry.id for entry in dead} == {handle.id for handle in handles}
    assert {entry.stopped_at for entry in dead} == {"large"}


def test_a_shadow_that_kills_its_workers_is_taken_back(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.start("small", model_command("small"))
    handles = [client.submit(f"hello {number}", route="aside") for number in range(COUNT)]
    assert {handle.result(30).model for handle in handles} == {"small"}

    kill_with_all_in_hand(yard, model_command("large"))

    taken_back(store, "shadow")
    shadows = [entry for entry in read(store) if entry.kind is Kind.SHADOW]
    assert {entry.id for entry in shadows} == {handle.id for handle in handles}
