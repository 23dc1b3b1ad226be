"""Reading a file that people named: one that is none is said so, and never waited for."""

import errno
import stat
from pathlib import Path


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the file's first `most_bytes` bytes.

    Raises `OSError`, for what is no regular file, too: opening a pipe waits until somebody writes
    to it, and a device may never end.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, not_a_file(mode))
    with path.open("rb") as file:
        return file.read(most_bytes)


def not_a_file(mode: int) -> str:
    """Return in words what is there, by its `st_mode`, where no regular file is."""
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    kind = next((name for test, name in kinds if test(mode)), "a device")
    return f"it is {kind}, not a file"
