"""Embeddings of the tests of the answer cache: how often each letter is there."""

from collections.abc import Sequence


def letters(texts: Sequence[str]) -> list[list[int]]:
    """Return a row for each text."""
    return [[text.lower().count(each) for each in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
