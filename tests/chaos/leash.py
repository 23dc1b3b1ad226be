"""Processes that die with the harness, even if they are stopped and it is killed by SIGKILL.

`modelyard.processes.leashed` sends SIGTERM, which a stopped process does not hear.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

Process = subprocess.Popen[bytes]

# See prctl(2), PR_SET_PDEATHSIG. The parent may be gone before the call, hence the check after it.
_LEASH: Final = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(1, int(sys.argv[2])) != 0:
    sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the harness is gone")
os.execvp(sys.argv[3], sys.argv[3:])
"""


def start(
    command: Sequence[str], log: Path, env: Mapping[str, str], *, talk: bool = False
) -> Process:
    """Start a process whose output goes to `log`. Call it from the main thread only.

    `talk`: its standard input is a pipe, which can be written to and ends with us.
    """
    parent, ends_by = str(os.getpid()), str(int(signal.SIGKILL))
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LEASH, parent, ends_by, *command],
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=log.parent,
            start_new_session=True,
        )


def end(process: Process) -> None:
    """End a process, stopped or not, and wait until it is gone."""
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
