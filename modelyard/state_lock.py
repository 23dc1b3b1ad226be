"""The lock on a state folder: one run at a time uses the data in it."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.errors import EmbeddedRedisError

POLL_S: Final = 0.05


class StateLock:
    """An exclusive lock on the file `lock` in `state_dir`, freed by the kernel when we die.

    Children that inherit `descriptors` hold it too, and go on holding it when we are killed. The
    file says who holds it, for whoever comes second, and how long such children may take to end
    (`drain_s`, in seconds): so long the second waits for them, however short its own `wait_s` is.
    The file is never removed: a second process could hold a lock on one that is no longer there.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        wait_s: float,
        drain_s: float,
        on_wait: Callable[[str], None] | None,
        cancelled: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._state_dir = state_dir
        self._path = state_dir / "lock"
        self._wait_s = wait_s
        self._drain_s = drain_s
        self._on_wait = on_wait
        self._cancelled = cancelled
        self._clock = clock
        self._descriptor: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child must inherit to hold the lock too, for `Popen(pass_fds=...)`."""
        return () if self._descriptor is None else (self._descriptor,)

    def acquire(self) -> None:
        """Take the lock, within `wait_s`. Raises `EmbeddedRedisError` that names the holder."""
        if self._descriptor is not None:
            raise EmbeddedRedisError(f"the Redis of {self._state_dir} is already started")
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise EmbeddedRedisError(
                f"{self._state_dir}: {error.strerror}; set MODELYARD_STATE_DIR to a folder "
                "that can be written"
            ) from error
        try:
            self._wait_for(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self.describe(None)

    def describe(self, url: str | None) -> None:
        """Write into the file who holds the lock and at which address its Redis is."""
        if self._descriptor is not None:
            holder = {"pid": os.getpid(), "url": url, "drain_s": self._drain_s}
            text = json.dumps(holder).encode()
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        """Give the lock back, if we hold it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        since = self._clock()
        told = False
        while not try_lock(descriptor):
            holder = read_holder(descriptor)
            wait_s = max(self._wait_s, holder.drains_for_s)
            if self._clock() >= since + wait_s:
                raise EmbeddedRedisError(self._refusal(holder))
            if self._cancelled():
                raise EmbeddedRedisError(f"stopped while waiting for {self._state_dir}")
            if not told:
                told = True
                if self._on_wait is not None:
                    self._on_wait(
                        "waiting for the earlier run to finish what is in flight "
                        f"({holder}, {wait_s:g} s at most)"
                    )
            time.sleep(POLL_S)

    def _refusal(self, holder: "Holder") -> str:
        use = f", or set MODELYARD_BROKER_URL={holder.url} to use its Redis" if holder.url else ""
        return (
            f"{self._state_dir} is in use by {holder}: stop it or wait until it ends{use}, "
            "or set MODELYARD_STATE_DIR to another folder"
        )


@dataclass(frozen=True, slots=True)
class Holder:
    """What the lock file says of who holds the lock; all None while that is being written."""

    pid: int | None = None
    url: str | None = None
    drain_s: float = 0.0

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        if self.is_gone:
            return f"what process {self.pid} left running when it was killed"
        return f"process {self.pid}"

    @property
    def is_gone(self) -> bool:
        """Whether the process is dead, so that only its children hold the lock, and not for long.

        Wrong across the borders of containers, and harmless there: whoever asks waits in vain.
        """
        if self.pid is None:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # alive, and somebody else's
            return False
        return False

    @property
    def drains_for_s(self) -> float:
        """How long the lock may still be held although its holder is dead, in seconds."""
        return self.drain_s if self.is_gone else 0.0


def try_lock(descriptor: int) -> bool:
    """Return whether the lock is now ours."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_holder(descriptor: int) -> Holder:
    """Return what the lock file says."""
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(said["pid"], said["url"], said.get("drain_s", 0.0))
    except (ValueError, KeyError, TypeError):  # being written
        return Holder()
