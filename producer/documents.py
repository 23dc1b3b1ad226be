"""Documents on disk: found by file, folder or glob, and read into plain text.

Both halves explain what they can't use instead of ending the run: `find` yields an `Unreadable`
in its place, `read` raises `UnreadableDocument`.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.errors import ModelyardError
from modelyard.regular_file import not_a_file
from producer.document_text import READERS, NoText

MAX_BYTES: Final = 20 * 1024 * 1024
"""A larger file is refused before it is read."""

KINDS: Final = " ".join(READERS)
"""What can be read, as messages say it."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document as plain text.

    `path` is as it was given, `sha256` is the hex digest of the file's bytes, `title` is what the
    document calls itself, if it does.
    """

    path: str
    text: str
    sha256: str
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A path that gives no document; `why` says what is wrong and what to do.

    `sha256` is that of the file's bytes, if they could be read.
    """

    path: str
    why: str
    sha256: str | None = None


class UnreadableDocument(ModelyardError):
    """A file can't be read as a document. The message is `PATH: WHY`."""

    def __init__(self, path: str, why: str, sha256: str | None = None) -> None:
        super().__init__(f"{path}: {why}")
        self.item = Unreadable(path, why, sha256)


def find(paths: Sequence[str]) -> Iterator[Path | Unreadable]:
    """Yield the documents that files, folders and globs (`**` too) lead to, each file once.

    Inside folders and globs, hidden files and files of other kinds are passed over and links to
    folders are not followed. The order is that of `paths`, sorted within each.
    """
    seen: set[tuple[int, int] | Unreadable] = set()
    for given in paths:
        for found in _expand(given):
            item = found
            key: tuple[int, int] | Unreadable
            if isinstance(item, Path):
                # The device and inode, so that links and `./x` beside `x` are one file.
                try:
                    status = item.stat()
                    key = (status.st_dev, status.st_ino)
                except OSError as error:
                    key = item = Unreadable(shown(item), _why(error))
            else:
                key = item
            if key not in seen:
                seen.add(key)
                yield item


def read(path: Path, *, max_bytes: int = MAX_BYTES) -> Document:
    """Return the document in the file `path`. Raises `UnreadableDocument`."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UnreadableDocument(shown(path), _unsupported(path))
    data = _bytes(path, max_bytes)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        content = reader(data)
    except NoText as error:
        raise UnreadableDocument(shown(path), str(error), sha256) from error
    return Document(shown(path), content.text, sha256, content.title)


def digest(item: Path | Unreadable) -> str | None:
    """Return the SHA-256 of what is in the file now; None if it can't be read."""
    if isinstance(item, Unreadable):
        return item.sha256
    try:
        return hashlib.sha256(_bytes(item, MAX_BYTES)).hexdigest()
    except UnreadableDocument:
        return None


def real_path(item: Path | Unreadable) -> str:
    """Return what file that is, as text: the same from wherever and however it is spelled."""
    path = item if isinstance(item, Path) else item.path
    try:
        return shown(os.path.realpath(path))
    except ValueError:
        return str(path)  # no path at all: a NUL byte in it


def shown(path: str | Path) -> str:
    """Return a path as text that can be encoded, though names on disk need not be UTF-8.

    Names that differ stay different.
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def _bytes(path: Path, max_bytes: int) -> bytes:
    """Return what is in a regular file that is not too large. Raises `UnreadableDocument`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableDocument(shown(path), _not_a_file(status.st_mode))
        size = status.st_size
        data = b""
        if size <= max_bytes:
            with path.open("rb") as file:
                # One byte more than allowed tells whether the file grew meanwhile.
                data = file.read(max_bytes + 1)
            size = len(data)
    except OSError as error:
        raise UnreadableDocument(shown(path), _why(error)) from error
    if size > max_bytes:
        raise UnreadableDocument(
            shown(path),
            f"it has {_mib(size)} MiB, more than the {_mib(max_bytes)} MiB that one document may "
            "have: split it, or leave out what is not text",
        )
    return data


def _expand(given: str) -> Iterator[Path | Unreadable]:
    """Yield what one argument leads to, or say why it leads nowhere."""
    if not given.strip():
        yield Unreadable(given, "the path is empty: is a shell variable in it not set?")
        return
    path = Path(given)
    if given.startswith("~/"):
        path = path.expanduser()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        # Only a name that does not exist is a glob: `notes[1].txt` may be a file.
        if any(sign in given for sign in "*?["):
            yield from _glob(path)
        else:
            yield Unreadable(shown(path), _why(error, link=path.is_symlink()))
    except OSError as error:
        yield Unreadable(shown(path), _why(error))
    except ValueError as error:
        yield Unreadable(shown(path), f"this is no path: {error}")
    else:
        if stat.S_ISDIR(mode):
            yield from _folder(path)
        elif not stat.S_ISREG(mode):
            yield Unreadable(shown(path), _not_a_file(mode))
        elif not _is_document(path):
            yield Unreadable(shown(path), _unsupported(path))
        else:
            yield path


def _folder(folder: Path) -> Iterator[Path | Unreadable]:
    empty = True
    for found in _walk(folder):
        empty = False
        yield found
    if empty:
        yield Unreadable(
            shown(folder), f"no documents in this folder ({KINDS}; hidden files don't count)"
        )


def _walk(folder: Path) -> Iterator[Path | Unreadable]:
    """Yield the documents in a folder and below: its files first, then folder by folder."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        folders: list[Path] = []
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Unreadable(shown(here), _why(error))
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif _is_document(path) and not _is_folder(path):
                yield _regular(path)
        waiting.extend(reversed(folders))


def _glob(pattern: Path) -> Iterator[Path | Unreadable]:
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    base, rest = Path(*parts[:first]), parts[first:]
    hidden_too = any(part.startswith(".") and part != ".." for part in rest)
    others = 0
    empty = True
    try:
        matches = sorted(base.glob(str(Path(*rest))))
    except (OSError, ValueError, NotImplementedError) as error:
        yield Unreadable(shown(pattern), f"this pattern can't be used: {error}")
        return
    for match in matches:
        inside = match.parts[len(base.parts) :]
        if not hidden_too and any(part.startswith(".") and part != ".." for part in inside):
            continue
        found: Iterator[Path | Unreadable]
        if _is_folder(match):
            # `dir/*` given unquoted has the folders too: the shell and we mean the same.
            found = _walk(match)
        elif _is_document(match):
            found = iter((_regular(match),))
        else:
            others += 1
            continue
        for item in found:
            empty = False
            yield item
    if empty:
        beside = f" (files of other kinds: {others})" if others else ""
        yield Unreadable(
            shown(pattern), f"no document matches this pattern{beside}; what can be read: {KINDS}"
        )


def _regular(path: Path) -> Path | Unreadable:
    """Return the path if a file is behind it: a pipe called `x.txt` would be waited for."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Unreadable(shown(path), _why(error, link=path.is_symlink()))
    return path if stat.S_ISREG(mode) else Unreadable(shown(path), _not_a_file(mode))


def _is_document(path: Path) -> bool:
    return path.suffix.lower() in READERS


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False  # `_regular` says what is wrong with it


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.3g}"


def _unsupported(path: Path) -> str:
    kind = f"{path.suffix} files can't be read" if path.suffix else "its name has no ending"
    return f"{kind}: convert or rename it to one of {KINDS}"


def _not_a_file(mode: int) -> str:
    return f"{not_a_file(mode)}: copy the text into a file first"


def _why(error: OSError, *, link: bool = False) -> str:
    """Say what the operating system's refusal means and what to do."""
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR if link:
            return "it is a link to something that is not there: remove it or mend it"
        case errno.ENOENT | errno.ENOTDIR:
            return "no such file or folder: check the name and the folder you are in"
        case errno.ELOOP:
            return "it is a link that leads back to itself: remove it"
        case errno.EACCES | errno.EPERM:
            return "permission denied: make it readable (chmod u+r), or leave it out"
        case _:
            return f"it can't be read: {error.strerror or error}"
