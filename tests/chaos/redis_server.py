"""A Redis that can be killed, stopped, started again on its port and data, or lose power."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos import leash
from modelyard.embedded_redis import unused_port
from modelyard.redis_binary import find_redis

START_S: Final = 30.0
LOST_WITH_POWER_S: Final = 1.0
"""What `appendfsync everysec` may lose when the machine stops, in seconds; 2 at the worst.
https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/"""


class RedisServer:
    """One redis-server with an append-only file; `fsync` is `always` or `everysec`."""

    def __init__(self, folder: Path, fsync: str = "always") -> None:
        self._folder = folder
        self._data = folder / "redis"
        self._data.mkdir()
        self._binary = find_redis()
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._sizes: list[tuple[float, Path, int]] = []
        self.port = unused_port()

    @property
    def url(self) -> str:
        """Its own address, without a proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    def connect(self) -> redis.Redis:
        """Return a client that tells at once when the server is away."""
        return redis.Redis.from_url(
            self.url, socket_timeout=5.0, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0)
        )

    def start(self) -> None:
        """Start it and wait until its data is loaded. Raises `TimeoutError`."""
        command = [
            str(self._binary.path),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._data)),
            *("--appendonly", "yes", "--appendfsync", self._fsync, "--save", ""),
            *("--loglevel", "notice", "--daemonize", "no"),
        ]
        self._process = leash.start(command, self._folder / "redis.log", os.environ)
        deadline = time.monotonic() + START_S
        with self.connect() as client:
            while True:
                with contextlib.suppress(redis.RedisError, OSError):
                    if client.ping():
                        return
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise TimeoutError(f"redis did not start: {self._folder / 'redis.log'}")
                time.sleep(0.02)

    def use_fsync(self, fsync: str) -> None:
        """Change how often it writes to the disk, now and after a restart."""
        self._fsync = fsync
        with self.connect() as client:
            client.config_set("appendfsync", fsync)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            leash.end(self._process)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        if self._process is not None:
            self._process.send_signal(number)

    def note_size(self) -> None:
        """Remember how long the append-only file is now; call it several times a second."""
        at = time.monotonic()
        with contextlib.suppress(OSError):  # it may be rewritten just now
            for path in self._data.rglob("*.aof"):
                self._sizes.append((at, path, path.stat().st_size))
        self._sizes = [noted for noted in self._sizes if at - noted[0] < 2 * LOST_WITH_POWER_S]

    def lose_power(self) -> int:
        """Kill it and cut off what `everysec` had not promised to be on the disk; return how much.

        A SIGKILL alone loses nothing that was written: the system has it. A machine that stops
        does lose it, so what was appended within the last second is cut off, in bytes.
        """
        at = time.monotonic()
        self.kill()
        cut = 0
        for path in self._data.rglob("*.aof"):
            old = [
                n for when, of, n in self._sizes if of == path and at - when >= LOST_WITH_POWER_S
            ]
            if old and old[-1] < path.stat().st_size:
                cut += path.stat().st_size - old[-1]
                os.truncate(path, old[-1])
        return cut
