"""The shape of a prompt: its lengths, numbers, signs and kinds of words, whatever its topic.

What a prompt is about is in its words (`ngrams.py`); how hard it is shows also in how it is
built. Counts and lengths are taken as log(1 + n): the second number of a prompt says more than
the twentieth.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

KINDS: Final = {
    "negation": "not never least except incorrect false none",
    "part": "half twice thrice double triple third quarter fifth times percent fraction ratio",
    "every": "each every per total altogether all",
    "compare": "more less fewer than remaining left rest after before then if",
    "time": "second seconds minute minutes hour hours day days week weeks month months year years",
    "money": "dollar dollars cent cents cost costs price prices pay pays paid earn earns earned",
}
"""Kinds of words that are counted: what makes a question tricky, or a word problem long."""

STARTS: Final = {
    "what": "what what's",
    "which": "which",
    "who": "who whose whom",
    "when": "when where",
    "how": "how why",
    "if": "if let suppose a an",
}
"""Kinds of first words."""

SIGNS: Final = ("$", "\\", "%", "(", '"', ",", ";", ":", "-", "_", "?")
OPERATORS: Final = b"=+*/^<>|"

_KIND = {word: kind for kind, words in KINDS.items() for word in words.split()}
_START = {word: kind for kind, words in STARTS.items() for word in words.split()}
_DIGITS = b"0123456789"
_CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_DECIMAL = re.compile(r"\d[.,]\d")
_FRACTION = re.compile(r"\d/\d")
_OPTION = re.compile(r"^[ \t]*\(?([A-J])[.):][ \t]*(.*)$", re.MULTILINE)
_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"\w+")
_SHOUTED = re.compile(r"\b(?:NOT|EXCEPT|LEAST|MOST|FALSE|INCORRECT)\b")

COUNTS: Final = (
    "characters",
    "words",
    "distinct words",
    "numbers",
    "distinct numbers",
    "digits of the longest number",
    "decimals",
    "fractions",
    "operators",
    "sentences",
    "words of the longest sentence",
    "lines",
    "characters of the longest line",
    "characters of the shortest line",
    "characters of the first line",
    "characters of the last line",
    "characters beyond ASCII",
    "shouted",
    "options",
    "characters of the options",
    "characters of the longest option",
    "characters of the shortest option",
    "spread of the options",
    "characters before the options",
    *(f"sign {sign}" for sign in SIGNS),
    *(f"kind {kind}" for kind in KINDS),
)
SHARES: Final = (
    "characters of a word",
    "long words",
    "distinct words to words",
    "numbers to words",
    "capitals",
    "digits",
    "all options have numbers",
    "distinct words of the options",
    "an option of the above",
    *(f"starts with {kind}" for kind in STARTS),
)
NAMES: Final = COUNTS + SHARES
"""What each number of a shape is. A model that was trained with other names can't be used."""

LONG_WORD_CHARS: Final = 8


def shape(gist: str, words: Sequence[str]) -> NDArray[np.float32]:
    """Return the shape of a prompt: an array of `len(NAMES)` finite numbers.

    `gist` is what is read of the prompt and `words` its case-folded words and punctuation marks
    (`ngrams.gist`, `ngrams.words`).
    """
    raw = gist.encode("ascii", "ignore")
    lines = list(map(len, gist.split("\n")))
    numbers = [word for word in words if "0" <= word[0] <= "9"]
    lengths = [len(word) for word in words if len(word) > 1 and word[0] > "9"]
    kinds = Counter(map(_KIND.get, words))
    sentences = len(_SENTENCE_END.findall(gist))
    options = list(_OPTION.finditer(gist)) if "\nB" in gist or "(B" in gist else []
    n_chars, n_words, distinct = len(gist) + 1, len(words) + 1, len(set(words))
    digits = len(raw) - len(raw.translate(None, _DIGITS))
    capitals = len(raw) - len(raw.translate(None, _CAPITALS))
    counts = [
        len(gist),
        len(words),
        distinct,
        len(numbers),
        len(set(numbers)),
        max(map(len, numbers), default=0),
        len(_DECIMAL.findall(gist)) if digits else 0,
        len(_FRACTION.findall(gist)) if b"/" in raw else 0,
        len(raw) - len(raw.translate(None, OPERATORS)),
        sentences,
        len(words) / (sentences + 1),
        len(lines),
        max(lines),
        min(lines),
        lines[0],
        lines[-1],
        len(gist) - len(raw),
        len(_SHOUTED.findall(gist)) if capitals > 2 else 0,
        *_option_counts(options),
        *map(gist.count, SIGNS),
        *(kinds[kind] for kind in KINDS),
    ]
    first = _START.get(words[0]) if words else None
    shares = [
        sum(lengths) / (len(lengths) or 1),
        len([length for length in lengths if length > LONG_WORD_CHARS]) / n_words,
        distinct / n_words,
        len(numbers) / n_words,
        capitals / n_chars,
        digits / n_chars,
        *_option_shares(options),
        *(float(first == kind) for kind in STARTS),
    ]
    found = np.array(counts + shares, np.float32)
    np.log1p(found[: len(COUNTS)], out=found[: len(COUNTS)])
    return found


def _option_counts(options: Sequence[re.Match[str]]) -> tuple[float, ...]:
    """Return how many options there are, how long, how unlike, and how long what is before is."""
    if not options:
        return (0, 0, 0, 0, 0, 0)
    lengths = [len(option[2]) for option in options]
    mean = sum(lengths) / len(lengths)
    spread = (sum((each - mean) ** 2 for each in lengths) / len(lengths)) ** 0.5
    return (
        len(options),
        sum(lengths),
        max(lengths),
        min(lengths),
        spread,
        options[0].start(),
    )


def _option_shares(options: Sequence[re.Match[str]]) -> tuple[float, float, float]:
    """Return whether all options have numbers, their distinct words, whether one is "... above"."""
    if not options:
        return (0.0, 0.0, 0.0)
    texts = [option[2] for option in options]
    words = _WORD.findall(" ".join(texts))
    return (
        float(all(map(_DIGIT.search, texts))),
        len(set(words)) / (len(words) + 1),
        float(any("of the above" in text for text in texts)),
    )
