"""Where storms happen: Redis, the endpoint, a system's workers, and who submits and waits."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis

from chaos import cue, leash
from chaos.fleet import Fleet
from chaos.journal import Journal, now, read
from chaos.load import Load, Task
from chaos.redis_server import RedisServer
from chaos.results import Recorder
from chaos.systems import System, environment
from modelyard.processes import log_tail

START_S: Final = 120.0
TESTS: Final = Path(__file__).resolve().parent.parent


class Grounds:
    """All processes around a storm, for use as a context manager from the main thread.

    `proxied`: workers and clients reach Redis through the proxy. What is logged lies in `folder`:
    `submits`, `outcomes`, `published`, `calls` and `faults`, each `.jsonl`.
    """

    def __init__(
        self, folder: Path, system: System, *, lease_s: float, fsync: str, proxied: bool
    ) -> None:
        self.folder = folder
        self.system = system
        self.lease_s = lease_s
        self._fsync = fsync
        self._proxied = proxied
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        while self._undo:
            self._undo.pop()()

    def path(self, name: str) -> Path:
        """Return where a log lies."""
        return self.folder / f"{name}.jsonl"

    def _start(self) -> None:
        self.redis = RedisServer(self.folder, self._fsync)
        self.redis.start()
        self._undo.append(self.redis.kill)
        self.store: redis.Redis = self.redis.connect()
        self._undo.append(self.store.close)
        self.endpoint, port = self._helper("endpoint", str(self.path("calls")))
        self.proxy, proxy_port = self._helper("proxy", str(self.redis.port))
        self.url = f"redis://127.0.0.1:{proxy_port}/0" if self._proxied else self.redis.url
        told = environment(self.folder, self.url, port, self.lease_s)
        self._env = {**python_path(os.environ), **told}
        self.faults = Journal(self.path("faults"))
        self._undo.append(self.faults.close)
        recorder = Recorder(self.redis.connect(), Journal(self.path("published")))
        self._undo.append(recorder.stop)
        self.fleet = Fleet(self.system.commands, self.folder, self._env)
        self.fleet.start()
        self._undo.append(self.fleet.end)
        waiter = self._client("waiter", None)
        self._undo.append(lambda: leash.end(waiter))
        self._wait_until_ready()

    def _helper(self, name: str, argument: str) -> "tuple[leash.Process, int]":
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", f"chaos.{name}", argument]
        process = leash.start(command, log, python_path(os.environ), talk=True)
        self._undo.append(lambda: leash.end(process))
        return process, cue.announced_port(process, log)

    def _client(self, kind: str, load: Load | None, start_at: float = 0.0) -> "leash.Process":
        path = self.folder / f"{kind}-{load.storm if load else 'all'}.json"
        submits, outcomes = self.path("submits"), self.path("outcomes")
        Task(self.system.key, self.url, submits, outcomes, load, start_at).write(path)
        command = [sys.executable, "-m", f"chaos.{kind}", str(path)]
        return leash.start(command, self.folder / f"{kind}.log", self._env)

    def submitter(self, load: Load, start_at: float) -> "leash.Process":
        """Start a process that submits what is not accepted yet of `load`."""
        return self._client("submitter", load, start_at)

    def _wait_until_ready(self) -> None:
        deadline = now() + START_S
        outcomes = self.path("outcomes")
        while not (self.fleet.ready and read(outcomes)):
            self.fleet.tend(self.faults)
            if now() > deadline:
                late = next((slot.log for slot in self.fleet.slots if not slot.ready), None)
                log = late or self.folder / "waiter.log"
                raise TimeoutError(f"not ready within {START_S:g} s: {log}:\n{log_tail(log)}")
            time.sleep(0.05)


def python_path(env: "os._Environ[str]") -> dict[str, str]:
    """Return the environment in which `chaos` can be imported, and what we import too."""
    return {**env, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
