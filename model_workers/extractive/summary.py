"""Summary: as many of the best sentences as asked for, in the order of the document."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from model_workers.extractive.blocks import Kind
from model_workers.extractive.sentences import Sentence, split_sentences
from modelyard.tokens import estimate_tokens

Order = Callable[[Sequence[Sentence]], Iterator[Sentence]]
"""An algorithm: yields the candidates for a summary, best first."""

MOST_SENTENCES: Final = 10
"""The longest summary that nobody asked for."""
MOST_ASKED: Final = 200
"""The longest summary at all: each sentence costs a pass over the candidates."""
MOST_MISSES: Final = 5
"""Candidates that may be too long in a row; further down they say ever less."""


@dataclass(frozen=True, slots=True)
class Length:
    """Upper limits of a summary, source marks included; `None` for no limit of that kind."""

    sentences: int | None = None
    words: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The chosen sentences in document order.

    `text` is what to show: each sentence with its number, or speaker and number. `cut` says that
    not even one sentence fitted, and that `text` is only the start of one.
    """

    sentences: tuple[Sentence, ...]
    text: str
    cut: bool = False


def summarize(document: str, order: Order, length: Length | None = None) -> Summary:
    """Return the summary of `document`; empty if the document has no letter or digit.

    A document of one sentence is its own summary. Without a limit of sentences or words the
    summary has about a tenth of the sentences: 3 at least, `MOST_SENTENCES` at most, and never
    more than half.
    """
    length = length or Length()
    sentences = split_sentences(document)
    if not sentences:
        return Summary((), "")
    if len(sentences) == 1 and _fits(document.strip(), length):
        return Summary(sentences, document.strip())
    limit = length.sentences or (MOST_ASKED if length.words else _usual(len(sentences)))
    chosen = sorted(_choose(order(sentences), limit, length), key=lambda s: s.number)
    if not chosen:
        best = next(order(sentences))
        return Summary((best,), _start(best.text, length), cut=True)
    return Summary(tuple(chosen), render(chosen))


def render(sentences: Sequence[Sentence]) -> str:
    """Return the sentences with their sources: running text, or lines for speech and lists."""
    in_lines = any(s.speaker or s.kind is Kind.ITEM for s in sentences)
    return ("\n" if in_lines else " ").join(map(_marked, sentences))


def _marked(sentence: Sentence) -> str:
    before = "- " if sentence.kind is Kind.ITEM else ""
    if sentence.speaker:
        before = f"{sentence.speaker}: "
    return f"{before}{sentence.text} [{sentence.number}]"


def _usual(sentences: int) -> int:
    return max(1, min(max(3, sentences // 10), MOST_SENTENCES, sentences // 2))


def _fits(text: str, length: Length) -> bool:
    return (length.words is None or len(text.split()) <= length.words) and (
        length.tokens is None or estimate_tokens(text) <= length.tokens
    )


def _choose(best_first: Iterator[Sentence], limit: int, length: Length) -> list[Sentence]:
    """Return at most `limit` sentences, leaving out those that would not fit."""
    chosen: list[Sentence] = []
    words = tokens = misses = 0
    for sentence in best_first:
        line = _marked(sentence)
        more_words = words + len(line.split())
        more_tokens = tokens + estimate_tokens(line + " ")
        if (length.words is not None and more_words > length.words) or (
            length.tokens is not None and more_tokens > length.tokens
        ):
            misses += 1
        else:
            chosen.append(sentence)
            words, tokens, misses = more_words, more_tokens, 0
        if len(chosen) >= min(limit, MOST_ASKED) or misses > MOST_MISSES:
            break
    return chosen


def _start(text: str, length: Length) -> str:
    """Return the start of a sentence that is too long, ending at a space if it has one."""
    if length.words is not None:
        text = " ".join(text.split()[: length.words])
    while text and length.tokens is not None and (tokens := estimate_tokens(text)) > length.tokens:
        end = min(len(text) - 1, len(text) * length.tokens // tokens)
        # One further: a space there means that the last word is whole.
        text = text[: end + 1].rpartition(" ")[0] or text[:end]
    return text
