"""Fixtures that all tests share."""

import os
import signal
from collections.abc import Iterator

import pytest
import redis
from public_data import IS_THERE
from workers import Workers

from modelyard import Client
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.errors import EmbeddedRedisError

pytest_plugins = ["no_skips"]

collect_ignore = [] if IS_THERE else ["acceptance/test_public_data.py"]

# A shell starts what it runs in the background with SIGINT ignored, and that is inherited: the
# tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Say whether public data is measured on."""
    return f"public data: {'found' if IS_THERE else 'not found, its tests are left out'}"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A real Redis for the whole run. None here: skipped at a desk, a failure where CI is set."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis-server"))
    try:
        server.start()
    except EmbeddedRedisError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a Redis: {error}", pytrace=False)
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The address of a real Redis that is empty when the test begins."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """A connection to that Redis."""
    with redis.Redis.from_url(redis_url) as store:
        yield store


@pytest.fixture
def client(yard: Workers) -> Iterator[Client]:
    """A client of the yard that a test file has as its fixture `yard`."""
    with yard.client() as client:
        yield client
