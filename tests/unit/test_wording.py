"""Sentences with numbers and names in them, and tables on narrow terminals."""

import io

import pytest
from rich.console import Console

from modelyard.alerts import BudgetNews, News, alerts
from modelyard.endings import as_error
from modelyard.errors import FailureKind, RequestFailed
from modelyard.messages import Attempt, DeadLetter, DeadReason
from modelyard.wording import are_not_set, dollars
from producer.narrow import Column, show_rows

COLUMNS = [Column("id"), Column("state", folds=True), Column("route"), Column("calls", right=True)]
ROW = ("7d9f1f8e-39b4-4bcb-a9a9-6e2f4b1a2c3d", "denied since 07:59, asked soon", "default", "3")


def letter(*endpoints: str) -> DeadLetter:
    attempts = tuple(
        Attempt(
            model="small",
            endpoint=endpoint,
            started_at=0.0,
            duration_ms=1.0,
            kind=FailureKind.PERMANENT,
        )
        for endpoint in endpoints
    )
    return DeadLetter(
        id="1",
        reason=DeadReason.EXHAUSTED,
        request={},
        message="why",
        attempts=attempts,
        died_at=0.0,
    )


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        ((), "exhausted: why"),
        (("none",), "exhausted: why"),
        (("a", "none"), "exhausted after 1 attempt: why"),
        (("a", "b"), "exhausted after 2 attempts: why"),
    ],
)
def test_only_calls_are_attempts(endpoints: tuple[str, ...], words: str) -> None:
    assert str(as_error(letter(*endpoints))) == f"request 1: {words}"


def test_what_logs_show_of_an_error_counts_calls_too() -> None:
    attempts = [{"model": "small", "endpoint": name, "kind": "permanent"} for name in ("a", "none")]
    assert repr(RequestFailed("", "1", "exhausted", attempts)) == (
        "RequestFailed(exhausted, 1 attempt, last: small permanent)"
    )
    assert repr(RequestFailed("", "1", "exhausted", attempts[1:])) == (
        "RequestFailed(exhausted, last: small permanent)"
    )


def test_both_sides_of_a_budget_are_rounded_alike() -> None:
    assert dollars(0.00123, 0.001) == "$0.001 of $0.001"
    assert dollars(5.2, 5) == "$5.20 of $5.00"
    assert dollars(12345.678, 12000.5) == "$12,345.68 of $12,000.50"
    [spent] = alerts(News((), (BudgetNews("down", "*", 0.0012, 0.001, "downgrade"),)), 0.0)
    assert spent.message.startswith("spent: $0.001 of $0.001 today")


def test_several_variables_are_not_set() -> None:
    assert are_not_set(["A"]) == "A is not set"
    assert are_not_set(["B, A", "A"]) == "A, B are not set"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_word_is_broken_however_narrow_the_terminal(width: int) -> None:
    out = Console(file=io.StringIO(), width=width)
    show_rows(out, COLUMNS, [ROW])
    text = out.file.getvalue()  # type: ignore[attr-defined]
    for word in " ".join(ROW).split():
        assert word in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert ("id" in text.split()) == (width >= 80)  # a table has a head
