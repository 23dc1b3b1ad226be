"""A part of a learned model: JSON metadata and named arrays, read with care."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import ModelyardError


class ModelFileError(ModelyardError):
    """A model folder is refused. The message is `FILE: WHAT`."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Metadata (JSON values) and arrays of numbers. `where` names it in messages.

    The methods return what a reader wants and raise `ModelFileError` if the part has something
    else: whoever wrote the file is not trusted.
    """

    meta: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    where: str = field(default="a new part")

    def array(self, name: str, dtype: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Return an array of this type and shape, where None stands for any length."""
        found = self.arrays.get(name)
        if found is None:
            raise self.error(f"has no array {name!r}")
        if found.dtype != np.dtype(dtype):
            raise self.error(f"array {name!r} is of {found.dtype}, not {np.dtype(dtype)}")
        fits = len(shape) == found.ndim and all(
            want in (None, length) for want, length in zip(shape, found.shape, strict=True)
        )
        if not fits:
            wanted = " x ".join("any" if length is None else str(length) for length in shape)
            has = " x ".join(map(str, found.shape)) or "a single number"
            raise self.error(f"array {name!r} is {has}, not {wanted}")
        return found

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """Return a finite number of the metadata, from `low` to `high`."""
        found = self.meta.get(key)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.error(f"{key!r} is not a number")
        if not (low <= found <= high and abs(found) <= sys.float_info.max):
            raise self.error(f"{key!r} is not a finite number from {low} to {high}")
        return float(found)

    def names(self, key: str) -> tuple[str, ...]:
        """Return a list of texts of the metadata, all different."""
        found = self.meta.get(key)
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise self.error(f"{key!r} is not a list of texts")
        if len(set(found)) != len(found):
            raise self.error(f"{key!r} has a text twice")
        try:
            "".join(found).encode()
        except UnicodeEncodeError as error:
            raise self.error(f"{key!r} has half a surrogate pair, which is no text") from error
        return tuple(found)

    def error(self, what: str) -> ModelFileError:
        """Return an error about this part."""
        return ModelFileError(f"{self.where}: {what}")
