"""Measures of classification, against what can be counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_worker.learned.scores import (
    calibration_error,
    class_scores,
    confusion,
    macro_f1,
    measured,
    reliability,
    share,
)

TRUTH = np.array([0, 0, 0, 1, 1, 2])
SAID = np.array([0, 0, 1, 1, 1, 0])
ALL = np.arange(6)


def test_confusion_and_what_follows_from_it() -> None:
    table = confusion(TRUTH, SAID, 3)

    assert table.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    first, second, third = class_scores(table, ["a", "b", "c"])
    assert [first.precision, first.recall, first.rows] == pytest.approx([2 / 3, 2 / 3, 3])
    assert [second.precision, second.recall] == pytest.approx([2 / 3, 1.0])
    assert (third.precision, third.recall, third.f1) == (0.0, 0.0, 0.0)
    f1 = (first.f1 + second.f1 + third.f1) / 3
    assert macro_f1(TRUTH, SAID, 3)(ALL) == pytest.approx(f1)


def test_a_class_that_does_not_occur_does_not_count() -> None:
    assert macro_f1(np.array([0, 1]), np.array([0, 1]), 5)(np.arange(2)) == 1.0


@given(st.lists(st.booleans(), min_size=5, max_size=60))
def test_the_interval_holds_the_value_and_is_the_same_each_time(flags: list[bool]) -> None:
    measure = share(np.array(flags))
    one = measured(measure, len(flags), np.random.default_rng(0), times=200)
    two = measured(measure, len(flags), np.random.default_rng(0), times=200)

    assert one == two
    assert one.value == pytest.approx(sum(flags) / len(flags))
    assert one.low <= one.value + 1e-12
    assert one.high >= one.value - 1e-12


def test_confidence_that_is_as_often_right_is_calibrated() -> None:
    confidence = np.repeat([0.25, 0.75], 400)
    right = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0])

    assert calibration_error(confidence, right)(np.arange(800)) == pytest.approx(0.0)
    assert calibration_error(np.ones(800), right)(np.arange(800)) == pytest.approx(0.5)
    assert [(each.rows, each.right) for each in reliability(confidence, right)] == [
        (400, 0.25),
        (400, 0.75),
    ]
