"""The form in which texts are compared."""

import unicodedata
from typing import Final

_APOSTROPHES: Final = str.maketrans("\u2018\u2019\u02bc\u00b4", "''''", "\u00ad")
"""Phones and word processors write these for the one on the keyboard; of the last one NFKC makes a
space and an accent. Soft hyphens they write into words, and nobody sees them."""
_NUMERO: Final = "\u2116"
"""NFKC makes the word "no" of it."""


def normal(text: str) -> str:
    """Return a text as it is compared: NFKC, without case, spaces in a row and at ends as one.

    Lines stay lines: lists, code and documents are told by them.
    """
    folded = fold(text)
    if "\n" not in folded:
        return " ".join(folded.split())
    return "\n".join(" ".join(line.split()) for line in folded.strip().split("\n"))


def phrases(text: str) -> str:
    """Return a text as keywords are looked for in it: its normal form in one line, plain quotes.

    A phrase may be broken over lines, and "can't" is one word however its apostrophe is written.
    """
    if not text.isascii():
        plain = text.translate(_APOSTROPHES)
        # Nothing but soft hyphens stays that: an empty keyword would match everything.
        parts = (plain if plain.strip() else text).split(_NUMERO)
        text = _NUMERO.join(fold(part) for part in parts)
    return " ".join(text.lower().split())


def fold(text: str) -> str:
    """Return a text in NFKC and without case."""
    if text.isascii():
        return text.lower()
    # Without its case a character may be one that NFKC changes.
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded)
