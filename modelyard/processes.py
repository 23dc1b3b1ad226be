"""Processes that modelyard starts on this machine: tied to our life, and told about when they end.

On Linux a leashed process gets SIGTERM from the kernel when we die, even by `kill -9`
(`PR_SET_PDEATHSIG`, see prctl(2)). Elsewhere there is no such signal: whatever we start is
stopped by us, and only a `kill -9` of us leaves it running, to be stopped by hand.

Redis is not leashed to us: it must outlive the workers (see `modelyard.redis_keeper`).
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TAIL_BYTES: Final = 64 * 1024

# A program of its own and not Popen's preexec_fn: code between fork and exec can deadlock when
# other threads run, and Python 3.12 warns about it. The parent may be dead before prctl is
# called; then nobody would send the signal, hence the check after it.
_LEASH: Final = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(1, int(sys.argv[2])) != 0:
    sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started this one is gone")
try:
    os.execvp(sys.argv[3], sys.argv[3:])
except OSError as error:
    sys.exit(f"{sys.argv[3]}: {error.strerror}")
"""


def leashed(command: Sequence[str], *, python: str = sys.executable) -> list[str]:
    """Return the command line that runs `command` and ends it with us.

    The process keeps its id. The kernel watches the thread that starts it and not the whole
    process: start it from the main thread, or from one that outlives it.
    """
    if sys.platform != "linux":
        return list(command)
    parent, ends_by = str(os.getpid()), str(int(signal.SIGTERM))
    return [python, "-I", "-S", "-c", _LEASH, parent, ends_by, *command]


def ended_how(returncode: int) -> str:
    """Return `exit code 1` or `killed by SIGKILL` for a `Popen.returncode`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def log_tail(path: Path, *, lines: int = 20, since: int = 0) -> str:
    """Return the last lines of a log that were written after byte `since`; "" if there are none."""
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(since, end - TAIL_BYTES))
            text = log.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def private_folder(path: Path) -> Path:
    """Make `path` if it is missing, readable by its owner only, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path
