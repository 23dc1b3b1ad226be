"""What was found out about a text, kept for when the text comes again.

Two texts are the same here if they differ in nothing but case, width and spaces: see `normal`.
"""

import sys
from collections import OrderedDict
from typing import Final, Generic, TypeVar

V = TypeVar("V")

ENTRIES: Final = 20_000
SIZE_BYTES: Final = 16 * 1024 * 1024
TEXT_CHARS: Final = 1_000
"""A longer text is not kept: it hardly ever comes again, and would push many short ones out."""

ENTRY_BYTES: Final = 500
"""About what an entry takes besides its text: a place in the table, and what was found out."""


class Cache(Generic[V]):
    """Values by text, bounded in entries and in bytes; what was not asked for longest goes first.

    Not for threads. `size_bytes` is an estimate.
    """

    def __init__(self, entries: int = ENTRIES, size_bytes: int = SIZE_BYTES) -> None:
        self.hits = 0
        self.misses = 0
        self.size_bytes = 0
        self._most_entries = entries
        self._most_bytes = size_bytes
        self._values: OrderedDict[str, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, text: str) -> bool:
        return text in self._values

    def get(self, text: str) -> V | None:
        """Return what is kept for a text, or None."""
        value = self._values.get(text)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._values.move_to_end(text)
        return value

    def put(self, text: str, value: V) -> None:
        """Keep a value, in the place of an older one. One that is too large is not kept."""
        size = size_of(text)
        if len(text) > TEXT_CHARS or size > self._most_bytes or self._most_entries == 0:
            return
        if text not in self._values:
            self.size_bytes += size
        self._values[text] = value
        self._values.move_to_end(text)
        while len(self._values) > self._most_entries or self.size_bytes > self._most_bytes:
            oldest, _ = self._values.popitem(last=False)
            self.size_bytes -= size_of(oldest)


def size_of(text: str) -> int:
    """Return about how many bytes the entry of a text takes."""
    return sys.getsizeof(text) + ENTRY_BYTES
