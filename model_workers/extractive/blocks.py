"""Blocks: paragraphs, list items, headings and spoken turns, found from a text's lines."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

# All patterns are anchored and bounded: their cost does not depend on the length of the line.
_ITEM: Final = re.compile(r"(?:[-*+•‣◦▪·–—]|\d{1,3}[.)]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{2,4})\))\s+")
_TIME: Final = re.compile(r"[\[(]?\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d{1,3})?[\])]?\s{1,4}")
_LABEL: Final = re.compile(r"[^\W_][^:：!?;\"\[\]{}]{0,99}(?=[:：])")
_TITLE_CHARS: Final = 5

_WRAPPED: Final = range(40, 121)
"""Characters in a line that may have been broken only to fit a page."""


class Kind(Enum):
    """What a block is in its text."""

    PROSE = auto()
    ITEM = auto()
    HEADING = auto()


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together. `speaker` is empty outside of transcripts."""

    text: str
    kind: Kind = Kind.PROSE
    speaker: str = ""


def split_blocks(document: str) -> list[Block]:
    """Return the blocks of `document`, in order, with white space collapsed."""
    lines = [line.strip() for line in document.splitlines()]
    if _is_transcript(lines):
        return list(_turns(lines))
    return list(_paragraphs(lines))


def _turn(line: str) -> tuple[str, str] | None:
    """Return speaker and words of a line such as `[00:12] Dr. May (York, GP): Right .`."""
    if stamp := _TIME.match(line):
        line = line[stamp.end() :]
    label = _LABEL.match(line)
    if label is None:
        return None
    said = line[label.end() + 1 :]
    # `http://x` and `key:value` are no speech.
    if said and not said[0].isspace() and line[label.end()] == ":":
        return None
    name, bracket, role = (part.strip() for part in label.group().partition("("))
    if (bracket and not role.endswith(")")) or not _is_name(name):
        return None
    return name, said.strip()


def _is_name(text: str) -> bool:
    """A few words with a capital, where the script has them; full stops only in titles."""
    words = text.split()
    return (
        0 < len(words) <= 5
        and len(text) <= 40
        and "," not in text
        and not text[0].islower()
        and all("." not in word[:-1] and len(word) <= _TITLE_CHARS for word in words if "." in word)
    )


def _is_transcript(lines: list[str]) -> bool:
    """Half of the lines are labelled, and some label comes back."""
    filled = [line for line in lines if line]
    speakers = [turn[0] for turn in map(_turn, filled) if turn]
    return 2 * len(speakers) >= max(len(filled), 4) and len(set(speakers)) < len(speakers)


def _turns(lines: list[str]) -> Iterator[Block]:
    speaker, said = "", list[str]()
    for line in lines:
        if turn := _turn(line):
            if said:
                yield Block(_join(said), speaker=speaker)
            speaker, said = turn[0], [turn[1]] if turn[1] else []
        elif line:
            said.append(line)
    if said:
        yield Block(_join(said), speaker=speaker)


def _paragraphs(lines: list[str]) -> Iterator[Block]:
    held: list[str] = []
    kind = Kind.PROSE
    for at, line in enumerate(lines):
        item = _ITEM.match(line)
        starts = item is not None or not _has_words(line) or _is_heading(lines, at)
        if held and (starts or not _continues(held[-1], line)):
            yield Block(_join(held), kind)
            held, kind = [], Kind.PROSE
        if not _has_words(line):
            continue
        if _is_heading(lines, at):
            yield Block(" ".join(line.strip("#").split()), Kind.HEADING)
        elif item:
            held, kind = [line[item.end() :]], Kind.ITEM
        else:
            held.append(line)
    if held:
        yield Block(_join(held), kind)


def _has_words(line: str) -> bool:
    return any(char.isalnum() for char in line)


def _is_heading(lines: list[str], at: int) -> bool:
    """A line with `#`, or a short one without a full stop that stands before an empty line."""
    line = lines[at]
    if line.startswith("#"):
        return line.lstrip("#")[:1].isspace()
    if not line or len(line) > 80 or line[-1] in ".!?,;…。！？" or ". " in line:
        return False
    above = lines[at - 1] if at else ""
    below = lines[at + 1] if at + 1 < len(lines) else ""
    ruled = bool(below) and not below.strip("=-~")
    return not above and (not below or ruled) and line[0].isalnum()


def _continues(line: str, following: str) -> bool:
    return following[:1].islower() or (len(line) in _WRAPPED)


def _join(lines: list[str]) -> str:
    text = " ".join(lines)
    return " ".join(text.split())
