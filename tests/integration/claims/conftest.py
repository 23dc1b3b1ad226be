"""A Redis of each version that is here, and two workers who have claims on it."""

from collections.abc import Iterator

import pytest
from claims_machine import LEASE_MS, FaultyRedis

from modelyard.claims import Claims
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.redis_binary import RedisBinary, usable_binaries


@pytest.fixture(scope="package", params=list(usable_binaries()), ids=str)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedRedis]:
    """A Redis of each version that is on this machine."""
    binary: RedisBinary = request.param
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), find=lambda _data: binary) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedRedis) -> Iterator[FaultyRedis]:
    """A connection to a Redis that is empty."""
    with FaultyRedis.from_url(server.url) as client:
        client.config_set("appendonly", "no")  # it is flushed for each example
        client.flushall()
        yield client


@pytest.fixture
def worker(client: FaultyRedis) -> Claims:
    """A worker whose clock stands still at 0."""
    return Claims(client, lease_s=LEASE_MS / 1000, now_ms=lambda: 0)


@pytest.fixture
def rescuer(client: FaultyRedis) -> Claims:
    """Another one, who lives when the first one's leases have just run out."""
    return Claims(client, lease_s=LEASE_MS / 1000, now_ms=lambda: LEASE_MS)
