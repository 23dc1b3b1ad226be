"""Texts that are nearly the same: "how do i reset my password", "how can i reset my password".

Candidates are found by MinHash (Broder 1997, "On the resemblance and containment of documents"):
two texts agree in one of its numbers with the probability of their words' Jaccard similarity, and
in all numbers of some band with one that rises steeply at a threshold (Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", section 3.4). Each candidate is then compared in earnest.

A word may matter more than all others: "is 7 prime" is not "is 9 prime", and "do" is not "do not".
So texts whose numbers, signs or negations differ, in what they are or in their order, are never
similar. Other words may stand in any order: this is for telling intents, not for telling answers.
"""

import re
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np

V = TypeVar("V")

PERMUTATIONS: Final = 32
BANDS: Final = 8
"""Of texts with a similarity of 0.7, 0.8 and 0.9 they find 89, 98.5 and 99.98 %."""

LEAST_THRESHOLD: Final = 0.7
ENTRIES: Final = 10_000
LEAST_WORDS: Final = 4
"""Of fewer words each one matters."""

_CANDIDATES: Final = 16
_TOKEN: Final = re.compile(r"\w+(?:['’]\w+)*|[-+*/=<>^%$€£#@&|~\\]")
_NEGATIONS: Final = frozenset(
    "no not never none nor neither nothing nobody nowhere cannot cant dont without except unless "
    "nicht kein keine keinen nie ohne non ne pas jamais sans no nunca sin niente mai senza".split()
)
_NUMBERS: Final = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million billion half third quarter once twice double first second".split()
)

_rng = np.random.default_rng(1997)
_FACTORS: Final = _rng.integers(0, 2**64, PERMUTATIONS, dtype=np.uint64) | np.uint64(1)
_SHIFTS: Final = _rng.integers(0, 2**64, PERMUTATIONS, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Sketch:
    """What of a text is compared: its words, what must be the same, and its MinHash in bands."""

    words: frozenset[str]
    fixed: tuple[str, ...]
    bands: tuple[bytes, ...]

    @property
    def places(self) -> Iterator[tuple[int, tuple[str, ...], bytes]]:
        """Where it is looked for: texts of another `fixed` are in other places."""
        return ((number, self.fixed, band) for number, band in enumerate(self.bands))


def sketch(text: str) -> Sketch:
    """Return the sketch of a text in its normal form."""
    found = _TOKEN.findall(text)
    words = frozenset(found)
    return Sketch(words, tuple(word for word in found if is_fixed(word)), bands(words))


def is_fixed(word: str) -> bool:
    """Return whether it is a number, a sign or a negation."""
    return (
        word in _NEGATIONS
        or word in _NUMBERS
        or word.endswith(("n't", "n’t"))
        or not word[0].isalpha()
        or any(map(str.isdigit, word))
    )


def bands(words: Iterable[str]) -> tuple[bytes, ...]:
    """Return the MinHash of a set of words, in bands; the same in all processes."""
    hashes = np.fromiter((zlib.crc32(word.encode()) for word in words), dtype=np.uint64)
    if not len(hashes):
        return ()
    # Multiply-shift (Dietzfelbinger et al. 1997): what overflows is meant to.
    mixed = (hashes[:, None] * _FACTORS + _SHIFTS) >> np.uint64(32)
    least = mixed.min(axis=0).astype(np.uint32).tobytes()
    width = len(least) // BANDS
    return tuple(least[start : start + width] for start in range(0, len(least), width))


def jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    """Return the share of all words that both have; 1 for two texts without words."""
    both = len(one & two)
    whole = len(one) + len(two) - both
    return both / whole if whole else 1.0


class Similar(Generic[V]):
    """Values by text, found by texts that are similar to at least `threshold` (0.7 to 1).

    At most `entries` are kept, the newest. Not for threads.
    """

    def __init__(self, threshold: float, entries: int = ENTRIES) -> None:
        if not LEAST_THRESHOLD <= threshold <= 1.0:
            raise ValueError(f"threshold must be from {LEAST_THRESHOLD} to 1, not {threshold}")
        self.hits = 0
        self.misses = 0
        self._threshold = threshold
        self._most_entries = entries
        self._kept: OrderedDict[int, tuple[Sketch, V]] = OrderedDict()
        self._places: dict[tuple[int, tuple[str, ...], bytes], list[int]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, sought: Sketch) -> V | None:
        """Return the value of the most similar text, or None."""
        best, value = self._threshold, None
        seen: set[int] = set()
        for place in sought.places if len(sought.words) >= LEAST_WORDS else ():
            for number in self._places.get(place, ()):
                if number in seen:
                    continue
                seen.add(number)
                kept, found = self._kept[number]
                likeness = jaccard(sought.words, kept.words)
                if likeness >= best:
                    best, value = likeness, found
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    def put(self, of: Sketch, value: V) -> None:
        """Keep a value."""
        if len(of.words) < LEAST_WORDS or self._most_entries == 0:
            return
        while len(self._kept) >= self._most_entries:
            self._drop(next(iter(self._kept)))
        for place in of.places:
            there = self._places.setdefault(place, [])
            there.append(self._next)
            # A place that many texts share tells nothing: the newest of them will do.
            del there[:-_CANDIDATES]
        self._kept[self._next] = of, value
        self._next += 1

    def _drop(self, number: int) -> None:
        of, _ = self._kept.pop(number)
        for place in of.places:
            there = self._places.get(place, [])
            if number in there:
                there.remove(number)
            if not there:
                self._places.pop(place, None)
