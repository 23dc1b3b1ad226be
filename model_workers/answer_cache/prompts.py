"""The last prompts of each group as vectors, in this process: what comes to the stream is added."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ENTRIES: Final = 1_000
"""So many prompts of a group are compared, the newest."""

GROUPS: Final = 32
"""So many groups are in memory: with 256 numbers a vector, a megabyte each at most."""

BEGIN: Final = "0-0"


@dataclass(slots=True)
class Group:
    """The vectors of one group; `last` is the id in the stream up to which it was read."""

    last: str = BEGIN
    keys: list[str] = field(default_factory=list)
    rows: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    added: int = 0

    def add(self, key: str, vector: Floats) -> None:
        """Take a vector of length 1, in place of the oldest where there are enough."""
        if not len(vector) or (len(self.keys) and vector.shape != self.rows.shape[1:]):
            return  # the embeddings are other ones by now
        if key in self.keys:
            self.rows[self.keys.index(key)] = vector
            return
        if len(self.keys) < ENTRIES:
            if len(self.keys) == len(self.rows):
                more = np.zeros((min(ENTRIES, max(16, 2 * len(self.rows))), len(vector)), "f4")
                more[: len(self.rows)] = self.rows.reshape(len(self.rows), len(vector))
                self.rows = more
            self.keys.append(key)
            self.rows[len(self.keys) - 1] = vector
        else:
            at = self.added % ENTRIES
            self.keys[at], self.rows[at] = key, vector
        self.added += 1

    def like(self, vector: Floats, floor: float, most: int = 3) -> list[tuple[str, float]]:
        """Return the keys whose cosine is `floor` at least, the most similar first."""
        if not self.keys or vector.shape != self.rows.shape[1:]:
            return []
        cosines = self.rows[: len(self.keys)] @ vector
        best = np.argsort(-cosines)[:most]
        # In 32 bits the cosine of a vector with itself may be just below 1.
        return [(self.keys[at], float(cosines[at])) for at in best if cosines[at] >= floor - 1e-6]


class Prompts:
    """The groups that were asked about last."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, Group] = OrderedDict()

    def group(self, name: str) -> Group:
        """Return a group, empty if it is new here."""
        group = self._groups.setdefault(name, Group())
        self._groups.move_to_end(name)
        while len(self._groups) > GROUPS:
            self._groups.popitem(last=False)
        return group
