"""Cutting long texts: every piece fits, nothing is lost, and cuts fall where a reader would cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard import chunks
from modelyard.chunks import split
from modelyard.tokens import estimate_tokens

SENTENCE = "The pump was stopped at noon, and the night shift found the valve open. "
PARAGRAPH = (SENTENCE * 4).strip()
REPORT = "\n\n".join([PARAGRAPH] * 40)

prose = st.lists(
    st.sampled_from(
        [
            "word",
            "a",
            "Ende.",
            "why?",
            "日本語",
            "。",
            "\n",
            "\n\n",
            " ",
            "  \n \n",
            "x" * 90,
            "🙂",
            "é",
        ]
    ),
    max_size=400,
).map("".join)


def ink(text: str) -> str:
    """All that is not white space."""
    return "".join(text.split())


@given(st.one_of(st.text(max_size=600), prose), st.integers(1, 60))
def test_no_character_is_lost_or_moved(text: str, limit: int) -> None:
    assert ink("".join(split(text, limit))) == ink(text)


@given(st.one_of(st.text(max_size=600), prose), st.integers(1, 60))
def test_every_piece_fits_unless_one_character_is_too_much(text: str, limit: int) -> None:
    for piece in split(text, limit):
        assert piece == piece.strip() != ""
        assert estimate_tokens(piece) <= limit or len(piece) == 1


@given(
    st.lists(st.integers(1, 14).map(lambda n: "w" * n), min_size=300, max_size=1500),
    st.integers(40, 300),
)
def test_no_piece_of_prose_is_tiny(words: list[str], limit: int) -> None:
    pieces = split(" ".join(words), limit)
    if len(pieces) > 1:
        assert min(map(estimate_tokens, pieces)) >= limit * 0.25


def test_a_text_that_fits_is_one_piece() -> None:
    assert split("  All is well.\n", 10) == ("All is well.",)


def test_a_text_at_exactly_the_limit_is_one_piece() -> None:
    assert split("abcd" * 10, 10) == ("abcd" * 10,)


@pytest.mark.parametrize("blank", ["", " ", "\n\n \t\n"])
def test_blank_text_has_no_pieces(blank: str) -> None:
    assert split(blank, 10) == ()


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="limit_tokens is 0"):
        split("text", 0)


def test_cuts_fall_between_paragraphs() -> None:
    pieces = split(REPORT, 500)
    assert len(pieces) > 5
    assert all(set(piece.split("\n\n")) == {PARAGRAPH} for piece in pieces)


def test_without_paragraphs_cuts_fall_between_lines() -> None:
    line = "10:42 the operator opens the valve. The gauge falls. Nobody calls"
    for piece in split("\n".join([line] * 100), 200):
        assert set(piece.split("\n")) == {line}


@pytest.mark.parametrize(
    "sentence", ["It rained all day. ", "Did it rain? ", '"It rained." ', "昨日は雨が降りました。"]
)
def test_without_lines_cuts_fall_between_sentences(sentence: str) -> None:
    pieces = split((sentence * 300).strip(), 100)
    assert len(pieces) > 2
    for piece in pieces:
        assert (piece + " ").replace("  ", " ").startswith(sentence)
        assert piece.endswith(sentence.strip())


def test_without_sentences_cuts_fall_between_words() -> None:
    for piece in split("unendlich " * 500, 100):
        assert set(piece.split(" ")) == {"unendlich"}


def test_a_word_longer_than_the_limit_is_cut() -> None:
    pieces = split("x" * 1000, 30)
    assert "".join(pieces) == "x" * 1000
    assert len(pieces) == 10  # 250 tokens, planned 27 to a piece


def test_pieces_are_about_equal_and_not_more_than_needed() -> None:
    pieces = split(REPORT, 1000)
    sizes = [estimate_tokens(piece) for piece in pieces]
    assert len(pieces) <= estimate_tokens(REPORT) / (1000 * chunks.FILL) + 1
    assert max(sizes) - min(sizes) <= 2 * estimate_tokens(PARAGRAPH)


def test_where_one_part_is_denser_pieces_still_fit() -> None:
    text = REPORT + "\n\n" + "議事録はここにあります。" * 400 + "\n\n" + REPORT
    sizes = [estimate_tokens(piece) for piece in split(text, 700)]
    assert max(sizes) <= 700
    assert min(sizes) >= 700 * 0.25


def test_the_work_grows_with_the_text_and_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counting(text: str) -> int:
        nonlocal looked_at
        looked_at += len(text)
        return estimate_tokens(text)

    monkeypatch.setattr(chunks, "estimate_tokens", counting)
    costs = []
    for times in (1, 2, 4, 8):
        looked_at = 0
        split("\n\n".join([REPORT] * times), 400)
        costs.append(looked_at)
    for smaller, larger in itertools.pairwise(costs):
        assert larger <= smaller * 2.2
