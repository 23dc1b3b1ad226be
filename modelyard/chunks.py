"""Chunks: a long text cut into pieces that each fit a model's window.

Cuts fall where a reader would make them: between paragraphs, else lines, else sentences, else
words, and inside a word only where there is nothing better.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from modelyard.tokens import estimate_tokens

# In order of preference; a cut falls at the end of a match. Each looks at a bounded number of
# characters or at one run of white space, so that searching stays linear.
BOUNDARIES: Final = (
    re.compile(r"\n[ \t]*\n\s*"),
    re.compile(r"\n"),
    # The last are the full stop, exclamation and question mark of Chinese and Japanese.
    re.compile(
        r"(?<=[.!?\u2026])\s|(?<=[.!?\u2026]['\")\]\u201d\u2019])\s|(?<=[\u3002\uff01\uff1f])"
    ),
    re.compile(r"\s"),
)

FILL: Final = 0.9
"""Pieces are planned this full, so that there is room to move a cut to a good place."""

DRIFT: Final = 0.25
"""How far from even a cut may move for a better place, as a fraction of the piece."""


def split(text: str, limit_tokens: int) -> tuple[str, ...]:
    """Return pieces of at most `limit_tokens` each, about equal in size; none for blank text.

    No character is lost but white space at the cuts. A single character that alone is over the
    limit stays as it is. Raises `ValueError` if the limit is below 1.
    """
    if limit_tokens < 1:
        raise ValueError(f"limit_tokens is {limit_tokens}: it must be at least 1")
    pieces: list[str] = []
    waiting = [text]
    while waiting:
        piece = waiting.pop().strip()
        if len(piece) <= 1 or estimate_tokens(piece) <= limit_tokens:
            pieces.extend([piece] if piece else [])
        else:
            # Cuts are planned on a scale of samples; a piece that still is over is cut again.
            waiting.extend(reversed(list(_cut(piece, limit_tokens))))
    return tuple(pieces)


def _cut(text: str, limit_tokens: int) -> Iterator[str]:
    """Yield at least two parts of the text, none of them empty, that together are the text."""
    scale = _Scale(text, limit_tokens)
    full = limit_tokens * FILL
    start = 0
    while (rest := scale.total - (here := scale.tokens(start))) > full:
        even = rest / math.ceil(rest / full)
        low = max(start + 1, scale.position(here + even * (1 - DRIFT)))
        best = max(low, scale.position(here + even))
        high = max(best, scale.position(here + min(even * (1 + DRIFT), limit_tokens)))
        end = _nearest_boundary(text, low, best, high)
        if end >= len(text):
            break
        yield text[start:end]
        start = end
    if start == 0:
        start = len(text) // 2
        yield text[:start]
    yield text[start:]


def _nearest_boundary(text: str, low: int, best: int, high: int) -> int:
    for boundary in BOUNDARIES:
        ends = [match.end() for match in boundary.finditer(text, max(0, low - 1), high)]
        inside = [end for end in ends if low <= end <= high]
        if inside:
            return min(inside, key=lambda end: abs(end - best))
    return best


class _Scale:
    """Tokens up to each position of a text, from estimates of short samples of it.

    The samples' estimates are scaled to that of the whole text, because each is rounded.
    """

    def __init__(self, text: str, limit_tokens: int) -> None:
        self._size = max(8, min(256, limit_tokens))
        self._length = len(text)
        self.total = float(estimate_tokens(text))
        sums = [0.0]
        for start in range(0, len(text), self._size):
            sums.append(sums[-1] + max(1, estimate_tokens(text[start : start + self._size])))
        self._sums = [value * self.total / sums[-1] for value in sums]

    def tokens(self, position: int) -> float:
        """Return the tokens before `position`."""
        index, beyond = divmod(position, self._size)
        if index + 1 >= len(self._sums):
            return self._sums[-1]
        size = min(self._size, self._length - index * self._size)
        return self._sums[index] + (self._sums[index + 1] - self._sums[index]) * beyond / size

    def position(self, tokens: float) -> int:
        """Return the position with that many tokens before it."""
        index = bisect_right(self._sums, tokens) - 1
        if index + 1 >= len(self._sums):
            return self._length
        size = min(self._size, self._length - index * self._size)
        share = (tokens - self._sums[index]) / (self._sums[index + 1] - self._sums[index])
        return index * self._size + int(share * size)
