"""Workers that were stopped for longer than their leases, and fail when they wake."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from fake_models import fake_model, fake_models
from waiting import eventually
from workers import Workers, own_yard

from modelyard.client import Client
from modelyard.names import (
    CLAIMS_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_KEY,
    JOIN_KEY_PREFIX,
    RESULT_KEY_PREFIX,
)
from modelyard.testing import Gate, Reply
from producer.commands import model_command

LEASE_S = 0.9
ONCE = {"calls": 1, "base_s": 0.01, "cap_s": 0.05, "patience_s": 2}
CATALOG = (
    fake_models(fake_model("small", retry=ONCE), fake_model("large"))
    + """
routes:
  default: {otherwise: [small]}
  all: {otherwise: {models: [small, large], strategy: ensemble, combine: {how: concatenate}}}
"""
)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Workers]:
    with own_yard(tmp_path, catalog=CATALOG, env={"MODELYARD_LEASE_S": str(LEASE_S)}) as yard:
        yield yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        yield store


def slept_through(yard: Workers, zombie: subprocess.Popen[bytes], failing: Gate) -> None:
    """Stop a worker in its call, which fails meanwhile, until another has its message and calls."""
    yard.fake.wait_until(lambda fake: fake.in_flight == 1)
    zombie.send_signal(signal.SIGSTOP)
    try:
        yard.start("other", model_command("small", process=2))
        yard.fake.wait_until(lambda fake: fake.in_flight == 2, timeout_s=30)
        failing.open()
        yard.fake.wait_until(lambda fake: fake.in_flight == 1)
    finally:
        zombie.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("route", ["default", "all"])
def test_a_failure_of_who_lost_the_request_is_not_its_end(
    yard: Workers, client: Client, store: redis.Redis, route: str
) -> None:
    failing, answering = Gate(), Gate()
    dropped = Reply(gate=failing, close="before")
    yard.fake.script("small", [dropped, Reply(gate=answering, text="paid for")])
    yard.fake.always("large", Reply(text="large"))
    yard.start_router()
    yard.start_pool("large")
    zombie = yard.start_pool("small")
    handle = client.submit("hello", route=route)
    if route == "all":
        joined = JOIN_KEY_PREFIX + handle.id
        eventually(lambda: store.hget(joined, "ended") == b"1", message="large has answered")

    slept_through(yard, zombie, failing)
    eventually(lambda: "another worker has it" in yard.log("small"), timeout_s=30)
    assert not store.exists(RESULT_KEY_PREFIX + handle.id)
    answering.open()

    assert "paid for" in handle.result(30).text
    assert store.hlen(DEAD_LETTERS_KEY) == 0
    assert store.hget(COUNTERS_KEY, "taken_over") == b"1"
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
