"""A yard for one command, which outlives the command just long enough to finish what is in flight.

The yard is a process of its own in a session of its own, at the other end of a pipe. When the
command ends, even by `kill -9`, the pipe closes: the yard's workers finish their calls, store the
answers and end. So they do when it is the yard's process that is killed. A later run on the same
state folder waits for that and pays for nothing twice.
"""

import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from modelyard.processes import ended_how, log_tail, private_folder
from modelyard.settings import load_settings
from producer.children import YardFailed, with_import_path
from producer.yard import GRACE_MARGIN_S, Addresses

log = logging.getLogger("modelyard.yard")

QUIET_S: Final = 1.0
"""A stop that takes longer is explained, in seconds."""
END_MARGIN_S: Final = 60.0
"""What the yard gets beyond its workers' grace to stop Redis and end, in seconds."""


class PrivateYard:
    """A yard that lives as long as this context manager, on a Redis in `state_dir`.

    `on_notice` gets a line for people when something takes long. `lock_wait_s` is how long to wait
    for an earlier yard of this folder; by default as long as that one may take to end. With
    `remove_state` the yard removes `state_dir` when it has ended in order, also after a `kill -9`
    of this command: for a temporary one, which no later run looks for. `command` replaces the
    command line of the yard, for tests. Entering raises `YardFailed`.
    """

    def __init__(
        self,
        state_dir: Path,
        models: Sequence[str],
        *,
        catalog: Path | None = None,
        processes: int = 1,
        on_notice: Callable[[str], None] = lambda _: None,
        lock_wait_s: float | None = None,
        remove_state: bool = False,
        python: str = sys.executable,
        command: Sequence[str] | None = None,
    ) -> None:
        self._state_dir = state_dir.expanduser().resolve()
        self._log_path = self._state_dir / "logs" / "yard.log"
        self._on_notice = on_notice
        self._end_s = load_settings().shutdown_grace_s + GRACE_MARGIN_S + END_MARGIN_S
        self._command = command or yard_command(
            self._state_dir,
            models,
            catalog=catalog,
            processes=processes,
            lock_wait_s=self._end_s if lock_wait_s is None else lock_wait_s,
            remove_state=remove_state,
            python=python,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._logged = 0

    @property
    def pid(self) -> int | None:
        """The id of the yard's process, or None."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Addresses:
        self._start()
        try:
            return self._wait_until_ready()
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Pass on what the yard says meanwhile, to be called often.

        Raises `YardFailed` if it ended before it was told to: no answer will come.
        """
        if self._process is None:
            return
        ended = self._process.poll() is not None
        assert self._process.stdout is not None
        said = select.poll()
        said.register(self._process.stdout, select.POLLIN)
        while said.poll(0):
            line = self._process.stdout.readline()
            if not line:
                break
            self._hear(line)
        if ended:
            raise self._died()

    def _start(self) -> None:
        private_folder(self._log_path.parent)
        with self._log_path.open("ab") as errors:
            self._logged = errors.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                list(self._command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # nothing is read ahead: `check` asks the pipe whether there is more
                env=with_import_path(os.environ),
                start_new_session=True,
            )

    def _wait_until_ready(self) -> Addresses:
        assert self._process is not None
        assert self._process.stdout is not None
        # No deadline here: the yard has one for each thing it waits for, and says what it was.
        for line in self._process.stdout:
            ready = self._hear(line).get("ready")
            if ready is not None:
                return Addresses(**ready)
        self._process.wait()
        raise self._died()

    def _hear(self, line: bytes) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(line)
        if "notice" in said:
            self._on_notice(said["notice"])
        if "error" in said:
            raise YardFailed(said["error"])
        return said

    def _died(self) -> YardFailed:
        assert self._process is not None
        return YardFailed(
            f"the yard ended unexpectedly ({ended_how(self._process.returncode)}). "
            f"The end of {self._log_path}:\n{log_tail(self._log_path, since=self._logged)}"
        )

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdout:
            process.stdin.close()
            try:
                process.wait(QUIET_S)
            except subprocess.TimeoutExpired:
                self._on_notice("waiting for the calls in flight to finish")
                self._wait_for_end(process)

    def _wait_for_end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(self._end_s)
        except subprocess.TimeoutExpired:
            log.error(
                "the yard (process %d) did not end within %g s and is left alone; its log: %s",
                process.pid,
                self._end_s,
                self._log_path,
            )


def yard_command(
    state_dir: Path,
    models: Sequence[str],
    *,
    catalog: Path | None,
    processes: int,
    lock_wait_s: float,
    remove_state: bool = False,
    python: str = sys.executable,
) -> list[str]:
    """Return the command line of a private yard."""
    return [
        # -P: modules that lie in the folder where the command runs are not ours to import.
        *(python, "-P", "-m", "producer.yard"),
        *("--state-dir", str(state_dir)),
        *(word for model in models for word in ("--model", model)),
        *(() if catalog is None else ("--catalog", str(catalog))),
        *("--processes", str(processes)),
        *("--lock-wait-s", f"{lock_wait_s:g}"),
        *(("--remove-state",) if remove_state else ()),
        "--no-flower",
    ]
