"""A Redis server of our own, for whoever has none, with its data on disk.

It is a child of a small process of its own, `modelyard.redis_keeper`: the server must be there as
long as a worker that uses it, even when we are killed.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelyard.errors import EmbeddedRedisError
from modelyard.processes import ended_how, log_tail, private_folder
from modelyard.redis_binary import RedisBinary, Source, find_redis, note_version
from modelyard.settings import config_dir
from modelyard.state_lock import StateLock

log = logging.getLogger("modelyard.redis")

PORT_TRIES: Final = 10
POLL_S: Final = 0.02
RETRY_S: Final = 0.2
ANSWER_S: Final = 0.5
"""How long one question to the server may take before it is asked again, in seconds."""
KEEPER_MARGIN_S: Final = 5.0
"""What the keeper gets beyond the server's own time to end, in seconds."""
KEEPER: Final = Path(__file__).with_name("redis_keeper.py")
ADDRESS_TAKEN: Final = ("Address already in use", "Failed listening on port")


class EmbeddedRedis:
    """A redis-server on a free port of this machine, with its data and log in `state_dir`.

    Use it as a context manager, or call `start` and `stop`. Only one can use a state folder at a
    time: a second one waits up to `wait_s` for the first to end and calls `on_wait` with a line
    that says so. `start` gives up early when `cancelled` says so.

    When we are killed the server ends as soon as all workers that inherited `descriptors` have
    ended, after `drain_s` seconds at most. Until then the folder is taken, and a second one waits
    for that whatever its `wait_s`. All errors are `EmbeddedRedisError`.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        wait_s: float = 0.0,
        drain_s: float = 0.0,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 30.0,
        on_wait: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        find: Callable[[Path], RedisBinary] | None = None,
        free_port: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state_dir = state_dir.expanduser().resolve()
        self.log_path = self.state_dir / "logs" / "redis.log"
        self._port_path = self.state_dir / "redis.port"
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._drain_s = drain_s
        self._cancelled = cancelled
        self._find = find or find_redis
        self._free_port = free_port or unused_port
        self._clock = clock
        self._lock = StateLock(
            self.state_dir,
            wait_s=wait_s,
            drain_s=drain_s + stop_timeout_s + KEEPER_MARGIN_S,
            on_wait=on_wait,
            cancelled=cancelled,
            clock=clock,
        )
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._users: tuple[int, int] | None = None
        self._binary: RedisBinary | None = None
        self._port: int | None = None

    @property
    def url(self) -> str:
        """The address of its database 0.

        It stays the same until `stop`, and in the next run if nobody takes the port meanwhile.
        """
        if self._port is None:
            raise EmbeddedRedisError("the embedded Redis is not started")
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def binary(self) -> RedisBinary:
        """Its program: where it was found and which version it is."""
        if self._binary is None:
            raise EmbeddedRedisError("the embedded Redis is not started")
        return self._binary

    @property
    def version(self) -> str:
        """The version of the server, such as `7.0.15`."""
        return self.binary.version

    @property
    def source(self) -> Source:
        """Where its program was found."""
        return self.binary.source

    @property
    def pid(self) -> int:
        """Process id of the server."""
        if self._pid is None:
            raise EmbeddedRedisError("the embedded Redis is not started")
        return self._pid

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a worker must inherit, so that the server outlives it: for `Popen(pass_fds=...)`."""
        return () if self._users is None else (self._users[1],)

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._keeper is not None and self._keeper.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Lock the state folder, start the server and wait until it has loaded its data."""
        self._lock.acquire()
        try:
            data = private_folder(self.state_dir / "redis")
            private_folder(self.log_path.parent)
            self._binary = binary = self._find(data)
            self._users = os.pipe()
            self._start_on_free_port(binary)
            note_version(data, binary)
            self._lock.describe(self.url)
        except BaseException:
            self.stop()
            raise
        log.info(
            "started %s, %s, on 127.0.0.1:%d, data in %s", binary, binary.path, self._port, data
        )

    def revive(self) -> None:
        """Start the server again, on the same port, if it died: its clients only reconnect."""
        if self.alive or self._keeper is None or self._port is None:
            return
        log.error(
            "redis-server died (%s); starting it again on port %d",
            ended_how(self._keeper.returncode),
            self._port,
        )
        # If it was the keeper that was killed, the server still writes its data before it ends.
        deadline = self._clock() + self._stop_timeout_s
        while not self._start_on(self.binary, self._port):
            if self._clock() >= deadline or self._cancelled():
                raise EmbeddedRedisError(
                    f"port {self._port} of the Redis that died was taken meanwhile"
                )
            time.sleep(RETRY_S)

    def stop(self) -> None:
        """End the server after it has written its data, and free the state folder."""
        keeper, self._keeper = self._keeper, None
        try:
            if keeper is not None:
                self._end(keeper)
        finally:
            self._port = self._pid = None
            for descriptor in self._users or ():
                os.close(descriptor)
            self._users = None
            self._lock.release()

    def _start_on_free_port(self, binary: RedisBinary) -> None:
        for port in self._ports():
            if self._start_on(binary, port):
                self._port = port
                self._port_path.write_text(f"{port}\n", encoding="ascii")
                return
        raise EmbeddedRedisError(
            f"no free port for redis-server on 127.0.0.1 after {PORT_TRIES} tries; set "
            f"MODELYARD_BROKER_URL to a Redis that runs. The end of {self.log_path}:\n"
            f"{log_tail(self.log_path)}"
        )

    def _ports(self) -> Iterator[int]:
        """Yield which ports to try: the one of the last time, as clients may know it, then others.

        What else is in the file is nobody's port, and no reason to fail.
        """
        with contextlib.suppress(OSError, ValueError):
            port = int(self._port_path.read_text(encoding="ascii"))
            if 0 < port < 65_536:
                yield port
        for _ in range(PORT_TRIES):
            yield self._free_port()

    def _start_on(self, binary: RedisBinary, port: int) -> bool:
        """Return whether the server answers on `port`; False if somebody else has that port."""
        assert self._users is not None
        written = self.log_path.stat().st_size if self.log_path.exists() else 0
        command = [
            # By its path, without site-packages: a small process, there in no time.
            *(sys.executable, "-I", "-S", str(KEEPER)),
            str(self._users[0]),
            ",".join(map(str, self._lock.descriptors)),
            f"{self._drain_s:g}",
            f"{self._stop_timeout_s:g}",
            *redis_command(binary, port, self.state_dir / "redis", self.log_path),
        ]
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()  # of one that has ended
        with self.log_path.open("ab") as output:
            self._keeper = keeper = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                # Nobody but us holds the other end: it closes when we die.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                # Ctrl-C goes to all of the terminal's group: Redis must outlive the workers.
                start_new_session=True,
                # The lock is held as long as the server lives, should we be killed before it.
                pass_fds=(self._users[0], *self._lock.descriptors),
            )
        assert keeper.stdout is not None
        with keeper.stdout as told:
            pid = told.readline()  # empty if there is no server, and then the keeper ends
        self._pid = int(pid) if pid else None
        return self._wait_until_ready(keeper, port, written)

    def _wait_until_ready(self, keeper: subprocess.Popen[bytes], port: int, written: int) -> bool:
        deadline = self._clock() + self._start_timeout_s
        with redis.Redis(
            host="127.0.0.1",
            port=port,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            while True:
                if keeper.poll() is not None:
                    end = log_tail(self.log_path, since=written)
                    if any(sign in end for sign in ADDRESS_TAKEN):
                        return False
                    raise EmbeddedRedisError(
                        f"redis-server {self.binary.version} ended while starting "
                        f"({ended_how(keeper.returncode)}). The end of {self.log_path}:\n{end}"
                    )
                if self._pid is not None and answering_process(client) == self._pid:
                    return True
                if self._cancelled():
                    raise EmbeddedRedisError("stopped while Redis was starting")
                if self._clock() >= deadline:
                    raise EmbeddedRedisError(
                        f"redis-server did not answer within {self._start_timeout_s:g} s. "
                        f"The end of {self.log_path}:\n{log_tail(self.log_path, since=written)}"
                    )
                time.sleep(POLL_S)

    def _end(self, keeper: subprocess.Popen[bytes]) -> None:
        keeper.terminate()
        try:
            keeper.wait(self._stop_timeout_s + KEEPER_MARGIN_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
        if keeper.stdin is not None:
            keeper.stdin.close()
        if keeper.returncode == -signal.SIGKILL:
            log.error(
                "redis-server did not end within %g s of SIGTERM and was killed; "
                "up to the last second of its data may be lost",
                self._stop_timeout_s,
            )


def redis_command(binary: RedisBinary, port: int, data: Path, log_path: Path) -> list[str]:
    """Return the command line of the embedded server."""
    return [
        str(binary.path),
        str(config_dir() / "redis.conf"),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--protected-mode", "yes"),
        *("--dir", str(data)),
        *("--logfile", str(log_path)),
        *("--daemonize", "no"),
    ]


def answering_process(client: "redis.Redis") -> int | None:
    """Return the process id of the Redis that answers and has loaded its data, or None.

    The id tells our own server from a stranger's that took the port just before it.
    """
    try:
        client.ping()
        info = client.info("server")
    except redis.RedisError:  # refused, or still loading: the caller has the deadline
        return None
    assert isinstance(info, dict)
    return int(info["process_id"])


def unused_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
