"""What submit promises: once under a key, in its lane, and not more than a queue may have."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from outcomes import end_of
from waiting import eventually

from modelyard import AsyncClient, Client, QueueFull
from modelyard.claims import Claims, Want, settle
from modelyard.errors import BrokerUnavailable, InvalidRequest
from modelyard.messages import Lane, Request
from modelyard.names import (
    DEAD_LETTERS_KEY,
    REPLY_CHANNEL_PREFIX,
    RESULT_KEY_PREFIX,
    SUBMITTED_KEY_PREFIX,
)
from modelyard.settings import Settings


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, settings=Settings()) as client:
        yield client


@contextmanager
def bounded(redis_url: str, queue: int = 0, dead: int = 0) -> Iterator[Client]:
    settings = Settings(queue_limit=queue, dead_letter_limit=dead)
    with Client(redis_url, settings=settings) as client:
        yield client


def ids_in(store: redis.Redis, queue: str) -> list[str]:
    """Return the ids on a queue, the oldest first."""
    return [json.loads(raw)["headers"]["id"] for raw in store.lrange(queue, 0, -1)][::-1]


def test_a_key_submitted_twice_gives_the_first_id_back(
    store: redis.Redis, client: Client, redis_url: str
) -> None:
    first = client.submit("charge the card", idempotency_key="order-7")
    with Client(redis_url) as another:
        again = another.submit("charge the card", idempotency_key="order-7")
        other = another.submit("charge the card", idempotency_key="order-8")

    assert again.id == first.id != other.id
    assert ids_in(store, "requests") == [first.id, other.id]


def test_many_have_a_key_each_or_none(store: redis.Redis, client: Client) -> None:
    handles = client.submit_many(["a", "b", "a", "c"], idempotency_keys=["x", "y", "x", None])
    ids = [handle.id for handle in handles]

    assert ids[0] == ids[2]
    assert len(set(ids)) == 3 == store.llen("requests")


async def test_a_key_counts_once_on_asyncio_too(store: redis.Redis, redis_url: str) -> None:
    async with AsyncClient(redis_url) as client:
        first = await client.submit("a", idempotency_key="order-7")
        again, new = await client.submit_many(["a", "b"], idempotency_keys=["order-7", None])
    assert again.id == first.id != new.id
    assert store.llen("requests") == 2


def test_a_key_is_remembered_as_long_as_answers_are_kept(
    store: redis.Redis, redis_url: str
) -> None:
    with Client(redis_url, settings=Settings(result_ttl_s=5000)) as client:
        client.submit("a", idempotency_key="order-7")
        client.submit("a", idempotency_key="order-8", once_s=70)
        client.submit("a", id="mine")

    def left(mark: str) -> int:
        return store.ttl(SUBMITTED_KEY_PREFIX + mark)

    assert 4900 < left("key:order-7") <= 5000
    assert left("key:order-8") <= 70
    assert left("id:mine") <= 600


def test_a_key_is_no_id(store: redis.Redis, client: Client) -> None:
    assert client.submit("a", id="seven").id == "seven"
    assert client.submit("a", idempotency_key="seven").id != "seven"
    assert store.llen("requests") == 2


@pytest.mark.parametrize("name", ["two\nlines", "\r", ""])
def test_ids_and_keys_are_texts_without_line_breaks(
    store: redis.Redis, client: Client, name: str
) -> None:
    with pytest.raises(InvalidRequest, match="without line breaks"):
        client.submit("a", id=name)
    with pytest.raises(InvalidRequest, match="without line breaks"):
        client.submit("a", idempotency_key=name)
    with pytest.raises(InvalidRequest, match="without line breaks"):
        client.submit_many(["a", "b"], ids=["fine", name])
    assert store.llen("requests") == 0


def test_what_is_the_same_request_is_said_once(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="not both"):
        client.submit("a", id="i", idempotency_key="k")
    with pytest.raises(InvalidRequest, match="more requests than ids"):
        client.submit_many(["a", "b"], ids=["i"])
    with pytest.raises(InvalidRequest, match="than requests"):
        client.submit_many(["a"], idempotency_keys=["i", "j"])
    with pytest.raises(InvalidRequest, match="once_s"):
        client.submit("a", id="i", once_s=0)


def test_the_request_of_another_client_is_heard_where_it_is_told(
    store: redis.Redis, client: Client, redis_url: str
) -> None:
    client.submit("a", idempotency_key="order-7")
    with Client(redis_url) as another, ThreadPoolExecutor() as threads:
        again = another.submit("a", idempotency_key="order-7")
        channel = RESULT_KEY_PREFIX + again.id
        waiting = threads.submit(again.result, 60)
        eventually(lambda: store.pubsub_numsub(channel)[0][1] == 1)
        settle(store, [end_of(again.id)])
        assert waiting.result(60).id == again.id


def test_each_lane_has_its_queue(store: redis.Redis, client: Client) -> None:
    urgent = client.submit("a")
    patient = client.submit("b", lane="batch")
    many = client.submit_many([Request.of("c", lane=Lane.BATCH), "d"])

    assert ids_in(store, "requests") == [urgent.id, many[1].id]
    assert ids_in(store, "batch.requests") == [patient.id, many[0].id]
    message = json.loads(store.lindex("batch.requests", 0) or "{}")
    assert message["properties"]["delivery_info"]["routing_key"] == "batch.requests"
    assert message["properties"]["reply_to"].startswith(REPLY_CHANNEL_PREFIX)


def test_a_full_queue_refuses_at_once(store: redis.Redis, redis_url: str) -> None:
    with bounded(redis_url, queue=2) as client:
        client.submit_many(["a", "b"])
        words = r"'requests', .* has 2 requests.*MODELYARD_QUEUE_LIMIT"
        with pytest.raises(QueueFull, match=words):
            client.submit("c")
        assert client.submit("c", lane="batch").id
    assert store.llen("requests") == 2


def test_a_submit_waits_for_room_if_asked(store: redis.Redis, redis_url: str) -> None:
    with bounded(redis_url, queue=1) as client, ThreadPoolExecutor() as threads:
        client.submit("a")
        waiting = threads.submit(client.submit, "b", wait_s=60)
        with pytest.raises(QueueFull, match=r"0 of 1 requests were accepted within 0\.1 s"):
            client.submit("c", wait_s=0.1)
        assert not waiting.done()
        store.lpop("requests")
        assert ids_in(store, "requests") in ([], [waiting.result(60).id])


def test_many_wait_for_room_as_long_as_it_takes(store: redis.Redis, redis_url: str) -> None:
    seen: list[str] = []
    with bounded(redis_url, queue=7) as client, ThreadPoolExecutor() as threads:
        waiting = threads.submit(client.submit_many, [f"text {at}" for at in range(300)])
        claims = Claims(store)

        def drained() -> bool:
            ended = waiting.done()
            claimed, _ = claims.claim([Want("requests", 5, 5)], 5)
            assert store.llen("requests") <= 7
            seen.extend(json.loads(each.message)["headers"]["id"] for each in claimed)
            return ended and not claimed

        eventually(drained, timeout_s=60, interval_s=0.001)
        assert seen == [handle.id for handle in waiting.result()]


def test_many_that_did_not_fit_can_be_submitted_again(store: redis.Redis, redis_url: str) -> None:
    ids = [f"id-{at}" for at in range(5)]
    with bounded(redis_url, queue=3) as client:
        with pytest.raises(QueueFull, match=r"3 of 5 requests were accepted: submit the rest"):
            client.submit_many(["text"] * 5, ids=ids, wait_s=0)
        store.ltrim("requests", 0, 0)
        client.submit_many(["text"] * 5, ids=ids, wait_s=0)
    assert ids_in(store, "requests") == ["id-2", "id-3", "id-4"]


def test_a_full_batch_lane_holds_nothing_interactive_up(store: redis.Redis, redis_url: str) -> None:
    requests = [Request.of(f"text {at}", lane=Lane.BATCH) for at in range(3)]
    with (
        bounded(redis_url, queue=2) as client,
        pytest.raises(QueueFull, match=r"'batch\.requests'.*3 of 4"),
    ):
        client.submit_many([*requests, "urgent"], wait_s=0)
    assert (store.llen("requests"), store.llen("batch.requests")) == (1, 2)


def test_too_many_dead_letters_stop_what_is_new(store: redis.Redis, redis_url: str) -> None:
    with bounded(redis_url, dead=1) as client:
        client.submit("a", id="accepted")
        store.hset(DEAD_LETTERS_KEY, "some-id", "{}")
        with pytest.raises(QueueFull, match=r"1 dead letters.*`modelyard dead list`"):
            client.submit("b")
        assert client.submit("a", id="accepted").id == "accepted"
        store.delete(DEAD_LETTERS_KEY)
        assert client.submit("b").id


async def test_a_wait_for_room_holds_no_thread_and_can_be_cancelled(
    store: redis.Redis, redis_url: str
) -> None:
    async with AsyncClient(redis_url, settings=Settings(queue_limit=1)) as client:
        await client.submit("a")
        # More than asyncio has threads for.
        waiting = [asyncio.create_task(client.submit_many([f"text {at}"])) for at in range(100)]
        with pytest.raises(QueueFull):
            await client.submit("b", wait_s=0.1)
        assert not any(task.done() for task in waiting)
        for task in waiting[1:]:
            task.cancel()
        await asyncio.wait(waiting[1:])
        store.delete("requests")
        (handle,) = await asyncio.wait_for(waiting[0], 60)
    assert ids_in(store, "requests") == [handle.id]


def test_many_share_what_is_said_of_all(client: Client, store: redis.Redis) -> None:
    client.submit_many(["a", "b"], lane="batch", metadata={"tenant": "acme"})
    assert store.llen("batch.requests") == 2


@pytest.mark.parametrize("wrong", [5, None, b"hello", {"text": "hello"}])
def test_what_is_no_request_is_refused(client: Client, wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="a request is a text or a Request, not"):
        client.submit(wrong)
    with pytest.raises(InvalidRequest, match="a request is a text or a Request, not"):
        client.submit_many([wrong])


def test_a_closed_client_takes_nothing(redis_url: str, store: redis.Redis) -> None:
    client = Client(redis_url)
    client.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        client.submit("too late")
    assert store.llen("requests") == 0


@pytest.mark.parametrize("wrong", [{"wait_s": -1}, {"deadline_s": 0}, {"deadline_s": "60"}])
def test_times_that_are_none_are_refused(client: Client, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        client.submit("a", **wrong)
