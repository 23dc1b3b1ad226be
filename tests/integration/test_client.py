"""The client against a real Redis: what is accepted once, and what a broken broker is told as."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu.connection import Connection
from waiting import eventually

from modelyard import BrokerFull, BrokerUnavailable, Client, Handle, ResultTimeout
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.errors import MessageTooLarge, SettingsError
from modelyard.names import REPLY_CHANNEL_PREFIX, RESULT_KEY_PREFIX
from modelyard.settings import Settings


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as store:
        yield store


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, settings=Settings()) as client:
        yield client


def answer(store: redis.Redis, id: str, channel: str = "", text: str = "hi") -> None:
    """Store an answer as a worker does."""
    decision = {
        "route": "default",
        "intent": "other",
        "why": "",
        "input_tokens": 1,
        "decided_at": 1.0,
        "plan": {"steps": [{"model": "m"}]},
    }
    result = {"id": id, "text": text, "model": "m", "provider_model": "m", "decision": decision}
    raw = json.dumps({"status": "SUCCESS", "result": result, "task_id": id})
    store.set(RESULT_KEY_PREFIX + id, raw)
    store.publish(RESULT_KEY_PREFIX + id, raw)
    if channel:
        store.publish(channel, id)


def test_a_request_is_a_plain_celery_message_on_the_queue(
    store: redis.Redis, client: Client
) -> None:
    handle = client.submit("hello", metadata={"tenant": "acme"})

    message = json.loads(store.lindex("requests", 0) or "{}")
    assert message["headers"]["id"] == handle.id
    assert message["headers"]["task"] == "modelyard.route"
    assert message["content-type"] == "application/json"
    assert "hello" not in message["headers"]["argsrepr"]


def test_kombu_s_own_transport_reads_what_ours_wrote(redis_url: str, client: Client) -> None:
    client.submit("hello")
    with Connection(redis_url) as connection:
        received = connection.SimpleQueue("requests").get(timeout=5)
        received.ack()
    assert received.payload[0][0]["messages"][0]["content"] == "hello"


def test_the_same_ids_submitted_again_are_accepted_once(
    store: redis.Redis, client: Client, redis_url: str
) -> None:
    ids = [f"id-{number}" for number in range(300)]
    client.submit_many(["text"] * 200, ids=ids[:200])
    with Client(redis_url) as again:
        again.submit_many(["text"] * 300, ids=ids)
        again.submit("text", id="id-0")

    assert store.llen("requests") == 300


def test_the_same_ids_submitted_at_the_same_time_are_accepted_once(
    store: redis.Redis, redis_url: str
) -> None:
    ids = [f"id-{number}" for number in range(500)]

    def submit() -> None:
        with Client(redis_url) as client:
            client.submit_many(["text"] * 500, ids=ids)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.llen("requests") == 500


def test_nothing_is_sent_if_one_request_is_invalid(store: redis.Redis, client: Client) -> None:
    with pytest.raises(ValueError, match="no text"):
        client.submit_many(["fine", " "])
    assert store.llen("requests") == 0


def test_a_message_over_the_limit_is_refused_at_submit(store: redis.Redis, redis_url: str) -> None:
    with Client(redis_url, settings=Settings(max_message_bytes=1000)) as client:
        with pytest.raises(MessageTooLarge, match=r"has 1,\d{3} bytes, the limit is 1,000"):
            client.submit("x" * 900)
        client.submit("x" * 300)
    assert store.llen("requests") == 1


def test_an_outcome_stored_before_anybody_waited_is_found(
    store: redis.Redis, client: Client
) -> None:
    handle = client.submit("hello")
    answer(store, handle.id)
    assert handle.result(5).text == "hi"


def test_a_notice_on_the_client_s_channel_is_enough(store: redis.Redis, redis_url: str) -> None:
    with Client(redis_url, name="job") as client:
        handles = client.submit_many(["hello"] * 50)
        got: list[str] = []
        waiter = threading.Thread(
            target=lambda: got.extend(each.id for each in client.as_completed(handles, 20))
        )
        waiter.start()
        channel = REPLY_CHANNEL_PREFIX + "job"
        eventually(lambda: store.pubsub_numsub(channel)[0][1] == 1)
        for handle in handles:
            answer(store, handle.id, channel)
        waiter.join(20)
        assert sorted(got) == sorted(handle.id for handle in handles)


def test_as_completed_gives_up_after_its_time(store: redis.Redis, client: Client) -> None:
    first, second = client.submit_many(["a", "b"])
    answer(store, first.id)
    seen = []
    with pytest.raises(ResultTimeout, match="1 of 2"):
        for handle in client.as_completed([first, second], timeout_s=0.5):
            seen.append(handle.id)
    assert seen == [first.id]


def test_the_same_handle_twice_is_yielded_twice(store: redis.Redis, client: Client) -> None:
    handle = client.submit("hello")
    answer(store, handle.id)
    assert len(list(client.as_completed([handle, handle], timeout_s=5))) == 2


def test_a_full_redis_is_told_apart(redis_url: str, store: redis.Redis, client: Client) -> None:
    store.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(BrokerFull, match="no memory"):
            for _ in range(200):
                client.submit("x" * 100_000)
    finally:
        store.config_set("maxmemory", "0")
    assert client.submit("fits again").id


def test_no_broker_at_all_is_told_after_the_patience() -> None:
    with (
        Client("redis://127.0.0.1:1/0", patience_s=0.3) as client,
        pytest.raises(BrokerUnavailable, match="can't reach the broker"),
    ):
        client.submit("hello")


def test_waiting_without_a_connection_says_so() -> None:
    with Client("redis://127.0.0.1:1/0") as client, pytest.raises(BrokerUnavailable):
        client.handle("some-id").result(0.5)


def test_an_address_that_is_no_redis_is_refused() -> None:
    with pytest.raises(SettingsError, match="redis://"):
        Client("amqp://localhost")
    with pytest.raises(SettingsError, match="MODELYARD_BROKER_URL"):
        Client(settings=Settings(broker_url=None))


def test_submitting_and_waiting_outlive_a_restart_of_redis(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path) as server,
        Client(server.url, patience_s=30) as client,
    ):
        waited_for = client.submit("before")
        got: list[str] = []
        waiter = threading.Thread(target=lambda: got.append(waited_for.result(60).text))
        waiter.start()
        eventually(lambda: client._waiter.connected)
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.alive)
        accepted: list[Handle] = []
        submitter = threading.Thread(target=lambda: accepted.append(client.submit("after")))
        submitter.start()
        # Not in a thread: the server ends with the thread that started it.
        server.revive()
        submitter.join(60)
        (after,) = accepted
        with redis.Redis.from_url(server.url) as store:
            answer(store, waited_for.id, text="still there")
            answer(store, after.id, text="accepted")
            waiter.join(60)
            assert got == ["still there"]
            assert after.result(30).text == "accepted"
            assert store.llen("requests") == 2


def test_closing_ends_a_wait(client: Client) -> None:
    handle = client.submit("hello")
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            handle.result(30)
        except BrokerUnavailable as error:
            ended.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually(lambda: client._waiter.connected)
    client.close()
    waiter.join(20)
    assert [str(error) for error in ended] == ["the client was closed"]


def test_one_client_serves_many_threads(store: redis.Redis, client: Client) -> None:
    ids: list[str] = []

    def submit() -> None:
        ids.extend(client.submit(f"text {number}").id for number in range(20))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 160 == store.llen("requests")
