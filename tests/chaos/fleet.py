"""The worker processes of a system, each started again when it ends, as a supervisor would."""

import contextlib
import random
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chaos import leash
from chaos.journal import Journal, now

RESTART_S: Final = 0.3
READY: Final = b" ready."
ANY_ROLE: Final = "any"


class Slot:
    """One place in the fleet. Each process in it has a name of its own, `pool-1.3`."""

    def __init__(self, name: str, command: list[str], folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.stopped = False
        self.expected = False
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._env = env
        self._generation = 0
        self._log_begin = 0
        self._start_at = 0.0

    @property
    def instance(self) -> str:
        """The name of the process that runs, or ran last."""
        return f"{self.name}.{self._generation}"

    @property
    def running(self) -> bool:
        """Whether a process runs that is not stopped."""
        return self.process is not None and self.process.poll() is None and not self.stopped

    @property
    def ready(self) -> bool:
        """Whether the process said that it consumes."""
        if not self.running:
            return False
        with self.log.open("rb") as lines:
            lines.seek(self._log_begin)
            return READY in lines.read()

    def start(self) -> None:
        """Start the next process."""
        self._generation += 1
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        self.stopped = self.expected = False
        self.process = leash.start(
            self._command, self.log, {**self._env, "CHAOS_WORKER": self.instance}
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal that is meant."""
        assert self.process is not None
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.expected = True
        self.stopped = number == signal.SIGSTOP
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def tend(self, journal: Journal) -> None:
        """Start it again some time after it ended; log an end that nobody wanted."""
        if self.process is not None and self.process.poll() is not None:
            if not self.expected:
                how = self.process.returncode
                journal.write(kind="fault", action="died", target=self.instance, how=how)
            self.process = None
            self._start_at = now() + RESTART_S
        if self.process is None and now() >= self._start_at:
            self.start()

    def rss_mib(self) -> float | None:
        """Return the resident memory of the process, see proc(5)."""
        if self.process is None:
            return None
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
            return round(kib / 1024, 1)
        return None


class Fleet:
    """All worker processes of a system."""

    def __init__(
        self, commands: Mapping[str, list[str]], folder: Path, env: Mapping[str, str]
    ) -> None:
        self.slots = [Slot(name, command, folder, env) for name, command in commands.items()]
        self._rolling: list[Slot] = []
        self._rolled: Slot | None = None

    def start(self) -> None:
        """Start all."""
        for slot in self.slots:
            slot.start()

    @property
    def ready(self) -> bool:
        """Whether all consume."""
        return all(slot.ready for slot in self.slots)

    def tend(self, journal: Journal) -> None:
        """Start again what ended, and go on with a rolling restart; call it often."""
        for slot in self.slots:
            slot.tend(journal)
        self._roll(journal)

    def choose(self, role: str, rng: random.Random) -> Slot | None:
        """Return one that runs, of a role (`router`, `pool`) or of any, or None."""
        found = [slot for slot in self.slots if slot.running and of_role(slot, role)]
        return rng.choice(found) if found else None

    def roll(self, journal: Journal, role: str = ANY_ROLE) -> None:
        """Restart one after the other by SIGTERM, each when the one before consumes again."""
        if not self._rolling and self._rolled is None:
            journal.write(kind="begin", action="roll")
            self._rolling = [slot for slot in self.slots if of_role(slot, role)]

    @property
    def is_rolling(self) -> bool:
        """Whether a rolling restart goes on."""
        return bool(self._rolling) or self._rolled is not None

    def _roll(self, journal: Journal) -> None:
        if self._rolled is not None and self._rolled.ready and not self._rolled.expected:
            self._rolled = None
            if not self._rolling:
                journal.write(kind="end", action="roll")
        if self._rolled is None and self._rolling and self._rolling[0].running:
            self._rolled = self._rolling.pop(0)
            self._rolled.send(signal.SIGTERM)

    def end(self) -> None:
        """Kill all."""
        for slot in self.slots:
            if slot.process is not None:
                leash.end(slot.process)


def of_role(slot: Slot, role: str) -> bool:
    """Whether a slot is of a role."""
    return role == ANY_ROLE or slot.name.startswith(role)
