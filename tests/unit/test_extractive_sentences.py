"""Splitting a text into sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.extractive import Kind, split_sentences
from model_workers.extractive.sentences import MAX_SENTENCE_CHARS


def texts(document: str) -> list[str]:
    return [sentence.text for sentence in split_sentences(document)]


@pytest.mark.parametrize(
    "document",
    [
        "Dr. Smith went home. | He slept.",
        "He lives in the U.S. | The house is big.",
        "The U.S. Army left. | It was late.",
        "It costs 3.50 dollars, i.e. 2.9 euros. | Cheap!",
        "J. R. R. Tolkien wrote it. | We read it.",
        "See Fig. 3 and Sec. 4.2 of Li et al. (2019). | It is there.",
        "He said no. | Then he left... | She stayed.",
        "Well... maybe not. | Who knows?",
        '"Why?" he asked. | "Go away!" | She left.',
        "Bring pens, paper, etc. to the exam. | Be there at 9 a.m. | We start on time.",
        "Visit https://example.org/a?b=c.d now. | Version 2.0.1 is out!",
        "The year was 2019. | A good one.",
        "(It rained.) | We stayed in.",
        "all in lower case. | no capitals here. | fine",
    ],
)
def test_a_stop_ends_a_sentence_only_where_a_reader_would(document: str) -> None:
    expected = document.split(" | ")

    assert texts(" ".join(expected)) == expected


def test_chinese_and_japanese_stops_need_no_space() -> None:
    assert texts("今日は天気がいい。散歩に行きます！「本当？」はい。") == [
        "今日は天気がいい。",
        "散歩に行きます！",
        "「本当？」",
        "はい。",
    ]


def test_list_items_and_headings_are_told_from_prose() -> None:
    document = """# The plan

Our plan has two parts, and the second
one is larger. It is cheap.

- buy the parts
- build the thing
  in the shed
2. Sell it.

What comes after

We rest.
"""
    assert [(s.number, s.kind, s.text) for s in split_sentences(document)] == [
        (1, Kind.HEADING, "The plan"),
        (2, Kind.PROSE, "Our plan has two parts, and the second one is larger."),
        (3, Kind.PROSE, "It is cheap."),
        (4, Kind.ITEM, "buy the parts"),
        (5, Kind.ITEM, "build the thing in the shed"),
        (6, Kind.ITEM, "Sell it."),
        (7, Kind.HEADING, "What comes after"),
        (8, Kind.PROSE, "We rest."),
    ]


def test_a_transcript_keeps_its_speakers_and_loses_tokenizer_gaps() -> None:
    document = """Project Manager: Um , let 's start . Is it on ?
[00:12] Dr. May (York, Lib.): It 's on .
Project Manager: Good ."""

    assert [(s.speaker, s.text) for s in split_sentences(document)] == [
        ("Project Manager", "let's start."),
        ("Project Manager", "Is it on?"),
        ("Dr. May", "It's on."),
        ("Project Manager", "Good."),
    ]


def test_a_colon_in_prose_makes_no_speaker() -> None:
    document = "Note: the pump is loud.\nIt runs all night, and nobody sleeps.\nWe sold it."

    assert {sentence.speaker for sentence in split_sentences(document)} == {""}


def test_note_marks_stay_with_no_sentence() -> None:
    assert texts("It rained. [1] We left.[2][3] They stayed.") == [
        "It rained.",
        "We left.",
        "They stayed.",
    ]


def test_a_text_without_punctuation_is_cut_at_spaces() -> None:
    parts = texts("word " * 1000)

    assert all(set(part.split()) == {"word"} for part in parts)
    assert all(len(part) <= MAX_SENTENCE_CHARS for part in parts)
    assert sum(len(part.split()) for part in parts) == 1000


@pytest.mark.parametrize("document", ["", " \n\t", "...", "-----\n***\n", "?! \u2026"])
def test_a_text_without_letters_has_no_sentences(document: str) -> None:
    assert split_sentences(document) == ()


PIECES = st.sampled_from(
    ["A", "b", "Dr", ".", "...", "?", "!", " ", "\n", "\n\n", '"', "'", "(", ")", "[1]", ": ",
     "- ", "# ", "1. ", "Bob: ", "e.g", "3.5", "word ", " . ", " 's ", "。", "」", "Uh , "]
)  # fmt: skip
DOCUMENTS = st.text(max_size=300) | st.lists(PIECES, max_size=80).map("".join)


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(DOCUMENTS)
def test_sentences_are_parts_of_the_document_in_its_order(document: str) -> None:
    rest = squeezed(document)

    for number, sentence in enumerate(split_sentences(document), 1):
        _, found, rest = rest.partition(squeezed(sentence.text))
        assert found
        assert sentence.number == number
        assert 0 < len(sentence.text) <= MAX_SENTENCE_CHARS
        assert squeezed(sentence.speaker) in squeezed(document)


@given(DOCUMENTS)
def test_only_marks_labels_and_hesitation_are_left_out(document: str) -> None:
    letters = sum(char.isalpha() for char in document)
    spoken = any(sentence.speaker for sentence in split_sentences(document))
    kept = sum(char.isalpha() for text in texts(document) for char in text)

    assert spoken or kept >= letters - 4 * document.count(")")
