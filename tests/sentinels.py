"""A master, a replica and sentinels that watch over them, as real processes with passwords."""

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from waiting import eventually

from modelyard.embedded_redis import unused_port
from modelyard.redis_binary import find_redis

PASSWORD = "of-the-master"
SENTINEL_PASSWORD = "of-the-sentinels"
MASTER = "yard"
DOWN_AFTER_MS = 500


class Watched:
    """Two Redis servers, of which one is the master, and three sentinels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = str(find_redis().path)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.servers = [unused_port(), unused_port()]
        self.sentinels = [unused_port() for _ in range(3)]

    @property
    def url(self) -> str:
        """The address of the sentinels, as modelyard's users write it."""
        parts = [f"sentinel://127.0.0.1:{port}" for port in self.sentinels]
        parts[0] = parts[0].replace("//", f"//:{PASSWORD}@")
        options = f"master_name={MASTER}&sentinel_password={SENTINEL_PASSWORD}"
        return f"{';'.join(parts)}/1?{options}"

    def start(self) -> None:
        """Start them all, and wait until the sentinels know each other and the replica."""
        for port in self.servers:
            self.start_server(port, replica_of=None if port == self.servers[0] else self.servers[0])
        for port in self.sentinels:
            conf = self._folder / f"sentinel-{port}.conf"
            conf.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
                f"requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {self.servers[0]} 2\n"
                f"sentinel auth-pass {MASTER} {PASSWORD}\n"
                f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {MASTER} 2000\n"
            )
            self._start(port, str(conf), "--sentinel")
        for port in self.sentinels:
            eventually(partial(self._knows_all, port), message="a sentinel that knows all")

    def _knows_all(self, port: int) -> bool:
        with suppressed(), self.sentinel(port) as sentinel:
            state = sentinel.sentinel_masters()[MASTER]
            replicas = sentinel.sentinel_slaves(MASTER)
            return (
                state["num-other-sentinels"] == len(self.sentinels) - 1
                and len(replicas) == 1
                and not replicas[0]["is_sdown"]
                and replicas[0]["master-link-status"] == "ok"
            )
        return False

    def start_server(self, port: int, replica_of: int | None = None) -> None:
        """Start a server (again), and wait until it answers."""
        data = self._folder / str(port)
        data.mkdir(exist_ok=True)
        self._start(
            port,
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", ""),
            *("--appendonly", "yes", "--requirepass", PASSWORD, "--masterauth", PASSWORD),
            *("--repl-diskless-sync-delay", "0"),
            *(() if replica_of is None else ("--replicaof", "127.0.0.1", str(replica_of))),
        )
        with self.server(port) as server:
            eventually(lambda: answers(server), message="a Redis that answers")

    def _start(self, port: int, *options: str) -> None:
        with (self._folder / f"{port}.log").open("ab") as log:
            self._running[port] = subprocess.Popen([self._binary, *options], stdout=log, stderr=log)

    def kill(self, port: int) -> None:
        """SIGKILL a server or a sentinel."""
        process = self._running.pop(port)
        process.kill()
        process.wait(10)

    def stop(self) -> None:
        """End what runs."""
        for port in list(self._running):
            self.kill(port)

    def server(self, port: int) -> redis.Redis:
        """Return a client of one server."""
        return impatient(port, PASSWORD, db=1)

    def sentinel(self, port: int) -> redis.Redis:
        """Return a client of one sentinel."""
        return impatient(port, SENTINEL_PASSWORD)

    @property
    def master(self) -> int:
        """The port of the master, in the words of a sentinel that lives."""
        port = next(port for port in self.sentinels if port in self._running)
        with self.sentinel(port) as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(MASTER)[1])

    def all_replicated(self) -> bool:
        """Return whether the replica has everything that the master has now."""
        with self.server(self.master) as server:
            return bool(server.execute_command("WAIT", 1, 1000) == 1)

    def fail_over(self) -> int:
        """Have the sentinels change master and replica; returns the old master, now a replica."""
        old = self.master
        with self.sentinel(self.sentinels[-1]) as sentinel:
            sentinel.execute_command("SENTINEL FAILOVER", MASTER)
        with self.server(old) as server:
            eventually(lambda: role(server) == "slave", message="a master that was demoted")
        assert self.master != old
        return old


def impatient(port: int, password: str, db: int = 0) -> redis.Redis:
    return redis.Redis(
        port=port, db=db, password=password, socket_timeout=2, retry=Retry(NoBackoff(), 0)
    )


@contextmanager
def suppressed() -> Iterator[None]:
    with contextlib.suppress(redis.RedisError, OSError, KeyError):
        yield


def answers(server: redis.Redis) -> bool:
    with suppressed():
        return bool(server.ping())
    return False


def role(server: redis.Redis) -> str:
    with suppressed():
        return str(server.info("replication")["role"])
    return ""


@contextmanager
def watched_redis(folder: Path) -> Iterator[Watched]:
    """Give a Redis that sentinels watch over; all of it is ended."""
    folder.mkdir(exist_ok=True)
    watched = Watched(folder)
    try:
        watched.start()
        yield watched
    finally:
        watched.stop()
