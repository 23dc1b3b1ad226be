"""Extractive summaries take time linear in the text, whatever is in it."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from model_workers.extractive import ORDERS, Order, split_sentences, summarize
from model_workers.extractive.sentences import MAX_SENTENCE_CHARS


def lines_executed(work: Callable[[], object]) -> int:
    count = 0

    def trace(_frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        ".",
        "a.",
        ". A",
        "[1]",
        '."',
        " ",
        "\n",
        "A: b\n",
        "- ",
        "Dr. ",
        "a. [1]",
        "(",
        "。",
        "uh ",
    ],
)
def test_twice_the_text_is_twice_the_work(piece: str) -> None:
    once, twice = "A: x. " + piece * 5000, "A: x. " + piece * 10_000

    work = lines_executed(lambda: split_sentences(once))

    assert lines_executed(lambda: split_sentences(twice)) <= 2 * work + 2 * MAX_SENTENCE_CHARS


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_twice_the_sentences_are_twice_the_work(order: Order) -> None:
    def document(sentences: int) -> str:
        return " ".join(f"Fact {n} is of kind {n % 7}." for n in range(sentences))

    work = lines_executed(lambda: summarize(document(500), order))

    assert lines_executed(lambda: summarize(document(1000), order)) <= 2.2 * work
