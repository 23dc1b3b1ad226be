"""Telling an instruction from the document it is about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.extractive import Task, read_task

DOCUMENT = "The cat sat. The dog ran. This is the text of the story."


@pytest.mark.parametrize(
    "instruction",
    [
        "Summarize:",
        "Summarize: ",
        "Summarize:\n",
        "Summarize the following document:\n\n",
        "tl;dr\n",
        "TL;DR: ",
        "Please summarise this meeting transcript.\n",
        "Please summarise this meeting transcript. ",
        "Could you please summarize the article below?\n\n",
        "Give me a short summary of this text: ",
        "Write a brief, clear overview of the following report.\n",
        "Summarize this text. Be brief. Don't add opinions.\n",
        "Summarize the document.\n\nDocument: ",
    ],
)
def test_a_leading_instruction_is_removed(instruction: str) -> None:
    assert read_task([instruction + DOCUMENT]) == Task(DOCUMENT)


@pytest.mark.parametrize("instruction", ["TL;DR:", "Summarize the above.", "Please summarize it"])
def test_an_instruction_on_the_last_line_is_removed(instruction: str) -> None:
    assert read_task([f"{DOCUMENT}\n\n{instruction}"]) == Task(DOCUMENT)


@pytest.mark.parametrize(
    "document",
    [
        DOCUMENT,
        "Summary: the cat sat.\nThe dog ran.",
        "Summary of the meeting\n\nThe cat sat.",
        "Summarize your findings each evening. Then sleep.",
        "Summarizing: a survey of methods. We list them.",
        "Please close the door. Thank you.",
        "Document: a title\n\nText.",
        "The TL;DR: cats are nice.\nAnd dogs.",
        "Shorten the rope by a foot.\nTie it.",
        "The cat sat.\nTL;DR: cats sit.",
        "Write an essay.\nGive it to me.",
    ],
)
def test_a_document_without_instruction_stays_whole(document: str) -> None:
    assert read_task([document]) == Task(document)


@pytest.mark.parametrize(
    ("instruction", "task"),
    [
        ("Summarize this in three sentences:", Task(DOCUMENT, sentences=3)),
        ("Summarize in 2-3 short sentences.", Task(DOCUMENT, sentences=3)),
        ("Write a one-sentence summary of the text:", Task(DOCUMENT, sentences=1)),
        ("tl;dr in a single sentence", Task(DOCUMENT, sentences=1)),
        ("Summarize the text as 5 bullet points:", Task(DOCUMENT, sentences=5)),
        ("Summarize in at most 50 words:", Task(DOCUMENT, words=50)),
        ("Summarize this in 0 sentences:", Task(DOCUMENT)),
    ],
)
def test_the_asked_length_is_read(instruction: str, task: Task) -> None:
    assert read_task([f"{instruction}\n{DOCUMENT}"]) == task


def test_a_length_in_the_document_asks_for_nothing() -> None:
    document = "The form has room for three sentences or 50 words."

    assert read_task([document]) == Task(document)


def test_instruction_and_document_may_be_two_messages() -> None:
    task = Task(DOCUMENT, sentences=2)

    assert read_task(["Summarize this in two sentences", DOCUMENT]) == task
    assert read_task([DOCUMENT, "Now summarize that text in two sentences."]) == task


def test_fences_around_the_document_are_removed() -> None:
    assert read_task([f'Summarize this:\n"""\n{DOCUMENT}\n"""']) == Task(DOCUMENT)
    assert read_task([f"Summarize:\n<text>{DOCUMENT}</text>"]) == Task(DOCUMENT)


@pytest.mark.parametrize("message", ["", "  \n", "Summarize this document.", "tl;dr", "Summarize:"])
def test_an_instruction_alone_has_no_document(message: str) -> None:
    assert read_task([message]).document == ""


@given(st.text())
def test_between_two_plain_sentences_anything_is_document(text: str) -> None:
    document = f"We read {text}\nThe end."

    assert read_task([document]) == Task(document)
