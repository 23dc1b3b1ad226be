"""Cancelling: whoever waits is told, and whatever a worker still does changes nothing of it."""

import base64
import json
import logging
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from celery.result import AsyncResult
from outcomes import end_of
from waiting import eventually
from workers import Workers, whole_yard

from modelyard import AsyncClient, BrokerUnavailable, Client, RequestRevoked
from modelyard.app import make_app
from modelyard.cancel import Broadcast
from modelyard.claims import DONE, LOST, Claims, Want
from modelyard.names import CANCELLED_KEY
from modelyard.settings import Settings
from modelyard.testing import Gate, Reply


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, settings=Settings()) as client:
        yield client


def test_a_request_in_the_queue_is_cancelled(store: redis.Redis, client: Client) -> None:
    handle, other = client.submit_many(["a", "b"])
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(handle.result, 60)
        eventually(lambda: client._waiter.connected)
        assert handle.cancel()
        assert isinstance(waiting.exception(60), RequestRevoked)
    assert not other.done()
    assert store.zrange(CANCELLED_KEY, 0, -1) == [handle.id.encode()]


def test_a_request_in_a_worker_s_hands_is_cancelled(store: redis.Redis, client: Client) -> None:
    handle = client.submit("a")
    claims = Claims(store)
    ((claimed,), _) = claims.claim([Want("requests", 1, 1)], 1)
    assert handle.cancel()

    assert claims.settle([end_of(handle.id, claim=claimed.claim)]) == [LOST]
    assert claims.renew([claimed.claim]) == [claimed.claim]
    assert store.zscore(CANCELLED_KEY, handle.id) is not None
    with pytest.raises(RequestRevoked):
        handle.result(20)


def test_what_is_answered_stays_answered(store: redis.Redis, client: Client) -> None:
    handle = client.submit("a")
    assert Claims(store).settle([end_of(handle.id)]) == [DONE]

    assert not handle.cancel()
    assert handle.result(20).text == "hi"
    assert not store.exists(CANCELLED_KEY)


def test_a_second_cancel_is_told_so_and_completes_the_first(
    store: redis.Redis, client: Client
) -> None:
    handle = client.submit("a")
    assert handle.cancel()
    store.delete(CANCELLED_KEY)  # as if the first had been cut off
    assert not handle.cancel()
    assert store.zcard(CANCELLED_KEY) == 1


def test_cancelled_ids_are_forgotten_with_their_results(store: redis.Redis, redis_url: str) -> None:
    store.zadd(CANCELLED_KEY, {"old": time.time() - 1})
    with Client(redis_url, settings=Settings(result_ttl_s=5000)) as client:
        handle = client.submit("a")
        handle.cancel()
    _, cancelled = Claims(store).claim([Want("requests", 1, 1)], 1)
    assert cancelled == {handle.id}
    assert store.zrange(CANCELLED_KEY, 0, -1) == [handle.id.encode()]
    assert store.zcount(CANCELLED_KEY, time.time() + 4900, time.time() + 5000) == 1


def test_whoever_calls_it_is_told_to_stop(store: redis.Redis, client: Client) -> None:
    with store.pubsub() as pubsub:
        pubsub.psubscribe("*celery.pidbox*")
        eventually(lambda: pubsub.get_message(timeout=0.1))
        handle = client.submit("a")
        handle.cancel()
        told: Any = eventually(lambda: pubsub.get_message(timeout=0.1))
    order = json.loads(base64.b64decode(json.loads(told["data"])["body"]))
    assert order["method"] == "revoke"
    assert order["arguments"]["task_id"] == handle.id
    assert order["arguments"]["terminate"] is True


def test_any_celery_program_sees_it(client: Client, redis_url: str) -> None:
    handle = client.submit("a")
    handle.cancel()
    with make_app("test", redis_url, Settings(), current=False) as app:
        assert AsyncResult(handle.id, app=app).state == "REVOKED"


def test_another_client_s_request_is_cancelled_by_its_id(client: Client, redis_url: str) -> None:
    handle = client.submit("a")
    with Client(redis_url) as another:
        assert another.handle(handle.id).cancel()
    with pytest.raises(RequestRevoked):
        handle.result(20)


async def test_cancelling_on_asyncio(redis_url: str) -> None:
    async with AsyncClient(redis_url) as client:
        handle = await client.submit("a")
        assert await handle.cancel()
        with pytest.raises(RequestRevoked):
            await handle.result(20)


def test_without_a_broker_nothing_is_cancelled() -> None:
    with (
        Client("redis://127.0.0.1:1/0", patience_s=0.3) as client,
        pytest.raises(BrokerUnavailable, match="can't reach the broker"),
    ):
        client.handle("some-id").cancel()


def test_an_outcome_stands_if_the_broadcast_fails(caplog: pytest.LogCaptureFixture) -> None:
    broadcast = Broadcast("redis://127.0.0.1:1/0", Settings(), {"socket_timeout": 1.0})
    with caplog.at_level(logging.WARNING):
        broadcast.revoke("some-id")
    broadcast.close()
    assert "some-id is cancelled, but may be called still" in caplog.text


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with whole_yard(tmp_path_factory.mktemp("yard")) as yard:
        yield yard


def test_a_call_in_flight_ends_and_its_pool_goes_on(yard: Workers) -> None:
    yard.fake.reset()
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate))
    with yard.client() as client:
        handle = client.submit("hello", models=["small"])
        yard.fake.wait_until(lambda fake: fake.in_flight == 1)
        assert handle.cancel()
        with pytest.raises(RequestRevoked):
            handle.result(20)
        # Before the gate opens: nobody waits for the provider any more.
        yard.fake.wait_until(lambda fake: fake.in_flight == 0)
        gate.open()
        assert client.submit("hello", models=["small"]).result(30).model == "small"


def test_what_is_cancelled_in_the_queue_is_never_called(yard: Workers) -> None:
    yard.fake.reset()
    router = yard.processes["router"]
    with yard.client() as client:
        router.send_signal(signal.SIGSTOP)
        try:
            unwanted, wanted = client.submit_many(["unwanted", "wanted"])
            assert unwanted.cancel()
        finally:
            router.send_signal(signal.SIGCONT)
        assert wanted.result(30)
        with pytest.raises(RequestRevoked):
            unwanted.result(0)
    assert len(yard.fake.calls) == 1
