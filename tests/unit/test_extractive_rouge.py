"""The measure of the benchmark of extractive summaries."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "rouge.py"
rouge = runpy.run_path(str(BENCHMARK))


def test_source_marks_and_case_do_not_count() -> None:
    assert rouge["tokens"]("The cat sat. [1] It slept! [12]") == [
        "the",
        "cat",
        "sat",
        "it",
        "slept",
    ]


def test_a_copy_scores_one_and_a_stranger_nothing() -> None:
    assert rouge["score"]("the cat sat", ["a dog", "the cat sat"]) == (1.0, 1.0, 1.0)
    assert rouge["score"]("the cat sat", ["a dog"]) == (0.0, 0.0, 0.0)


def test_scores_are_those_worked_out_by_hand() -> None:
    ours, theirs = "the cat the mat".split(), "the mat on the cat".split()

    assert rouge["rouge_n"](ours, theirs, 1) == pytest.approx(2 * 4 / 9)
    assert rouge["rouge_n"](ours, theirs, 2) == pytest.approx(2 * 2 / 7)
    assert rouge["rouge_l"](ours, theirs) == pytest.approx(2 * 2 / 9)
