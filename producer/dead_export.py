"""Dead letters as a file of JSON lines that is there whole, or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from modelyard.dead_entries import Entry
from producer.dead_display import unreadable
from producer.output import OutputFailed, UsageError, check_output_path, encode


def line(entry: Entry) -> bytes:
    """Return one letter as a line of JSON: as it is stored, or what is stored as a text."""
    record: Any = None
    if entry.letter is not None:
        record = json.loads(entry.raw)
    return encode(record if isinstance(record, dict) else unreadable(entry))


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write to, which gets its name and is safe on disk when this `with` ends.

    After an error nothing of it is left. It is for its owner's eyes only. Raises `UsageError` if
    there is such a file already, `OutputFailed` if it can't be written.
    """
    check_output_path(path)
    refuse_existing(path)
    try:
        descriptor, name = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise OutputFailed(f"{path}: {error.strerror}") from error
    draft = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - it is open already
            yield file
            file.flush()
            os.fsync(file.fileno())
        give_name(draft, path)
        keep_name(path.parent)
    except OSError as error:
        raise OutputFailed(f"{path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def give_name(draft: Path, path: Path) -> None:
    """Give the draft its name, if nobody took that meanwhile."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        refuse_existing(path)
        raise
    except OSError:  # a file system without hard links
        refuse_existing(path)
        draft.rename(path)


def keep_name(folder: Path) -> None:
    """Put a folder's names on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_existing(path: Path) -> None:
    """Raise `UsageError` if there is such a file: letters that were dropped may be only there."""
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already: give another name")
