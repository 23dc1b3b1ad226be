"""The client against a real Redis: what is accepted once, and what a broken broker is told as."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.connection import Connection
from outcomes import end_of
from waiting import eventually

from modelyard import AsyncClient, BrokerFull, BrokerUnavailable, Client, Handle, ResultTimeout
from modelyard.claims import settle
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.errors import (
    BrokerError,
    InvalidRequest,
    MessageTooLarge,
    RequestFailed,
    SettingsError,
)
from modelyard.names import REPLY_CHANNEL_PREFIX, RESULT_KEY_PREFIX
from modelyard.outbox import SENDERS
from modelyard.settings import Settings


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


def test_one_notice_tells_of_many_outcomes(store: redis.Redis, client: Client) -> None:
    handles = client.submit_many(["hello"] * 50)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(list, client.as_completed(handles, 60))
        eventually(lambda: store.pubsub_numsub(client._channel)[0][1] == 1)
        ends = [end_of(handle.id, channel=client._channel) for handle in handles]
        settle(store, ends)
        assert set(waiting.result(60)) == set(handles)
    assert {handle.result(0).id for handle in handles} == {handle.id for handle in handles}


def test_an_answer_can_be_read_again_and_again(store: redis.Redis, client: Client) -> None:
    handle = client.submit("hello")
    settle(store, [end_of(handle.id, channel=client._channel)])
    assert handle.result(20) == handle.result(0)


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


@pytest.mark.parametrize(
    "fields",
    [
        {"request": "a lone surrogate: \ud800"},
        {"request": "q", "metadata": {"tenant": "\udfff"}},
        {"request": "q", "params": {"stop": "\ud800"}},
        {"request": "q", "params": {"tool": object()}},
        {"request": "q", "id": "\ud800"},
    ],
    ids=["text", "metadata", "params", "object", "id"],
)
def test_what_can_t_be_encoded_is_an_invalid_request(
    store: redis.Redis, client: Client, fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        client.submit(**fields)
    assert store.llen("requests") == 0


def test_what_redis_refuses_is_not_tried_again(redis_url: str, store: redis.Redis) -> None:
    store.set("requests", "no list")
    # With so much patience another try would outlast the test.
    with (
        Client(redis_url, patience_s=3600) as client,
        pytest.raises(BrokerError, match=r"the broker refused it: .*WRONGTYPE") as error,
    ):
        client.submit("hello")
    assert not isinstance(error.value, BrokerUnavailable)


def test_a_refusal_that_passes_is_waited_for(redis_url: str, store: redis.Redis) -> None:
    def refusals() -> int:
        return int(store.info("stats")["total_error_replies"])

    store.replicaof("127.0.0.1", 1)
    try:
        with (
            Client(redis_url, patience_s=0.3) as hasty,
            pytest.raises(BrokerUnavailable, match="read only"),
        ):
            hasty.submit("hello")
        with Client(redis_url, patience_s=60) as patient, ThreadPoolExecutor() as threads:
            before = refusals()
            submitted = threads.submit(patient.submit, "hello")
            eventually(lambda: refusals() > before)
            store.replicaof("NO", "ONE")
            assert submitted.result(60).id
    finally:
        store.replicaof("NO", "ONE")
    assert store.llen("requests") == 1


def test_a_submit_waits_no_longer_for_other_threads_than_for_redis(redis_url: str) -> None:
    with Client(redis_url, patience_s=0.3) as client:
        turns = client._outbox._turns
        for _ in range(SENDERS):
            turns.acquire()
        with pytest.raises(BrokerUnavailable, match="in use by other threads"):
            client.submit("hello")
        for _ in range(SENDERS):
            turns.release()
        assert client.submit("hello").id


def test_a_redis_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    def waits(handle: Handle) -> int:
        """Each of these would cost a socket's timeout if it asked Redis for anything."""
        late = 0
        for _ in range(10):
            try:
                handle.result(0.1)
            except (ResultTimeout, BrokerUnavailable):
                late += 1
        return late

    with (
        EmbeddedRedis(tmp_path) as server,
        Client(server.url, patience_s=1) as client,
        ThreadPoolExecutor() as threads,
    ):
        handle, new = client.submit_many(["hello", "hello"])
        with pytest.raises(ResultTimeout):
            client.handle("other").result(1)
        assert client._waiter.connected
        os.kill(server.pid, signal.SIGSTOP)
        try:
            waiting = threads.submit(waits, handle)
            submitting = threads.submit(client.submit, "hello")
            listing = threads.submit(list, client.as_completed([new], 0.1))
            eventually(lambda: waiting.done() and submitting.done() and listing.done())
            assert waiting.result() == 10
            assert isinstance(submitting.exception(), BrokerUnavailable)
            assert isinstance(listing.exception(), ResultTimeout | BrokerUnavailable)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert client.submit("hello").id


def test_a_result_that_can_t_be_read_stops_no_other(store: redis.Redis, client: Client) -> None:
    bad, good = client.submit_many(["bad", "good"])
    store.set(RESULT_KEY_PREFIX + bad.id, b"\x80\x04garbage")
    with pytest.raises(RequestFailed, match=bad.id) as error:
        bad.result(5)
    assert error.value.reason == "invalid"
    answer(store, good.id)
    assert good.result(5).text == "hi"


def test_a_bug_while_waiting_is_told_and_waiting_goes_on(
    store: redis.Redis, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(raw: bytes, id: str) -> None:
        raise RuntimeError("a bug")

    handle = client.submit("hello")
    answer(store, handle.id)
    with monkeypatch.context() as patch:
        patch.setattr("modelyard.expected.read_outcome", broken)
        with pytest.raises(BrokerUnavailable, match="a bug"):
            handle.result(30)
    assert handle.result(30).text == "hi"


def test_a_waiting_thread_that_is_gone_is_replaced(store: redis.Redis, client: Client) -> None:
    first, second = client.submit_many(["a", "b"])
    answer(store, first.id)
    first.result(5)
    gone = client._waiter._thread
    assert gone is not None
    client._waiter._closed.set()
    gone.join(20)
    client._waiter._closed.clear()
    answer(store, second.id)
    assert second.result(20).text == "hi"


def test_a_handle_that_was_given_up_can_be_waited_for_again(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, Client(server.url) as client:
        client._waiter._give_up_s = 0.1
        handle, other = client.submit_many(["a", "b"])
        with pytest.raises(ResultTimeout):
            list(client.as_completed([handle, other], timeout_s=1))
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.alive)
        with pytest.raises(BrokerUnavailable, match="no connection for"):
            handle.result(60)
        eventually(lambda: other._given_up)
        server.revive()
        assert not handle.done()
        assert not other.done()
        with redis.Redis.from_url(server.url) as store:
            answer(store, handle.id)
            answer(store, other.id)
        assert {each.id for each in client.as_completed([other], 60)} == {other.id}
        assert handle.result(60).text == other.result(0).text == "hi"


def test_an_outcome_whose_notice_was_lost_is_found_before_giving_up(
    store: redis.Redis, client: Client
) -> None:
    one, two, three = client.submit_many(["a", "b", "c"])
    with pytest.raises(ResultTimeout):
        list(client.as_completed([one, two, three], 1))
    answer(store, one.id)
    answer(store, two.id)
    assert one.result(0).text == "hi"
    seen = []
    with pytest.raises(ResultTimeout, match="1 of 2"):
        for handle in client.as_completed([two, three], 0):
            seen.append(handle.id)
    assert seen == [two.id]


async def test_an_outcome_whose_notice_was_lost_is_found_on_asyncio_too(
    store: redis.Redis, redis_url: str
) -> None:
    async with AsyncClient(redis_url) as client:
        one, two, three = await client.submit_many(["a", "b", "c"])
        with pytest.raises(ResultTimeout):
            await three.result(1)
        assert [handle async for handle in client.as_completed([], 0)] == []
        with pytest.raises(ResultTimeout):
            await one.result(0)
        answer(store, one.id)
        answer(store, two.id)
        assert (await one.result(0)).text == "hi"
        seen = []
        with pytest.raises(ResultTimeout, match="1 of 2"):
            async for handle in client.as_completed([two, three], 0):
                seen.append(handle.id)
        assert seen == [two.id]


def test_the_handle_of_another_client_is_heard_on_celery_s_channel(
    store: redis.Redis, client: Client, redis_url: str
) -> None:
    handle = client.submit("hello")
    with Client(redis_url) as other, ThreadPoolExecutor() as threads:
        waiting = threads.submit(list, other.as_completed([handle], 60))
        channel = RESULT_KEY_PREFIX + handle.id
        eventually(lambda: store.pubsub_numsub(channel)[0][1] == 1)
        answer(store, handle.id)
        assert waiting.result(60) == [handle]
        assert handle.result(0).text == "hi"


FORKED = """
    import os, sys
    import redis
    from test_client import answer
    from modelyard import Client
    from modelyard.outbox import SENDERS

    url = sys.argv[1]
    client = Client(url)
    before = client.submit("before")
    with redis.Redis.from_url(url) as store:
        answer(store, before.id)
    assert before.result(30).text == "hi"  # there is a thread, and connections, to inherit
    inherited = client.submit("inherited")
    try:
        inherited.result(0)
    except TimeoutError:
        pass
    # What other threads may hold at that moment, and will never let go of in the child:
    turns, lock = client._outbox._turns, client._waiter._lock
    for _ in range(SENDERS):
        turns.acquire()
    lock.acquire()
    child = os.fork()
    if child:
        lock.release()
        for _ in range(SENDERS):
            turns.release()
    with redis.Redis.from_url(url) as store:
        if child:
            _, status = os.waitpid(child, 0)
            assert status == 0
            assert inherited.result(30).text == "hi"
            client.close()
        else:
            status = 1
            try:
                own = client.submit("own")
                for handle in (own, inherited):
                    answer(store, handle.id, client._channel)
                    assert handle.result(30).text == "hi"
                assert before.result(0).text == "hi"
                assert store.llen("requests") == 3
                client.close()
                status = 0
            finally:
                os._exit(status)
"""


def test_a_forked_process_goes_on_with_its_parent_s_client(redis_url: str) -> None:
    here = Path(__file__).parent
    forked = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKED), redis_url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert forked.returncode == 0, forked.stderr
