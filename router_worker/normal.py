"""The form in which texts are compared."""

import unicodedata


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
