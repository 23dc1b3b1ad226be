"""Append-only logs of JSON lines, written by processes that may be killed at any moment.

Times are of CLOCK_MONOTONIC, which all processes of a Linux machine share.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def now() -> float:
    """Return the time of all logs, in seconds."""
    return time.monotonic()


class Journal:
    """Writes each entry with one `write` to a file opened for appending: whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, **entry: Any) -> None:
        """Append an entry; `at` is now unless it is given."""
        line = json.dumps({"at": now(), **entry}, separators=(",", ":"))
        os.write(self._fd, line.encode() + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


class Tail:
    """Reads what was appended to a log since the last look. The file may come later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def entries(self) -> Iterator[Entry]:
        """Yield the new whole lines."""
        if not self._path.exists():
            return
        with self._path.open("rb") as lines:
            lines.seek(self._offset)
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)


def read(path: Path) -> list[Entry]:
    """Return all entries of a log, none if nobody wrote one."""
    return list(Tail(path).entries())
