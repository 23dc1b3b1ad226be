"""Lead: the first sentences that say something. Hard to beat on news, and as fast as reading."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from model_workers.extractive.blocks import Kind
from model_workers.extractive.sentences import Sentence
from model_workers.extractive.words import content_words

MIN_SPOKEN_WORDS: Final = 4
"""Content words that a spoken sentence needs, or it is taken for filler ("Yeah, OK.")."""

ENOUGH: Final = 3
"""With so many sentences left, or half of them, headers and rows of tables are done without."""

ROW_CHARS: Final = 60
"""Prose without a full stop that is shorter is a row of a table, a date, a signature."""

_HEADER: Final = re.compile(r"[^\W\d_][\w-]{0,20}(?: [\w-]{1,20}){0,2}: ")
"""How a line like `Reply-To: ann@example.org` begins."""


def worth_picking(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Return the sentences that may stand in a summary; all of them if none is better.

    Left out are headings, headers of mails and rows of tables, and in transcripts filler and turns
    that were broken off.
    """
    kept = [sentence for sentence in sentences if _is_worth_it(sentence)]
    speech = any(sentence.speaker for sentence in sentences)
    told = [sentence for sentence in kept if not _is_header_or_row(sentence, speech=speech)]
    if len(told) >= ENOUGH or 2 * len(told) >= len(kept) > 0:
        kept = told
    return kept or list(sentences)


def lead_order(sentences: Sequence[Sentence]) -> Iterator[Sentence]:
    """Yield the candidates for a summary, best first: here, in the order of the document."""
    yield from worth_picking(sentences)


def _is_worth_it(sentence: Sentence) -> bool:
    if sentence.kind is Kind.HEADING:
        return False
    if not sentence.speaker:
        return True
    words = set(content_words(sentence.text, speech=True))
    return sentence.complete and len(words) >= MIN_SPOKEN_WORDS


def _is_header_or_row(sentence: Sentence, *, speech: bool) -> bool:
    """Whether this is a line around the text: prose, but no whole sentence."""
    if sentence.kind is not Kind.PROSE or sentence.speaker or sentence.complete:
        return False
    # Above a transcript stand its title, date and names; the shorter ones have a label.
    return speech or len(sentence.text) < ROW_CHARS or _HEADER.match(sentence.text) is not None
