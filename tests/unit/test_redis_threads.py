"""A connection that coroutines use: what is closed takes nothing from what is opened after it."""

import asyncio
import threading
from typing import cast

import pytest
import redis

from model_workers.redis_threads import RedisThreads


class Client:
    """Knows only whether it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_what_runs_keeps_its_connection_and_what_follows_a_close_has_another() -> None:
    made: list[Client] = []

    def connect() -> redis.Redis:
        made.append(Client())
        return cast("redis.Redis", made[-1])

    one = RedisThreads(connect, "test")
    started, go_on = threading.Event(), threading.Event()

    def slow(client: redis.Redis) -> bool:
        started.set()
        assert go_on.wait(10)
        return client.closed.is_set()  # type: ignore[attr-defined, no-any-return]

    async def leave() -> None:
        running = asyncio.ensure_future(one.run(slow))
        await asyncio.to_thread(started.wait, 10)
        one.close()
        # While the first still runs, on the same loop and then on another.
        assert await one.run(lambda client: cast("object", client) is made[1])
        go_on.set()
        assert not await running

    async def again() -> None:
        assert await one.run(lambda client: cast("object", client) is made[1])
        one.close()

    asyncio.run(leave())
    assert made[0].closed.wait(10)
    assert not made[1].closed.is_set()
    asyncio.run(again())
    assert made[1].closed.wait(10)
    assert len(made) == 2


async def test_a_connection_that_can_not_be_opened_is_tried_again() -> None:
    tries = iter([redis.ConnectionError("away"), Client()])

    def connect() -> redis.Redis:
        found = next(tries)
        if isinstance(found, redis.ConnectionError):
            raise found
        return found  # type: ignore[return-value]

    one = RedisThreads(connect, "test")
    with pytest.raises(redis.ConnectionError):
        await one.run(lambda client: None)
    assert await one.run(lambda client: isinstance(client, Client))
    await one.aclose()
    one.close()
