"""The lock on a state folder: one run at a time uses the data in it."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from modelyard.errors import EmbeddedRedisError

POLL_S: Final = 0.05


class StateLock:
    """An exclusive lock on the file `lock` in `state_dir`, freed by the kernel when we die.

    The file says who holds it, for the message of whoever comes second. It is never removed:
    a second process could hold a lock on a file that is no longer there.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        wait_s: float,
        on_wait: Callable[[str], None] | None,
        cancelled: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._state_dir = state_dir
        self._path = state_dir / "lock"
        self._wait_s = wait_s
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
            text = json.dumps({"pid": os.getpid(), "url": url}).encode()
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        """Give the lock back, if we hold it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        deadline = self._clock() + self._wait_s
        told = False
        while not try_lock(descriptor):
            holder = read_holder(descriptor)
            who = f"process {holder['pid']}" if holder.get("pid") else "another process"
            if self._clock() >= deadline:
                url = holder.get("url")
                use = f", or set MODELYARD_BROKER_URL={url} to use its Redis" if url else ""
                raise EmbeddedRedisError(
                    f"{self._state_dir} is in use by {who}: stop it or wait until it ends{use}, "
                    "or set MODELYARD_STATE_DIR to another folder"
                )
            if self._cancelled():
                raise EmbeddedRedisError(f"stopped while waiting for {self._state_dir}")
            if not told:
                told = True
                if self._on_wait is not None:
                    self._on_wait(
                        f"waiting for the earlier run to finish what is in flight ({who})"
                    )
            time.sleep(POLL_S)


def try_lock(descriptor: int) -> bool:
    """Return whether the lock is now ours."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_holder(descriptor: int) -> dict[str, Any]:
    """Return what the lock file says; {} while its holder is writing it."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
