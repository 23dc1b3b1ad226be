"""The model folder: what was learned, on disk.

```
MODEL/
    model.json                      what it is, see `Header`
    arrays-<16 hex digits>.npz      the arrays of all parts, named by their checksum
```

A model has parts (`intents`, `quality`), each with metadata and arrays. `model.json` names the
array file by its SHA-256 and is replaced in one step (rename), after the array file is written:
a reader sees the old model or the new one, whatever happens to the writer. A router that looks
for a new model need only look whether `model.json` changed.

Nothing in the folder is trusted: nothing is unpickled or run (`array_file`), and sizes are
checked before memory is taken.
"""

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelyard.messages import problems
from router_worker.learned.array_file import (
    MAX_FILE_BYTES,
    ArraySpec,
    Name,
    describe,
    pack,
    unpack,
)
from router_worker.learned.part import ModelFileError, Part

__all__ = [
    "FORMAT",
    "Model",
    "ModelFileError",
    "Part",
    "add_parts",
    "kept_parts",
    "load_model",
    "save_model",
]

FORMAT: Final = 1
"""Grows when older code could not read what is written now."""

MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
_TRIES: Final = 5


class PartSpec(BaseModel):
    """One part: its metadata, and which arrays it has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    meta: dict[str, Any]
    arrays: dict[Name, ArraySpec]


class Header(BaseModel):
    """What `model.json` holds: `created` is UTC in ISO 8601, `sha256` the array file's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int
    created: str
    versions: dict[str, str]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    parts: dict[Name, PartSpec]

    @property
    def array_file(self) -> str:
        """The name of the array file, which can't lead out of the folder."""
        return f"arrays-{self.sha256[:16]}.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model that was read. `created` is UTC in ISO 8601; `sha256` tells its arrays from others'.

    `versions` are those of the libraries that it was made with.
    """

    folder: Path
    created: str
    versions: Mapping[str, str]
    sha256: str
    parts: Mapping[str, Part]

    def part(self, name: str) -> Part:
        """Return a part. Raises `ModelFileError` if the model has none of this name."""
        if name not in self.parts:
            has = ", ".join(sorted(self.parts)) or "nothing"
            raise ModelFileError(f"{self.folder}: has no part {name!r} (it has {has})")
        return self.parts[name]


def save_model(folder: Path, parts: Mapping[str, Part], *, created: datetime | None = None) -> None:
    """Write a model, or replace the one in `folder` as a whole.

    To keep a part that is there, use `add_parts`.
    `created` is the time now where None. Raises `ModelFileError` if a part can't be stored or
    the folder not written; a model that was there is there still.
    """
    try:
        data = pack({f"{name}/{key}": a for name in parts for key, a in parts[name].arrays.items()})
        header = Header(
            format=FORMAT,
            created=(created or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
            versions=versions(),
            sha256=hashlib.sha256(data).hexdigest(),
            parts={
                name: PartSpec(meta=dict(part.meta), arrays=describe(part.arrays))
                for name, part in parts.items()
            },
        )
        text = json.dumps(header.model_dump(), indent=1, ensure_ascii=False, allow_nan=False)
        encoded = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{folder}: can't be stored: {error}") from error
    if len(encoded) > MAX_HEADER_BYTES:
        raise ModelFileError(f"{folder}: has more than {MAX_HEADER_BYTES:,} bytes of metadata")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stale = {path.name for path in folder.glob("arrays-*.npz")} - {header.array_file}
        replace(folder / header.array_file, data)
        replace(folder / "model.json", encoded)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise ModelFileError(f"{folder}: can't be written: {error.strerror or error}") from error


def add_parts(folder: Path, parts: Mapping[str, Part]) -> None:
    """Write parts into a folder beside those that it has, or in their place.

    Two who do that at once get one after the other. Raises `ModelFileError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        raise ModelFileError(f"{folder}: can't be written: {error.strerror or error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        save_model(folder, {**kept_parts(folder), **parts})


def kept_parts(folder: Path) -> Mapping[str, Part]:
    """Return the parts of the model that is in a folder, if one is. Raises `ModelFileError`."""
    if not (folder / "model.json").exists():
        return {}
    try:
        return load_model(folder).parts
    except ModelFileError as error:
        raise ModelFileError(
            f"{error}. A new model would keep its other parts: remove what is there, or choose "
            "another folder"
        ) from error


def load_model(folder: Path) -> Model:
    """Read a model.

    Raises `ModelFileError` for one that is missing, truncated, foreign, of a newer format, too
    large, or not what its checksum, types and shapes say.
    """
    for _ in range(_TRIES):
        header = read_header(folder / "model.json")
        path = folder / header.array_file
        try:
            data = read(path, MAX_FILE_BYTES)
        except FileNotFoundError:
            continue  # the model was replaced between the two reads, or the file is lost
        if hashlib.sha256(data).hexdigest() != header.sha256:
            raise ModelFileError(f"{path}: has another checksum than model.json says: damaged")
        return assemble(folder, header, data)
    raise ModelFileError(f"{path}: is missing, and model.json names it")


def assemble(folder: Path, header: Header, data: bytes) -> Model:
    """Return the model of a header and its array file. Raises `ModelFileError`."""
    specs = {f"{p}/{key}": s for p, part in header.parts.items() for key, s in part.arrays.items()}
    try:
        arrays = unpack(data, specs)
    except ValueError as error:
        raise ModelFileError(f"{folder / header.array_file}: {error}") from error
    parts = {
        name: Part(
            meta=part.meta,
            arrays={key: arrays[f"{name}/{key}"] for key in part.arrays},
            where=f"{folder}: {name}",
        )
        for name, part in header.parts.items()
    }
    return Model(folder, header.created, header.versions, header.sha256, parts)


def read_header(path: Path) -> Header:
    """Return what `model.json` says. Raises `ModelFileError`."""
    try:
        value = json.loads(read(path, MAX_HEADER_BYTES).decode())
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: is missing: there is no model here") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is not JSON: truncated, or another kind of file") from error
    found = value.get("format") if isinstance(value, dict) else None
    if type(found) is not int:
        raise ModelFileError(f"{path}: has no format number: not a model of modelyard")
    if found != FORMAT:
        raise ModelFileError(
            f"{path}: has format {found}, and this version of modelyard reads {FORMAT}: "
            "train the model again, or use the version that wrote it"
        )
    try:
        return Header.model_validate(value)
    except ValidationError as error:
        raise ModelFileError(f"{path}: {problems(error)}") from error


def read(path: Path, limit: int) -> bytes:
    """Return a file's bytes. Raises `FileNotFoundError`, and `ModelFileError` for all else."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read: {error.strerror or error}") from error
    if len(data) > limit:
        raise ModelFileError(f"{path}: is larger than {limit:,} bytes")
    return data


def replace(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it sees all of it, or the one that was there."""
    with NamedTemporaryFile(dir=path.parent, prefix=".model-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # a temporary file is its owner's alone
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise


def versions() -> dict[str, str]:
    """Return the versions of what a model is made with."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("modelyard", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # run from a checkout, or made without training
    return found
