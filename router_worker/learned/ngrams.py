"""From a text to its features: the words, what stands next to what, and pieces of words.

A feature is a text itself (its key), so that a model can be read and a key needs no hashing:

```
=refund                a word
my card  my _ card     two words, side by side and with one between
^how  ^how much  $usd  the first word, the first two, the last word
~digits                a trait of the whole text, see `TRAITS`
" ref", "efu", "und "  pieces of 3 to 5 characters of a word, with a space at its ends
```

Pieces make the features robust: "refunded" and "refnud" share most of theirs with "refund".
Python only, and the same for training and deciding.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

HEAD_CHARS: Final = 2_000
TAIL_CHARS: Final = 500
"""What is asked stands at the beginning or the end; the document between is not read for it."""

PIECE_CHARS: Final = range(3, 6)
"""The lengths of pieces of words."""

MAX_WORD_CHARS: Final = 40
"""Of a longer word (a link, a key, a script without spaces) only the beginning is cut to pieces."""

LONG_CHARS: Final = (200, 800)
"""From where a text counts as long, and as very long."""

_WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
_UNSEEN = str.maketrans("´", "'", "\u00ad")
"""NFKC would make a space and an accent of the first; nobody sees soft hyphens in words."""
_APOSTROPHES = str.maketrans("’‘`´", "''''")

TRAITS: Final = {
    "digits": re.compile(r"\d"),
    "operator": re.compile(r"[\w)][ \t]*[-+*/^=<>][ \t]*[\d(]|[√∑∫≤≥±×÷]|\\[a-z]+\{"),
    "code": re.compile(
        r"```|[;{}][ \t]*$|(?<=\w)\([^()\n]{0,80}\)|</\w+>|^[ \t]*(?:def|import|class)\s",
        re.MULTILINE,
    ),
    "quote": re.compile(r"[\"“”«»„'](?:(?<!')|(?<!\w')[^'\n]+'(?!\w))"),
    "options": re.compile(r"^[ \t]*\(?[A-Da-d][.)][ \t]", re.MULTILINE),
    "list": re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]", re.MULTILINE),
    "block": re.compile(r":[ \t]*\n|\n[ \t]*\n"),
    "foreign": re.compile(r"[^\x00-\u024f\u2000-\u22ff]"),
    "question": re.compile(r"\?\s*$"),
}
"""What may be true of a whole text: the name of the trait, and what is looked for."""

HINTS: Final = {
    "operator": re.compile(r"[-+*/^=<>√∑∫≤≥±×÷\\](?:(?<=[√∑∫≤≥±×÷\\])|[ \t]*[\d(])"),
    "code": re.compile(r"[`;{}(<]|(?:d(?=ef\s)|i(?=mport\s)|c(?=lass\s))"),
}
"""What must be found for a trait to be there, where looking for that is several times as fast."""

_UNCOMMON = re.compile(r"[^A-Za-z ,.]")


def gist(text: str) -> str:
    """Return what is read of a text: all of it, or the head and the tail of a long one."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n\n{text[-TAIL_CHARS:]}"
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_UNSEEN)).translate(_APOSTROPHES)
    # One character can become 18 by normalizing.
    return text[: HEAD_CHARS + TAIL_CHARS + 2]


def words(gist: str) -> list[str]:
    """Return the words and punctuation marks of a gist, in order, with their case folded."""
    return _WORD.findall(gist.casefold())


def word_keys(gist: str, found: list[str]) -> Iterator[str]:
    """Yield the keys of words, of words side by side, and of traits; `found` is from `words`."""
    if not found:
        return
    yield from map("=".__add__, found)
    yield from map(" ".join, pairwise(found))
    yield from map(" _ ".join, zip(found, found[2:], strict=False))
    yield f"^{found[0]}"
    yield "^" + " ".join(found[:2])
    yield f"${found[-1]}"
    if _UNCOMMON.search(gist):  # most short texts have no trait: one search tells
        for name, pattern in TRAITS.items():
            hint = HINTS.get(name)
            if (hint is None or hint.search(gist)) and pattern.search(gist):
                yield f"~{name}"
    for length in LONG_CHARS:
        if len(gist) >= length:
            yield f"~{length} characters"


def pieces(word: str) -> list[str]:
    """Return the pieces of a word; a punctuation mark has none."""
    if len(word) == 1 and not word.isalnum():
        return []
    padded = f" {word[:MAX_WORD_CHARS]} "
    ends = len(padded) + 1
    return [padded[i : i + n] for n in PIECE_CHARS for i in range(ends - n)]
