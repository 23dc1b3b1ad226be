"""How a client hears of outcomes: notices of older workers, and notices that come in pieces."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
import redis
from outcomes import end_of
from waiting import eventually

from modelyard import Client
from modelyard.claims import DONE, settle
from modelyard.names import RESULT_KEY_PREFIX
from modelyard.settings import Settings


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    with Client(redis_url, settings=Settings()) as client:
        yield client


def test_a_notice_of_an_older_worker_names_one_id_a_line(
    store: redis.Redis, client: Client
) -> None:
    handles = client.submit_many(["one", "two", "three"])
    channel = json.loads(store.lindex("requests", 0) or "{}")["properties"]["reply_to"]
    seen: list[str] = []
    client.when_done(handles, lambda handle: seen.append(handle.id))
    eventually(lambda: store.pubsub_numsub(channel)[0][1] == 1)
    for handle in handles:
        store.set(RESULT_KEY_PREFIX + handle.id, end_of(handle.id).result)
    store.publish(channel, "\n".join(handle.id for handle in handles))

    # Sooner than the next sweep.
    eventually(lambda: len(seen) == 3, timeout_s=5)
    assert [handle.result(0).text for handle in handles] == ["hi"] * 3


def test_a_notice_that_comes_in_pieces_is_no_lost_connection(
    redis_url: str, store: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with in_pieces(redis_url) as slow_url, Client(slow_url, settings=Settings()) as client:
        handles = client.submit_many([f"number {number}" for number in range(20)])
        channel = json.loads(store.lindex("requests", 0) or "{}")["properties"]["reply_to"]
        seen: list[str] = []
        client.when_done(handles, lambda handle: seen.append(handle.id))
        eventually(lambda: store.pubsub_numsub(channel)[0][1] == 1)
        for handle in handles:
            assert settle(store, [end_of(handle.id, channel=channel, text="x" * 1_000)]) == [DONE]
            eventually(partial(seen.__contains__, handle.id))
    assert "lost the broker" not in caplog.text


@contextmanager
def in_pieces(url: str, piece: int = 700) -> Iterator[str]:
    """Yield the address of a proxy that passes a few bytes at a time, with pauses."""
    host, port = url.removeprefix("redis://").partition("/")[0].split(":")
    sockets, threads = [socket.create_server(("127.0.0.1", 0))], []

    def run(target: Callable[..., None], *args: socket.socket) -> None:
        threads.append(threading.Thread(target=target, args=args))
        threads[-1].start()

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(piece):
                sink.sendall(data)
                time.sleep(0.003)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, _ = sockets[0].accept()
                far = socket.create_connection((host, int(port)))
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets.extend((near, far))
                run(carry, near, far)
                run(carry, far, near)

    run(serve)
    try:
        yield f"redis://127.0.0.1:{sockets[0].getsockname()[1]}/0"
    finally:
        for each in list(sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in list(threads):
            thread.join()
        for each in sockets:
            each.close()
