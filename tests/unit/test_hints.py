"""Hints make features quicker to read, and change none of them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_worker import features
from router_worker.features import Hint

PAIRS = {
    "code": (features._CODE, features._CODE_HINT),
    "math": (features._MATH, features._MATH_HINT),
    "steps": (features._STEPS, features._STEPS_HINT),
    "logic": (features._LOGIC, features._LOGIC_HINT),
    "long": (features._LONG_ASKED, features._LONG_HINT),
    "short": (features._SHORT_ASKED, features._SHORT_HINT),
}
PIECES = [
    *{piece for _, hint in PAIRS.values() for piece in (*hint.words, *hint.pieces)},
    *("x", "7", "12", "(", ")", "b", "c++11", "from", "stack", "trace", "step-by-step", "by"),
    *("trade-offs", "tradeoff", "in", "detail", "only", "number", "answer", "many", "much"),
    *("at", "least", "yes", "no", "true", "\u0663", "ö", "_", "\n"),
]
TEXTS = st.lists(st.tuples(st.sampled_from(sorted(PIECES)), st.sampled_from(["", " ", "-", "\n"])))


@pytest.mark.parametrize("name", PAIRS)
@given(pieces=TEXTS)
@settings(max_examples=300)
def test_a_text_in_which_the_pattern_is_has_the_hint(
    name: str, pieces: list[tuple[str, str]]
) -> None:
    pattern, hint = PAIRS[name]
    text = "".join(piece + space for piece, space in pieces)

    if pattern.search(text):
        assert hint.given(text, words_of(text))


def words_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


def test_a_hint_is_given_by_any_word_or_piece() -> None:
    hint = Hint(frozenset({"one"}), ("two three",))
    for text, given_there in (("one", True), ("a two three", True), ("ones two", False)):
        assert hint.given(text, words_of(text)) is given_there
