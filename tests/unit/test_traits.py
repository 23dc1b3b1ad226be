"""Traits of a text: what is one, and that looking for less first misses none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_worker.learned.ngrams import HINTS, TRAITS, gist, word_keys, words


def traits(text: str) -> set[str]:
    return {key for key in word_keys(gist(text), words(text)) if key.startswith("~")}


@given(st.text(st.sampled_from("ab1 \t\n()'\"“;{}<>/=+-`.?√\\é")), st.sampled_from(sorted(HINTS)))
def test_where_there_is_a_trait_there_is_its_hint(text: str, name: str) -> None:
    if TRAITS[name].search(text):
        assert HINTS[name].search(text)


@pytest.mark.parametrize(
    "text",
    [
        "def f(): pass",
        "  import os\nprint",
        "class\tA",
        "call f(x) now",
        "`````",
        "end;",
        "a {\n",
        "go</b>",
    ],
)
def test_code(text: str) -> None:
    assert "~code" in traits(text)


@pytest.mark.parametrize("text", ["3 + 4", "f(x) = (y", "a^2", "√x", "\\frac{1", "b  /\t2"])
def test_operators(text: str) -> None:
    assert "~operator" in traits(text)


@pytest.mark.parametrize(
    "text", ["he said 'no'", "'yes' it is", '5" long', "„so“", "don't 'do' it"]
)
def test_quotes(text: str) -> None:
    assert "~quote" in traits(text)


@pytest.mark.parametrize(
    "text", ["don't", "the cats' and the dogs' food", "rock 'n roll", "''", "it's his'n"]
)
def test_apostrophes_are_no_quotes(text: str) -> None:
    assert "~quote" not in traits(text)


@pytest.mark.parametrize("text", ["well-known", "and/or", "an (easy) one", "define it: classic"])
def test_prose_is_neither_code_nor_an_operation(text: str) -> None:
    assert not traits(text) & {"~code", "~operator"}


def test_an_accent_in_place_of_an_apostrophe_and_soft_hyphens_change_no_word() -> None:
    for typed in ("I can\u00b4t re\u00adturn it", "I can\u2019t return it\u00ad"):
        assert gist(typed) == "I can't return it"
    assert gist("\u00bd \u2026 ﬁn `x´") == "1\u20442 ... fin 'x'"
