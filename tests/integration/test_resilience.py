"""Requests that try to break the yard, and a Redis that is away or refuses: nothing is lost."""

import base64
import json
import os
import signal
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import eventually
from workers import Workers, workers

from modelyard import Client, RequestFailed
from modelyard.app import make_app
from modelyard.claims import CLAIM, RENEW, TAKE_OVER
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.messages import DeadLetter
from modelyard.names import CLAIMS_KEY, DEAD_LETTERS_KEY, model_queue
from modelyard.testing import Gate, Reply
from producer.commands import model_command


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def yard(server: EmbeddedRedis, tmp_path: Path) -> Iterator[Workers]:
    with workers(tmp_path, server.url) as yard:
        yield yard


@pytest.fixture
def store(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as store:
        yield store


def put(store: redis.Redis, queue: str, task: str, body: str, **headers: Any) -> str:
    """Put a task message with this body on a queue, as any program might."""
    id = str(uuid.uuid4())
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"id": id, "task": task, "lang": "py", "root_id": id, **headers},
        "properties": {
            "correlation_id": id,
            "delivery_tag": str(uuid.uuid4()),
            "body_encoding": "base64",
            "delivery_mode": 2,
            "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }
    store.lpush(queue, json.dumps(message))
    return id


POISON = [
    '[[{"text": "hi \\ud800"}], {}, {}]',
    '[[{"text": "hi", "metadata": {"a": "\\udfff"}}], {}, {}]',
    '[[{"text": "hi", "params": {"x": ' + "[" * 300 + "]" * 300 + "}}], {}, {}]",
    "[[" + "[" * 300 + "]" * 300 + "], {}, {}]",
    "[[" + "[" * 100_000 + "]" * 100_000 + "], {}, {}]",
    "no JSON at all",
    '[[{"text": "hi"}, 2], {}, {}]',
    '[[{"text": "hi"}], {}, {"callbacks": [{"task": "x"}]}]',
    "[]",
    "7",
]


@pytest.mark.parametrize(
    ("queue", "task"), [("requests", "modelyard.route"), (model_queue("small"), "modelyard.call")]
)
def test_what_can_t_be_read_is_a_dead_letter_and_the_worker_goes_on(
    yard: Workers, store: redis.Redis, client: Client, queue: str, task: str
) -> None:
    yard.start_router()
    yard.start_pool("small")
    ids = [put(store, queue, task, body) for body in POISON]
    put(store, queue, task, POISON[0], id=None)

    for id in ids:
        with pytest.raises(RequestFailed) as failed:
            client.handle(id).result(30)
        assert failed.value.reason == "invalid"
    assert set(store.hkeys(DEAD_LETTERS_KEY)) == {id.encode() for id in ids}
    for letter in store.hvals(DEAD_LETTERS_KEY):
        DeadLetter.model_validate_json(letter)
    assert client.submit("still there").result(30).model == "small"
    assert [process.poll() for process in yard.processes.values()] == [None, None]
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)


def test_a_message_that_expired_is_not_called(
    yard: Workers, store: redis.Redis, client: Client
) -> None:
    body = '[[{"text": "hi"}], {}, {}]'
    late = put(store, "requests", "modelyard.route", body, expires="2001-01-01T00:00:00+00:00")
    early = put(store, "requests", "modelyard.route", body, expires="2101-01-01T00:00:00")
    yard.start_router()
    yard.start_pool("small")

    with pytest.raises(RequestFailed) as failed:
        client.handle(late).result(30)
    assert failed.value.reason == "expired"
    assert client.handle(early).result(30).model == "small"


def test_a_revoke_does_not_take_the_answer_of_a_call_that_runs(
    yard: Workers, client: Client
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate, text="paid for"))
    yard.start_router()
    yard.start_pool("small")
    handle = client.submit("hello")
    yard.fake.wait_until(lambda fake: fake.in_flight == 1)
    with make_app("test", yard.broker_url, current=False) as app:
        app.control.revoke(handle.id, reply=True, timeout=3)
    gate.open()

    assert handle.result(30).text == "paid for"


def test_an_answer_that_redis_refuses_is_stored_when_it_is_taken(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    yard.start_router()
    yard.start_pool("small")
    handles = client.submit_many(["hello"] * 3)
    yard.fake.wait_until(lambda fake: fake.in_flight == 3)
    store.config_set("min-replicas-to-write", "1")
    try:
        gate.open()
        eventually(lambda: "outcomes wait" in yard.log("small"), message="a refused write")
    finally:
        store.config_set("min-replicas-to-write", "0")

    assert [handle.result(30).model for handle in handles] == ["small"] * 3
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    assert len(yard.fake.calls) == 3


def test_the_router_waits_while_redis_refuses_to_be_written_to(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    yard.start_pool("small")
    yard.start_router()
    store.execute_command("ACL", "SETUSER", "default", "-eval")
    # What it knows already it would run: all but what moves requests on.
    store.script_flush()
    for known in (CLAIM, RENEW, TAKE_OVER):
        store.script_load(known.text)
    try:
        id = put(store, "requests", "modelyard.route", '[[{"text": "hi"}], {}, {}]')
        eventually(lambda: "Redis refuses" in yard.log("router"))
    finally:
        store.execute_command("ACL", "SETUSER", "default", "+eval")

    assert client.handle(id).result(30).model == "small"


def test_a_failover_while_redis_is_away_is_made_when_it_is_back(
    yard: Workers, client: Client, server: EmbeddedRedis
) -> None:
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate, status=401))
    yard.start_router()
    yard.start_pool("small")
    yard.start_pool("large")
    handles = client.submit_many(["hello"] * 5)
    yard.fake.wait_until(lambda fake: fake.in_flight == 5)
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.alive)
    gate.open()
    eventually(lambda: yard.log("small").count("next model after") == 5)
    server.revive()

    assert [handle.result(60).model for handle in handles] == ["large"] * 5
    assert len(yard.fake.calls) == 10


def test_a_worker_that_is_stopped_while_redis_is_away_stores_what_it_has(
    yard: Workers, client: Client, server: EmbeddedRedis, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    yard.start_router()
    pool = yard.start_pool("small", MODELYARD_SHUTDOWN_GRACE_S="1")
    handles = client.submit_many(["hello"] * 12)
    yard.fake.wait_until(lambda fake: fake.in_flight == 12)
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.alive)
    gate.open()
    yard.fake.wait_until(lambda fake: len(fake.calls) == 12)
    pool.terminate()
    eventually(lambda: "Warm shutdown" in yard.log("small"))
    server.revive()

    assert pool.wait(60) == 0
    assert [handle.result(60).model for handle in handles] == ["small"] * 12
    assert store.hlen(CLAIMS_KEY) == 0
    assert len(yard.fake.calls) == 12


def test_a_worker_can_be_stopped_for_good_while_redis_is_away(
    yard: Workers, client: Client, server: EmbeddedRedis
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    yard.start_router()
    pool = yard.start_pool("small", MODELYARD_SHUTDOWN_GRACE_S="1")
    client.submit_many(["hello"] * 5)
    yard.fake.wait_until(lambda fake: fake.in_flight == 5)
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.alive)
    gate.open()
    yard.fake.wait_until(lambda fake: len(fake.calls) == 5)
    pool.send_signal(signal.SIGQUIT)

    pool.wait(60)
    assert "could not be stored" in yard.log("small")


def test_lost_connections_do_not_make_a_pool_take_more_than_its_share(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    yard.start_router()
    yard.start_pool("small")
    running = client.submit_many(["hello"] * 15)
    yard.fake.wait_until(lambda fake: fake.in_flight == 15)
    for lost in range(1, 4):
        eventually(lambda: [each["cmd"] for each in store.client_list()].count("brpop") == 2)
        store.client_kill_filter(_type="normal", skipme=True)
        eventually(partial(was_lost, yard, lost))
    waiting = client.submit_many(["hello"] * 100)
    yard.fake.wait_until(lambda fake: fake.in_flight == 20)
    eventually(lambda: store.llen("requests") == 0)
    assert store.hlen(CLAIMS_KEY) == 20
    assert store.llen(model_queue("small")) == 95
    gate.open()

    assert len(list(client.as_completed([*running, *waiting], timeout_s=60))) == 115
    assert len(yard.fake.calls) == 115


def was_lost(yard: Workers, times: int) -> bool:
    return yard.log("small").count("Connection to broker lost") >= times


def test_growing_a_pool_makes_it_call_more_at_a_time(yard: Workers, client: Client) -> None:
    gate = Gate()
    yard.fake.always("*", Reply(gate=gate))
    yard.start_router()
    yard.start_pool("small")
    handles = client.submit_many(["hello"] * 40)
    yard.fake.wait_until(lambda fake: fake.in_flight == 20)
    with make_app("test", yard.broker_url, current=False) as app:
        app.control.pool_grow(10, reply=True, timeout=3, pattern="small@*", matcher="glob")
    yard.fake.wait_until(lambda fake: fake.in_flight == 30)
    gate.open()
    assert len(list(client.as_completed(handles, timeout_s=60))) == 40


def test_a_slow_model_does_not_block_another_of_the_same_worker(
    yard: Workers, client: Client
) -> None:
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate))
    yard.start_router()
    yard.start("both", model_command("small", "large"))
    slow = client.submit_many(["hello"] * 60)
    yard.fake.wait_until(lambda fake: fake.in_flight == 20)

    assert client.submit("hello", models=["large"]).result(20).model == "large"

    assert yard.fake.max_in_flight <= 21
    gate.open()
    assert len(list(client.as_completed(slow, timeout_s=60))) == 60
