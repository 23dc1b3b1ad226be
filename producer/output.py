"""Output: a file of JSON lines that a run adds to, whole lines only, and that a later run reads.

A line is written by one system call, so a run that is killed leaves at most one torn line, the
last. The next run cuts that off; it is the only thing that is ever cut.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TextIO, cast

from rich.console import Console

from modelyard.errors import InvalidRequest, ModelyardError

Record = Mapping[str, Any]

# Not line ends in JSON, but `str.splitlines` takes them for some.
_LINE_ENDS: Final = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class UsageError(InvalidRequest):
    """What the command was asked to do can't be done as it is."""


class OutputFailed(ModelyardError):
    """The output can't be written any more: a full disk, mostly."""


class OutputFile:
    """The file `path`, and the records in it. Created when the first is added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def read(
        self,
        seen: Callable[[Record], object],
        *,
        ours: Callable[[Record], bool],
        interrupted: bool,
    ) -> None:
        """Call `seen` with each record. A torn last line is cut off if a run was `interrupted`.

        Raises `UsageError` for a line that is not one of `ours`: it is some other file then.
        """
        whole = 0
        torn = unended = False
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    unended = not line.endswith(b"\n")
                    torn = interrupted and unended
                    if torn:
                        break
                    record = _record(line)
                    if record is None or not ours(record):
                        raise UsageError(
                            f"{self.path}:{number}: this line is no output of this command: "
                            "write to another file (-o), or remove this one"
                        )
                    seen(record)
                    whole += len(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{self.path}: {error.strerror}") from error
        if torn:
            os.truncate(self.path, whole)
        elif unended:
            self.add_bytes(b"\n")

    def add(self, record: Record) -> None:
        """Append a record. Raises `OutputFailed`."""
        self.add_bytes(encode(record))

    def add_bytes(self, data: bytes) -> None:
        """Append bytes. Raises `OutputFailed`."""
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._descriptor = os.open(self.path, flags, 0o666)
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise OutputFailed(
                f"{self.path}: {error.strerror}. Mend that and run the same command again: "
                "it goes on where it stopped"
            ) from error

    def keep(self, wanted: Callable[[Record], bool]) -> None:
        """Rewrite the file with the wanted records only: all of that happens, or nothing."""
        self.close()
        if not self.path.exists():
            return
        draft = self.path.with_name(self.path.name + ".tmp")
        try:
            with self.path.open("rb") as old, draft.open("wb") as new:
                for line in old:
                    record = _record(line)
                    if record is not None and wanted(record):
                        new.write(line)
                new.flush()
                os.fsync(new.fileno())
            draft.replace(self.path)
        except OSError as error:
            raise OutputFailed(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Put what was added on disk and let go of the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise OutputFailed(f"{self.path}: {error.strerror}") from error
            finally:
                os.close(descriptor)


def encode(record: Record) -> bytes:
    """Return a record as one line of JSON in UTF-8."""
    text = json.dumps(record, ensure_ascii=False).translate(_LINE_ENDS)
    # Half of a surrogate pair has no UTF-8; it can only come from damaged input.
    return (text + "\n").encode("utf-8", "replace")


def print_line(record: Record) -> None:
    """Write a record to standard output. Raises `OutputFailed`."""
    with standard_output() as stream:
        stream.flush()
        stream.buffer.write(encode(record))
        stream.buffer.flush()


class StandardOutput:
    """Standard output as a file for a console. Raises `OutputFailed` where it can't be written."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Write text; it may wait in the buffer until `flush`."""
        with standard_output() as stream:
            return stream.write(text)

    def flush(self) -> None:
        """Write what waits in the buffer."""
        with standard_output() as stream:
            stream.flush()

    def isatty(self) -> bool:
        """Return whether a person reads it."""
        return sys.stdout is not None and sys.stdout.isatty()


def console(*, soft_wrap: bool = False) -> Console:
    """Return a console for standard output."""
    return Console(file=cast("IO[str]", StandardOutput()), soft_wrap=soft_wrap)


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Give standard output to write to. Raises `OutputFailed` if it is closed or full."""
    # A bar on the same terminal puts a proxy in its place.
    stream: TextIO | None = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
    if stream is None:
        raise OutputFailed("standard output is closed: open it, or send it to /dev/null")
    try:
        yield stream
    except BrokenPipeError as error:
        discard_unwritten()
        raise OutputFailed("standard output was closed before the end") from error
    except OSError as error:
        discard_unwritten()
        raise OutputFailed(f"standard output can't be written: {error.strerror}") from error


def discard_unwritten() -> None:
    """Drop what standard output does not take: it would fail once more when Python ends."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check_output_path(path: Path) -> None:
    """Raise `UsageError` if nothing can be written there."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give -o the name of a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}: make it first")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file: a run that resumes needs one")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path}: no permission to write there")


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
