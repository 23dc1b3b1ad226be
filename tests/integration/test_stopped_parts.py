"""Stopping what is in several parts: cancelled or revoked, as a whole or a part of it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from fake_models import fake_model, fake_models
from waiting import eventually
from workers import Workers, own_yard

from modelyard import Client, RequestFailed, RequestRevoked
from modelyard.app import make_app
from modelyard.dead_letters import DeadLetters
from modelyard.messages import Usage
from modelyard.names import (
    CLAIMS_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_BY_AGE_KEY,
    DEAD_LETTERS_KEY,
    DECISIONS_KEY,
    DELIVERIES_HEADER,
    JOIN_KEY_PREFIX,
    JOINS_KEY,
    RESULT_KEY_PREFIX,
    SPENT_KEY_PREFIX,
    member_id,
    shadow_id,
)
from modelyard.testing import Gate, Reply
from producer.commands import model_command

USAGE = Usage(input_tokens=10, output_tokens=5)
CALL_USD = 15e-6

MODELS = ("small", "second", "narrow")


def model(name: str, **settings: Any) -> str:
    return fake_model(
        name, usd=1, context_tokens=1000, max_output_tokens=200, timeout_s=60, **settings
    )


CATALOG = (
    fake_models(model("small"), model("second"), model("narrow", concurrency=1))
    + """
budgets:
  - {usd_per_day: 1000}
routes:
  default: {otherwise: [small]}
  all: {otherwise: {models: [small, second], strategy: ensemble, combine: {how: concatenate}}}
  best: {otherwise: {models: [small, second], strategy: ensemble,
    combine: {how: best, judge: narrow}}}
  pieces: {too_long: map_reduce, otherwise: [small]}
  narrow: {too_long: map_reduce, otherwise: [narrow]}
  shadowed: {otherwise: [small], experiments: [
    {name: try-second, kind: shadow, of: small, to: second, percent: 100}]}
"""
)

DAY = "The pump was stopped at noon, and the night shift found the valve open. "
REPORT = "\n\n".join(f"Day {day}. {DAY * 3}" for day in range(60))
TEXTS = {
    "all": "hello",
    "pieces": f"Which days were dry?\n\n{REPORT}\n\nOnly the days.",
}


@contextmanager
def empty_yard(folder: Path) -> Iterator[Workers]:
    with own_yard(folder, catalog=CATALOG, env={"MODELYARD_LEASE_S": "0.9"}) as yard:
        yard.start_router()
        yield yard


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with empty_yard(tmp_path_factory.mktemp("yard")) as yard:
        yard.start("pool", model_command(*MODELS))
        yield yard


@pytest.fixture
def yard(module_yard: Workers) -> Workers:
    module_yard.calm(*MODELS)
    return module_yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        forget(store)
        yield store
        nothing_is_left(store)


def forget(store: redis.Redis) -> None:
    dead = (DEAD_LETTERS_KEY, DEAD_LETTERS_BY_AGE_KEY)
    for key in (DECISIONS_KEY, *dead, *store.keys(f"{SPENT_KEY_PREFIX}*")):
        store.delete(key)


def nothing_is_left(store: redis.Redis) -> None:
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    assert store.zcard(JOINS_KEY) == 0
    assert store.hget(COUNTERS_KEY, "duplicates") is None


@pytest.fixture
def client(yard: Workers) -> Iterator[Client]:
    with yard.client() as client:
        yield client


@pytest.fixture
def celery(yard: Workers) -> Iterator[Celery]:
    with make_app("test", yard.broker_url, current=False) as app:
        yield app


def held(yard: Workers) -> Gate:
    gate = Gate()
    for name in MODELS:
        yard.fake.always(name, Reply(gate=gate))
    return gate


def parts(store: redis.Redis, id: str) -> int:
    """How many members or pieces a request has, once it has them."""
    key = JOIN_KEY_PREFIX + id
    eventually(lambda: store.hexists(key, "members"))
    return int(store.hget(key, "members") or 0)


def all_called(yard: Workers, store: redis.Redis, id: str) -> int:
    count = parts(store, id)
    yard.fake.wait_until(lambda fake: fake.in_flight == count)
    return count


def spent_usd(store: redis.Redis) -> float:
    rows: Any = [store.hgetall(key) for key in store.keys(f"{SPENT_KEY_PREFIX}*")]
    return sum(int(value) for row in rows for value in row.values()) / 1e9


@pytest.mark.parametrize("route", ["all", "pieces"])
@pytest.mark.parametrize("by", ["handle", "celery"])
def test_what_is_stopped_stops_all_its_calls(
    yard: Workers, client: Client, store: redis.Redis, celery: Celery, route: str, by: str
) -> None:
    gate = held(yard)
    handle = client.submit(TEXTS[route], route=route)
    count = all_called(yard, store, handle.id)
    assert count > 1

    if by == "handle":
        assert handle.cancel()
    else:
        celery.control.terminate(handle.id)

    with pytest.raises(RequestRevoked):
        handle.result(30)
    # Before the gate opens: nobody waits for the providers any more.
    yard.fake.wait_until(lambda fake: fake.in_flight == 0)
    gate.open()
    nothing_is_left(store)
    assert len(yard.fake.calls) == count
    assert not store.exists(JOIN_KEY_PREFIX + handle.id)
    results = [RESULT_KEY_PREFIX + member_id(handle.id, at) for at in range(1, count + 1)]
    assert not store.exists(*results), "a part has no result of its own"
    assert not store.exists(DECISIONS_KEY), "what was stopped tells nothing of its models"
    assert client.submit("hello").result(30).model == "small"


def test_a_shadow_stops_with_its_request(yard: Workers, client: Client, store: redis.Redis) -> None:
    held(yard)
    handle = client.submit("hello", route="shadowed")
    yard.fake.wait_until(lambda fake: fake.in_flight == 2)

    assert handle.cancel()

    yard.fake.wait_until(lambda fake: fake.in_flight == 0)
    assert not store.exists(RESULT_KEY_PREFIX + shadow_id(handle.id))


@pytest.mark.parametrize("route", ["all", "pieces"])
def test_a_part_of_what_was_cancelled_is_not_tried_again(
    yard: Workers,
    client: Client,
    store: redis.Redis,
    route: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    for name in MODELS:
        yard.fake.always(name, Reply(gate=gate, status=500))
    # Nobody hears of it: as if Redis had hung up on the broadcast.
    monkeypatch.setattr(client._broadcast, "revoke", lambda id: None)
    handle = client.submit(TEXTS[route], route=route)
    count = all_called(yard, store, handle.id)
    assert handle.cancel()

    gate.open()

    nothing_is_left(store)
    assert len(yard.fake.calls) == count


def test_an_ensemble_does_without_a_member_that_was_revoked(
    yard: Workers, client: Client, store: redis.Redis, celery: Celery
) -> None:
    gate = Gate()
    yard.fake.always("small", Reply(gate=gate))
    yard.fake.always("second", Reply(text="b"))
    handle = client.submit("hello", route="all")
    yard.fake.wait_until(lambda fake: fake.in_flight == 1 and len(fake.calls) == 1)

    celery.control.terminate(member_id(handle.id, 1))

    answer = handle.result(30)
    assert answer.text == "## second\n\nb"
    assert [attempt.model for attempt in answer.attempts] == ["second"]
    yard.fake.wait_until(lambda fake: fake.in_flight == 0)
    gate.open()


def test_a_request_dies_of_a_piece_that_was_revoked(
    yard: Workers, client: Client, store: redis.Redis, celery: Celery
) -> None:
    gate = held(yard)
    handle = client.submit(TEXTS["pieces"], route="pieces")
    all_called(yard, store, handle.id)

    celery.control.terminate(member_id(handle.id, 2))

    with pytest.raises(RequestFailed, match=r"piece 2 of \d+: small: somebody revoked it") as died:
        handle.result(30)
    assert died.value.reason == "refused"
    gate.open()


def test_a_piece_that_is_revoked_before_it_is_called_is_the_request_s_end(
    yard: Workers, client: Client, store: redis.Redis, celery: Celery
) -> None:
    gate = held(yard)
    handle = client.submit(TEXTS["pieces"], route="narrow")
    parts(store, handle.id)
    yard.fake.wait_until(lambda fake: fake.in_flight == 1)
    # The reply tells that it was heard.
    assert celery.control.revoke(member_id(handle.id, 3), reply=True, timeout=5)

    gate.open()

    with pytest.raises(RequestFailed, match=r"piece 3 of \d+: narrow: somebody revoked it"):
        handle.result(30)
    nothing_is_left(store)
    assert len(yard.fake.calls) == 2


@pytest.mark.parametrize("terminate", [True, False])
def test_a_replay_calls_the_piece_that_was_revoked(
    yard: Workers, client: Client, store: redis.Redis, celery: Celery, terminate: bool
) -> None:
    gate = held(yard)
    handle = client.submit(TEXTS["pieces"], route="narrow")
    parts(store, handle.id)
    yard.fake.wait_until(lambda fake: fake.in_flight == 1)
    revoke = celery.control.terminate if terminate else celery.control.revoke
    assert revoke(member_id(handle.id, 3), reply=True, timeout=5)
    gate.open()
    with pytest.raises(RequestFailed, match="somebody revoked it"):
        handle.result(30)

    (fate,) = DeadLetters(store).replay()

    assert fate.id == handle.id
    assert client.handle(handle.id).result(30).model == "narrow"


def test_pieces_of_what_was_revoked_are_not_begun(
    yard: Workers, client: Client, store: redis.Redis, celery: Celery
) -> None:
    gate = held(yard)
    handle = client.submit(TEXTS["pieces"], route="narrow")
    yard.fake.wait_until(lambda fake: fake.in_flight == 1)
    assert celery.control.revoke(handle.id, reply=True, timeout=5)

    gate.open()

    # Without `terminate` what runs goes on.
    with pytest.raises(RequestRevoked):
        handle.result(30)
    nothing_is_left(store)
    assert [(call.status, call.outcome) for call in yard.fake.calls] == [(200, "answered")]


@pytest.mark.parametrize("route", ["all", "best", "pieces"])
def test_poison_that_joins_tells_what_was_paid_for_before(
    yard: Workers, client: Client, store: redis.Redis, route: str
) -> None:
    gate = Gate()
    for name in MODELS:
        yard.fake.always(name, Reply(gate=gate, text="a", usage=USAGE))
    handle = client.submit(TEXTS.get(route, "hello"), route=route)
    count = all_called(yard, store, handle.id)
    key = JOIN_KEY_PREFIX + handle.id
    message = json.loads(store.hget(key, "message") or b"")
    # As if four workers had been lost with it.
    message["headers"][DELIVERIES_HEADER] = 4
    store.hset(key, "message", json.dumps(message))

    gate.open()

    with pytest.raises(RequestFailed) as died:
        handle.result(30)
    assert died.value.reason == "poison"
    assert len(died.value.attempts) == count == len(yard.fake.calls)
    (entry,) = DeadLetters(store).find()
    assert entry.letter is not None
    assert [each.cost_usd for each in entry.letter.attempts] == [pytest.approx(CALL_USD)] * count
    # They were counted as they ended, and only then.
    assert spent_usd(store) == pytest.approx(count * CALL_USD)


def test_a_piece_that_is_terminated_while_redis_refuses_ends_once_it_does_not(
    tmp_path: Path,
) -> None:
    with empty_yard(tmp_path) as yard, redis.Redis.from_url(yard.broker_url) as store:
        yard.start("pool", model_command("small"))
        gate = held(yard)
        with yard.client() as client, make_app("test", yard.broker_url, current=False) as app:
            handle = client.submit(TEXTS["pieces"], route="pieces")
            all_called(yard, store, handle.id)
            store.execute_command("ACL", "SETUSER", "default", "-@scripting")
            app.control.terminate(member_id(handle.id, 2))
            # It waits for nothing, and lets the piece go.
            eventually(lambda: "ends when it comes again" in yard.log("pool"))
            store.execute_command("ACL", "SETUSER", "default", "+@scripting")
            with pytest.raises(RequestFailed, match=r"piece 2 of \d+: small: somebody revoked"):
                handle.result(30)
        gate.open()
        nothing_is_left(store)


def slow_to_join(gate: Gate) -> Callable[[Mapping[str, Any]], Reply]:
    def reply(body: Mapping[str, Any]) -> Reply:
        part = "this is part" in body["messages"][-1]["content"]
        return Reply(text="dry", usage=USAGE) if part else Reply(gate=gate)

    return reply


def test_a_join_over_its_time_limit_tells_what_was_paid_for_before(tmp_path: Path) -> None:
    gate = Gate()
    with empty_yard(tmp_path) as yard, redis.Redis.from_url(yard.broker_url) as store:
        yard.start("pool", [*model_command("small"), "--time-limit=3"])
        yard.fake.always("small", slow_to_join(gate))
        with yard.client() as client:
            handle = client.submit(TEXTS["pieces"], route="pieces")
            with pytest.raises(RequestFailed, match="TimeLimitExceeded") as died:
                handle.result(30)
        gate.open()
        pieces = len(yard.fake.calls) - 1
        assert len(died.value.attempts) == pieces > 1
        assert spent_usd(store) == pytest.approx(pieces * CALL_USD)
        nothing_is_left(store)
