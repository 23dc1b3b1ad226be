"""Virtual environments of peers, so that nothing of theirs gets into the project's own."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.process import ROOT

INSTALL_S: Final = 900.0
STAMP: Final = "installed"
"""A file that tells that the last install came to its end, and of what."""


class NoEnvironment(Exception):
    """A peer's environment is not there and could not be made; says why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment with these requirements."""

    folder: Path
    requirements: Sequence[str]

    @classmethod
    def of(cls, name: str, *requirements: str) -> "Environment":
        """Return the one at `.venv-<name>` of the project's root."""
        return cls(ROOT / f".venv-{name}", requirements)

    def program(self, name: str) -> str:
        """Return the path of one of its programs."""
        return str(self.folder / "bin" / name)

    @property
    def ready(self) -> bool:
        """Whether it was made, for these requirements."""
        stamp = self.folder / STAMP
        return stamp.is_file() and stamp.read_text() == self._wanted

    def make(self) -> None:
        """Make it if it is not there. Raises `NoEnvironment`."""
        if self.ready:
            return
        wanted = " ".join(self.requirements)
        print(f"installing {wanted} into {self.folder.name}, once", file=sys.stderr, flush=True)
        self._run([sys.executable, "-m", "venv", "--clear", str(self.folder)])
        # Not for git, whatever the project's own list of what to ignore says.
        (self.folder / ".gitignore").write_text("*\n")
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        self._run([self.program("python"), *install, *self.requirements])
        (self.folder / STAMP).write_text(self._wanted)

    def version(self, distribution: str) -> str:
        """Return the installed version of one of its distributions. Raises `NoEnvironment`."""
        code = f"from importlib.metadata import version; print(version({distribution!r}))"
        return self._run([self.program("python"), "-I", "-c", code]).strip()

    @property
    def _wanted(self) -> str:
        return "\n".join(self.requirements) + "\n"

    def _run(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoEnvironment(f"{self.folder.name}: {error}") from error
        if done.returncode:
            end = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
            raise NoEnvironment(f"{self.folder.name}: {command[0]} failed:\n{end}")
        return done.stdout
