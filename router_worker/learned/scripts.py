"""Scripts: Latin, Cyrillic, Han and so on, and whether a text is in one that was trained on.

A classifier of words has nothing to go by in a script that it never saw. What is left are traits
(`ngrams.TRAITS`), and of these "foreign" makes a sure translation of every Chinese question.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

LATIN: Final = "LATIN"

LEAST_SHARE: Final = 0.01
"""A script of fewer of the features was hardly trained on: a name, a quotation."""

MOST_FOREIGN: Final = 0.5
"""The share of a text's letters in other scripts up to which the rest of it is gone by."""

TELLING_WORDS: Final = 3
MOST_FOREIGN_OF_ALL: Final = 0.9
"""So many words that it can read tell what to do with a longer quotation: "Translate into English:"
and a sentence in Russian. In a whole page they are no more than names."""

_BEYOND_LATIN: Final = re.compile(r"[^\x00-\u024f\u1e00-\u22ff]")
_WORD: Final = re.compile(r"[^\W\d_]{2,}")


@lru_cache(maxsize=4_096)
def script_of(letter: str) -> str:
    """Return the script of a letter as Unicode's names of letters begin: LATIN, CYRILLIC, CJK."""
    return unicodedata.name(letter, "").partition(" ")[0]


def scripts_of(features: Iterable[str]) -> frozenset[str]:
    """Return the scripts of which there is more than a trace in a vocabulary."""
    counts: Counter[str] = Counter()
    for feature in features:
        counts.update(set(map(script_of, filter(str.isalpha, feature))))
    least = LEAST_SHARE * sum(counts.values())
    return frozenset(script for script, count in counts.items() if count >= least)


def is_foreign(gist: str, known: frozenset[str]) -> bool:
    """Return whether too little of a text is in the scripts of `known` to tell what it is about."""
    if LATIN in known and not _BEYOND_LATIN.search(gist):
        return False
    letters = list(filter(str.isalpha, gist))
    readable = sum(script_of(letter) in known for letter in letters)
    foreign = len(letters) - readable
    if foreign <= MOST_FOREIGN * len(letters):
        return False
    if foreign > MOST_FOREIGN_OF_ALL * len(letters):
        return True
    words = {word for word in _WORD.findall(gist) if all(script_of(c) in known for c in word)}
    return len(words) < TELLING_WORDS
