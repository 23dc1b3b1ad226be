"""Child processes, and what they spend: CPU time and memory, as Linux tells them."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from modelyard.processes import leashed

ROOT: Final = Path(__file__).resolve().parent.parent
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
END_S: Final = 30.0


@contextlib.contextmanager
def process(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a command until the block ends, with `env` over ours; yield its process id."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            leashed(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=ROOT,
        )
    try:
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def own_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process without its children, to the nanosecond."""
    # What clock_getcpuclockid(3) computes; Python has it for threads only.
    return time.clock_gettime((~pid << 3) | 2)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and its children; those that ended by proc(5)'s ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = sum(int(ticks) for ticks in fields[13:15]) / TICKS_PER_S
    return own_cpu_s(pid) + ended + sum(cpu_s(child) for child in children(pid))


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process and its children."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return round(kib / 1024 + sum(rss_mib(child) for child in children(pid)), 1)


def children(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end meanwhile; its children are then another's.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found
