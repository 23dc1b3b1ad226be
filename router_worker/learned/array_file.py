"""The array file: named arrays of numbers as a zip of `.npy` files, which `numpy.load` reads, too.

It is read by its description (`ArraySpec`) and not by what it says about itself: sizes are known
before memory is taken, types that could run code don't exist here, and what differs is refused.
The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import ast
import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_ARRAY_BYTES: Final = 256 * 1024 * 1024
"""What all arrays of a file may take in memory together."""

MAX_ARRAYS: Final = 64
_MAX_NPY_HEADER_BYTES: Final = 512
_NPY_MAGIC: Final = b"\x93NUMPY\x01\x00"

Kind: TypeAlias = Literal["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "<u4", "<u2", "|u1"]
"""The types that an array may have, as numpy spells them."""

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""What a part, and an array of a part, may be called."""

Length: TypeAlias = Annotated[int, Field(ge=0, le=MAX_ARRAY_BYTES)]


class ArraySpec(BaseModel):
    """The type and shape of one array."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dtype: Kind
    shape: list[Length] = Field(max_length=4)

    @property
    def size_bytes(self) -> int:
        """What the array takes in memory."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def describe(arrays: Mapping[str, NDArray[Any]]) -> dict[str, ArraySpec]:
    """Return the description of arrays. Raises `ValueError` for one that can't be stored."""
    specs = {}
    for name, array in arrays.items():
        if array.dtype.str not in get_args(Kind):
            raise ValueError(f"array {name!r} is of {array.dtype}, which is not stored")
        specs[name] = ArraySpec.model_validate(
            {"dtype": array.dtype.str, "shape": list(array.shape)}
        )
        check_finite(name, array)
    check_sizes(specs)
    return specs


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the array file. Equal arrays make equal bytes: the dates in the zip are fixed.

    Raises `ValueError` if they can't be stored.
    """
    describe(arrays)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            npy = io.BytesIO()
            plain = np.asarray(array, order="C")
            np.lib.format.write_array(npy, plain, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, npy.getvalue())
    if out.tell() > MAX_FILE_BYTES:
        raise ValueError(f"the arrays take more than {MAX_FILE_BYTES:,} bytes")
    return out.getvalue()


def unpack(data: bytes, specs: Mapping[str, ArraySpec]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, which can't be written to.

    Raises `ValueError` with what is wrong if they are not exactly those of `specs`.
    """
    check_sizes(specs)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if entries.keys() != {f"{name}.npy" for name in specs}:
                raise ValueError("has not the arrays that model.json names")
            arrays = {}
            for name, spec in specs.items():
                entry = entries[f"{name}.npy"]
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"array {name!r} is compressed in a way that is not read")
                # One byte more than there should be tells a longer array from the right one.
                limit = len(_NPY_MAGIC) + 2 + _MAX_NPY_HEADER_BYTES + spec.size_bytes + 1
                with archive.open(entry) as member:
                    arrays[name] = parse_npy(name, member.read(limit), spec)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        # RuntimeError: it is encrypted, or wants a feature of zip that does not exist here.
        raise ValueError(f"is damaged, or no file of arrays: {error}") from error
    return arrays


def parse_npy(name: str, data: bytes, spec: ArraySpec) -> NDArray[Any]:
    """Return the array of one `.npy` file. Raises `ValueError` if it is not that of `spec`."""
    start = len(_NPY_MAGIC) + 2
    if len(data) < start or not data.startswith(_NPY_MAGIC):
        raise ValueError(f"array {name!r} is no .npy of version 1.0")
    end = start + int.from_bytes(data[start - 2 : start], "little")
    if end - start > _MAX_NPY_HEADER_BYTES:
        raise ValueError(f"array {name!r} has a header that is too long")
    try:
        # A literal is data: this evaluates no names, calls or operators.
        header = ast.literal_eval(data[start:end].decode("latin-1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"array {name!r} has a damaged header") from error
    wanted = {"descr": spec.dtype, "fortran_order": False, "shape": tuple(spec.shape)}
    if header != wanted:
        raise ValueError(f"array {name!r} has another type or shape than model.json says")
    if len(data) - end != spec.size_bytes:
        raise ValueError(f"array {name!r} has more or fewer numbers than its shape says")
    array = np.frombuffer(data, dtype=spec.dtype, offset=end).reshape(spec.shape)
    check_finite(name, array)
    return array


def check_finite(name: str, array: NDArray[Any]) -> None:
    """Raise `ValueError` if there is something in an array that is no finite number."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"array {name!r} has values that are no finite numbers (NaN or infinity)")


def check_sizes(specs: Mapping[str, ArraySpec]) -> None:
    """Raise `ValueError` if the arrays would take too much memory."""
    if len(specs) > MAX_ARRAYS:
        raise ValueError(f"has {len(specs)} arrays; {MAX_ARRAYS} are allowed")
    total = sum(spec.size_bytes for spec in specs.values())
    if total > MAX_ARRAY_BYTES:
        raise ValueError(f"its arrays would take {total:,} bytes of memory")
