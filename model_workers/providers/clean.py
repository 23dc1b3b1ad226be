"""Making what a provider says fit for answers and logs."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

MESSAGE_CHARS: Final = 300
"""Longest part of a provider's own error message that is passed on."""


def encodable(text: str) -> str:
    """Replace lone surrogates, which a JSON escape can hold but no encoding can."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean(text: str, secrets: Sequence[str], prompts: Iterable[str]) -> str:
    """Return `text` fit for logs: without secrets and the prompt, on one line, cut short."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = text[: 8 * MESSAGE_CHARS]
    for private in (*secrets, *prompts):
        text = without_echo(text, private)
    line = " ".join(encodable(text).split())
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"


_BLOCK: Final = 12


def without_echo(text: str, private: str) -> str:
    """Blank out in `text` what it repeats of `private`; no run of 23 characters of it is left.

    Some servers echo the input in their error messages: whole, cut or escaped. A run of 23
    characters holds a whole block of 12 that begins at a multiple of 12 in `private`; looking up
    all these blocks takes milliseconds for megabytes.
    """
    places: dict[str, list[int]] = {}
    for at in range(len(text) - _BLOCK + 1):
        places.setdefault(text[at : at + _BLOCK], []).append(at)
    echoed = bytearray(len(text))
    for begin in range(0, len(private) - _BLOCK + 1, _BLOCK):
        for at in places.pop(private[begin : begin + _BLOCK], ()):
            echoed[at : at + _BLOCK] = b"x" * _BLOCK
    kept: list[str] = []
    for hidden, run in itertools.groupby(zip(echoed, text, strict=True), key=lambda pair: pair[0]):
        kept.append("[...]" if hidden else "".join(char for _, char in run))
    return "".join(kept)
