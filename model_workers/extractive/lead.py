"""Lead: the first sentences that say something. Hard to beat on news, and as fast as reading."""

from collections.abc import Iterator, Sequence
from typing import Final

from model_workers.extractive.blocks import Kind
from model_workers.extractive.sentences import Sentence
from model_workers.extractive.words import content_words

MIN_SPOKEN_WORDS: Final = 4
"""Content words that a spoken sentence needs, or it is taken for filler ("Yeah, OK.")."""


def worth_picking(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Return the sentences that may stand in a summary; all of them if none is better.

    Left out are headings, and in transcripts filler and turns that were broken off.
    """
    kept = [sentence for sentence in sentences if _is_worth_it(sentence)]
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
