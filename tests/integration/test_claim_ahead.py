"""The claim that is sent along behind a wait: what becomes of it when nobody wants it any more."""

import json
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty
from typing import Any

import pytest
import redis
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.messaging import Consumer

from modelyard.claims import New, put
from modelyard.holdings import ledger
from modelyard.names import CLAIMS_KEY, LEASES_KEY, WAKE_KEY_PREFIX
from modelyard.transport import Transport


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
        yield store


@pytest.fixture
def connection(redis_url: str, store: redis.Redis) -> Iterator[Connection]:
    options = {"lease_s": 1.0, "poll_s": 0.05}
    with Connection(redis_url, transport=Transport, transport_options=options) as connection:
        yield connection


def message(id: str) -> str:
    """Return a message as kombu's virtual transports write it, with an empty body."""
    return json.dumps(
        {
            "body": "",
            "headers": {"id": id},
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": "q"},
                "delivery_tag": id,
                "body_encoding": "utf-8",
            },
            "content-type": "text/plain",
            "content-encoding": "utf-8",
        }
    )


def wait_ahead(channel: Any) -> None:
    """Have the channel wait for a token, with its claim sent along."""
    channel._left = False
    channel._brpop_start()
    assert channel._ahead is not None


def consume(channel: Any, got: list[Any]) -> Consumer:
    consumer = Consumer(
        channel, [Queue("q", durable=True)], on_message=got.append, accept=["text/plain"]
    )
    consumer.consume()
    channel.connection.cycle._register_BRPOP(channel)
    if channel._in_poll:
        drain(channel)
    return consumer


def drain(channel: Any) -> None:
    """Read the reply that is under way."""
    with suppress(Empty):
        channel._brpop_read()


def test_messages_come_with_the_token(connection: Connection, store: redis.Redis) -> None:
    got: list[Any] = []
    channel = connection.channel()
    consume(channel, got)
    wait_ahead(channel)

    put(store, "q", [New("a", message("a")), New("b", message("b"))])
    channel._brpop_read()

    assert [each.headers["id"] for each in got] == ["a", "b"]
    assert store.llen("q") == 0
    assert store.hlen(CLAIMS_KEY) == 2
    for each in got:
        each.ack()


def test_what_comes_for_a_cancelled_consumer_goes_back_in_order(
    connection: Connection, store: redis.Redis
) -> None:
    got: list[Any] = []
    channel = connection.channel()
    consumer = consume(channel, got)
    wait_ahead(channel)

    consumer.cancel()
    put(store, "q", [New("a", message("a")), New("b", message("b"))])
    drain(channel)

    assert got == []
    assert store.hlen(CLAIMS_KEY) == store.zcard(LEASES_KEY) == 0
    assert [json.loads(raw)["headers"]["id"] for raw in store.lrange("q", 0, -1)] == ["b", "a"]
    assert store.llen(WAKE_KEY_PREFIX + "q") == 1  # somebody else is woken for it


def test_what_comes_while_the_channel_closes_goes_back(
    connection: Connection, store: redis.Redis
) -> None:
    got: list[Any] = []
    channel = connection.channel()
    consume(channel, got)
    wait_ahead(channel)

    put(store, "q", [New("a", message("a"))])
    channel.close()

    assert got == []
    assert store.hlen(CLAIMS_KEY) == 0
    assert store.llen("q") == 1


def test_a_reply_that_lay_for_long_is_not_believed(
    connection: Connection, store: redis.Redis
) -> None:
    got: list[Any] = []
    channel = connection.channel()
    consume(channel, got)
    wait_ahead(channel)
    put(store, "q", [New("a", message("a")), New("b", message("b"))])
    while not store.hlen(CLAIMS_KEY):
        pass
    names: Any = store.hkeys(CLAIMS_KEY)
    lost = min(names)
    # Its lease ran out, and another worker took it over, before this one came to read the reply.
    store.hdel(CLAIMS_KEY, lost)
    store.zrem(LEASES_KEY, lost)

    channel._brpop_sent_at -= 10
    channel._brpop_read()

    (kept,) = got
    assert kept.delivery_tag.encode() != lost
    assert not ledger.holds(lost.decode())
    kept.ack()


def test_a_server_that_forgot_the_script_is_sent_it(
    connection: Connection, store: redis.Redis
) -> None:
    got: list[Any] = []
    channel = connection.channel()
    consume(channel, got)
    store.script_flush()
    wait_ahead(channel)

    put(store, "q", [New("a", message("a"))])
    channel._brpop_read()

    assert [each.headers["id"] for each in got] == ["a"]
    got[0].ack()
