"""The form in which texts are compared."""

import unicodedata
from typing import Final

_APOSTROPHES: Final = str.maketrans("\u2018\u2019\u02bc", "'''")
"""Phones and word processors write these for the one on the keyboard."""


def normal(text: str) -> str:
    """Return a text as it is compared: NFKC, without case, spaces in a row and at ends as one.

    Lines stay lines: lists, code and documents are told by them.
    """
    if text.isascii():
        folded = text.lower()
    else:
        # Without its case a character may be one that NFKC changes.
        folded = unicodedata.normalize("NFKC", text).casefold()
        folded = unicodedata.normalize("NFKC", folded)
    if "\n" not in folded:
        return " ".join(folded.split())
    return "\n".join(" ".join(line.split()) for line in folded.strip().split("\n"))


def phrases(text: str) -> str:
    """Return a text as keywords are looked for in it: its normal form in one line, plain quotes.

    A phrase may be broken over lines, and "can't" is one word however its apostrophe is written.
    """
    if not text.isascii():
        text = normal(text.translate(_APOSTROPHES))
    return " ".join(text.lower().split())
