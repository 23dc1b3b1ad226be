"""Centroid: the sentences nearest to what the whole text is about, without repetition.

TF-IDF vectors with the sentence as the document, their cosine to the centroid (Radev et al.,
"Centroid-based summarization of multiple documents", 2004), chosen by maximal marginal relevance
(Carbonell and Goldstein, 1998). Position, headings and cue phrases count a little, as in
Edmundson, "New methods in automatic extracting", 1969.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from model_workers.extractive.blocks import Kind
from model_workers.extractive.lead import worth_picking
from model_workers.extractive.sentences import Sentence
from model_workers.extractive.words import WORD, content_words

Vector = Mapping[str, float]

RELEVANCE_SHARE: Final = 0.6
"""What relevance counts in the choice; the rest counts against likeness to sentences chosen."""
POSITION_BONUS: Final = 0.1
"""For the first sentence; the n-th gets 1/n of it. In speech the start is small talk: none."""
CUE_BONUS: Final = 0.2
QUESTION_PENALTY: Final = 0.15
STUMBLE_PENALTY: Final = 0.05
"""For each "uh", broken word or repetition in a spoken sentence, up to `MAX_STUMBLES`."""
MAX_STUMBLES: Final = 6
DANGLING_PENALTY: Final = 0.05
"""For a sentence that leans on the one before it ("However, they ...", "and then ...")."""
EASY_WORDS: Final = 30
"""A sentence that is twice as long loses `LENGTH_PENALTY`."""
LENGTH_PENALTY: Final = 0.05
HEADING_WEIGHT: Final = 2.0
"""A heading counts as this many sentences in the centroid."""

_LEANING: Final = frozenset(
    "and but or so because 'cause cause which then also thus hence therefore however moreover "
    "furthermore additionally besides otherwise this that these those it they he she him her them "
    "such or maybe".split()
)
_HESITATIONS: Final = frozenset({"uh", "um", "er", "erm", "hmm", "mean", "like", "kinda", "dunno"})

# The gaps are bounded, so that a search stays linear in the sentence.
_WRITTEN_CUE: Final = re.compile(
    r"\bin (?:this|the present) (?:paper|work|article|study|report)\b"
    r"|\b(?:we|this|our|here|paper|work|article|study|report|authors?)\b.{0,60}?"
    r"\b(?:propos|present|introduc|develop|show|demonstrat|describ|stud[iy]|investigat|explor"
    r"|find|found|provid|address|suggest|argue|conclud|recommend|announc)"
    r"|\b(?:in conclusion|in summary|to summari[sz]e|as a result)\b",
    re.IGNORECASE,
)
_SPOKEN_CUE: Final = re.compile(
    r"\b(?:decid|agree|conclu|propos|suggest|recommend|summar|important|main|plan|goal|problem"
    r"|issue|deadline|should|need to|because|next (?:step|meeting|week|time))",
    re.IGNORECASE,
)


def centroid_order(sentences: Sequence[Sentence]) -> Iterator[Sentence]:
    """Yield the candidates for a summary, best first, each chosen in view of those before it.

    One step takes time linear in the number of candidates and of words they share.
    """
    speech = any(sentence.speaker for sentence in sentences)
    candidates = worth_picking(sentences)
    headings = [sentence for sentence in sentences if sentence.kind is Kind.HEADING]
    vectors = _vectors([content_words(s.text, speech=speech) for s in (*candidates, *headings)])
    own, titles = vectors[: len(candidates)], vectors[len(candidates) :]
    relevance = _nearness(own, _centroid(own, titles))
    scores = [
        near + _bonus(sentence, place, speech)
        for place, (near, sentence) in enumerate(zip(relevance, candidates, strict=True), 1)
    ]
    for at in _mmr(scores, own):
        yield candidates[at]


def _vectors(documents: Sequence[Sequence[str]]) -> list[Vector]:
    """Return the TF-IDF vectors, each of length 1 (or empty).

    tf = 1 + ln(count), idf = 1 + ln((1 + n) / (1 + df)).
    """
    frequency = Counter(term for terms in documents for term in set(terms))
    total = 1 + len(documents)
    idf = {term: 1.0 + math.log(total / (1 + count)) for term, count in frequency.items()}
    vectors: list[Vector] = []
    for terms in documents:
        weights = {
            term: (1.0 + math.log(count)) * idf[term] for term, count in Counter(terms).items()
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        vectors.append({term: weight / length for term, weight in weights.items()})
    return vectors


def _centroid(sentences: Sequence[Vector], headings: Sequence[Vector]) -> Vector:
    total: defaultdict[str, float] = defaultdict(float)
    for vectors, times in ((sentences, 1.0), (headings, HEADING_WEIGHT)):
        for vector in vectors:
            for term, weight in vector.items():
                total[term] += times * weight
    return total


def _nearness(vectors: Sequence[Vector], centroid: Vector) -> list[float]:
    """Return each vector's likeness to the centroid, as a share of the nearest one's."""
    products = [sum(w * centroid[term] for term, w in vector.items()) for vector in vectors]
    nearest = max(products, default=0.0) or 1.0
    return [product / nearest for product in products]


def _bonus(sentence: Sentence, place: int, speech: bool) -> float:
    words = WORD.findall(sentence.text.lower())
    bonus = -LENGTH_PENALTY * max(0.0, len(words) / EASY_WORDS - 1.0)
    if sentence.text.endswith(("?", "？", "؟")):
        bonus -= QUESTION_PENALTY
    if words and (words[0] in _LEANING or sentence.text[0].islower()):
        bonus -= DANGLING_PENALTY
    if (_SPOKEN_CUE if speech else _WRITTEN_CUE).search(sentence.text):
        bonus += CUE_BONUS
    if speech:
        return bonus - STUMBLE_PENALTY * min(MAX_STUMBLES, _stumbles(words))
    return bonus + POSITION_BONUS / place


def _stumbles(words: Sequence[str]) -> int:
    return sum(
        word == before or word in _HESITATIONS or (len(word) == 1 and word not in "ai")
        for before, word in zip(("", *words), words, strict=False)
    )


def _mmr(scores: Sequence[float], vectors: Sequence[Vector]) -> Iterator[int]:
    """Yield the positions by maximal marginal relevance."""
    postings: defaultdict[str, list[int]] = defaultdict(list)
    for at, vector in enumerate(vectors):
        for term in vector:
            postings[term].append(at)
    likeness = [0.0] * len(scores)
    left = set(range(len(scores)))
    while left:
        best = max(
            left,
            key=lambda at: (
                RELEVANCE_SHARE * scores[at] - (1.0 - RELEVANCE_SHARE) * likeness[at],
                -at,
            ),
        )
        yield best
        left.remove(best)
        products: defaultdict[int, float] = defaultdict(float)
        for term, weight in vectors[best].items():
            for at in postings[term]:
                products[at] += weight * vectors[at][term]
        for at, product in products.items():
            likeness[at] = max(likeness[at], product)
