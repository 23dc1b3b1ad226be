"""Sentences of a text, found by rules, in time linear in its length."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from model_workers.extractive.blocks import Block, Kind, split_blocks

MAX_SENTENCE_CHARS: Final = 600
"""A longer one (a text without punctuation, mostly) is cut, at a comma or a space if it has one."""

# Stops, then what closes around them, then note marks such as [3]. Each part eats characters
# that the next can't begin with, so nothing is ever tried twice.
_STOP: Final = re.compile(
    r"([.!?…。！？｡؟۔।॥]+(?:\s?['\"’)\]](?!\w)|[”»」』）】])*)(?:\s?\[\d{1,6}\])*"
)
_STOPS: Final = ".!?…。！？｡؟۔।॥"
_WIDE_STOPS: Final = frozenset("。！？｡")
_CLOSERS: Final = "'\"”’»)]」』）】"
_INITIAL: Final = re.compile(r"(?:[^\W\d_]\.){0,5}[^\W\d_]")
_OPENERS: Final = "'\"“‘«([{「『（【¿¡*_`"
_LOOK_BACK: Final = 24

_SPACED_MARK: Final = re.compile(r" (?=[,.;:!?%)](?: |$))")
_SPACED_ENDING: Final = re.compile(r" (?=(?:'(?:s|m|d|re|ve|ll)|n't)\b)", re.IGNORECASE)

_HESITATION: Final = re.compile(
    r"(?:(?:u+h+|u+m+|er+m*|h?m+|o+h+|yeah|yep|okay|ok|alright|you know|i mean)\b[\s,.]{1,4})+",
    re.IGNORECASE,
)

_NEVER_LAST: Final = frozenset(
    "mr mrs ms messrs mx dr prof rev hon gen col capt cpt lt sgt sen rep gov pres st mt mme mlle "
    "e.g i.e eg ie vs v cf viz resp approx ca incl esp z.b".split()
)
_BEFORE_NUMBERS: Final = frozenset(
    "no nos nr fig figs eq eqs sec sect ch chap vol p pp art par para ref refs tab app "
    "jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
_SELDOM_LAST: Final = frozenset(
    "etc al inc ltd co corp bros jr sr dept est ave blvd a.m p.m u.s u.k e.u u.n ph.d m.d b.a m.a "
    "d.c".split()
)
_STARTERS: Final = frozenset(
    "a an the it its this that these those there here he she they we you i his her their our my "
    "in on at as by for from to with of and but so or yet if when while where after before since "
    "because although though however moreover furthermore then thus hence therefore also what why "
    "how who which one some many most all no both each such not now".split()
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a document.

    `text` is a part of the document but for white space. `number` counts from 1 and includes
    headings. `speaker` is empty outside of transcripts.
    """

    text: str
    number: int
    kind: Kind = Kind.PROSE
    speaker: str = ""

    @property
    def complete(self) -> bool:
        """Whether it ends with a full stop or its like."""
        return self.text.rstrip(_CLOSERS)[-1:] in tuple(_STOPS)


def split_sentences(document: str) -> tuple[Sentence, ...]:
    """Return the sentences of `document` in order; those without a letter or digit are left out."""
    cased = any(char.isupper() for char in document)
    tokenized = document.count(" . ") + document.count(" , ") > document.count(". ") // 2
    texts = [
        (_clean(text, spoken=bool(block.speaker), tokenized=tokenized), block)
        for block in split_blocks(document)
        for whole in _sentences(block, cased)
        for text in _cut(whole)
        if any(char.isalnum() for char in text)
    ]
    return tuple(
        Sentence(text, number, block.kind, block.speaker)
        for number, (text, block) in enumerate(texts, 1)
    )


def _sentences(block: Block, cased: bool) -> Iterator[str]:
    text, start = block.text, 0
    for stop in _STOP.finditer(text):
        if _is_end(text, start, stop, cased):
            yield text[start : stop.end(1)].strip()
            start = stop.end()
    if start < len(text):
        yield text[start:].strip()


def _is_end(text: str, start: int, stop: re.Match[str], cased: bool) -> bool:
    """Decide whether the sentence that began at `start` ends with this stop."""
    rest = text[stop.end() : stop.end() + _LOOK_BACK]
    if not rest or text[stop.start()] in _WIDE_STOPS:
        return True
    if not rest[0].isspace():
        return False
    following = rest.lstrip().lstrip(_OPENERS)
    if cased and following[:1].islower():
        return False
    if stop.group(1) != "." or text[max(0, stop.start() - 1)].isspace():
        return True
    return not _is_abbreviation(text, start, stop.start(), following)


def _is_abbreviation(text: str, start: int, dot: int, following: str) -> bool:
    word = text[max(start, dot - _LOOK_BACK) : dot].rpartition(" ")[2].lstrip(_OPENERS)
    lower = word.lower()
    if lower in _NEVER_LAST:
        return True
    if lower in _BEFORE_NUMBERS:
        return following[:1].isdigit()
    if word.isdigit():
        return text[start:dot].strip() == word  # the number of a list item
    if lower in _SELDOM_LAST or (_INITIAL.fullmatch(word) and word not in {"I", "i"}):
        next_word = following.split(" ", 1)[0].rstrip(",").lower()
        return next_word not in _STARTERS
    return False


def _cut(text: str) -> Iterator[str]:
    while len(text) > MAX_SENTENCE_CHARS:
        half = MAX_SENTENCE_CHARS // 2
        ends = (text.rfind(mark, half, MAX_SENTENCE_CHARS) + 1 for mark in ("; ", ", ", "，", " "))
        at = next((end for end in ends if end), MAX_SENTENCE_CHARS)
        yield text[:at].strip()
        text = text[at:].lstrip()
    if text:
        yield text


def _clean(text: str, *, spoken: bool, tokenized: bool) -> str:
    """Drop a speaker's "Um, yeah," and close the gaps of tokenizers: `It 's .` to `It's.`."""
    if spoken and (hesitation := _HESITATION.match(text)):
        text = text[hesitation.end() :] or text
    if tokenized:
        text = _SPACED_ENDING.sub("", _SPACED_MARK.sub("", text))
    return text
