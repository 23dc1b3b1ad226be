"""The page holds what was measured, between its marks, and the rest of it stays."""

from dataclasses import replace
from pathlib import Path

import pytest

from chaos.checker import check
from chaos.report import BEGIN, END, Ran, measured, row, write
from chaos.storms import BY_NAME
from chaos.test_checker import AGAIN, GOOD, NOTHING, with_fault

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


def test_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold \\1\n{END}\n\nafter\n")
    write(page, "new \\1")
    write(page, "newer \\1")
    assert page.read_text() == f"before\n\n{BEGIN}\nnewer \\1\n{END}\n\nafter\n"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a page")
    with pytest.raises(ValueError, match="missing"):
        write(page, "new")
    assert page.read_text() == "a page"


def test_the_page_of_this_project_has_its_marks() -> None:
    text = PAGE.read_text()
    assert (text.count(BEGIN), text.count(END)) == (1, 1)


def test_a_row_tells_both_what_broke_and_what_was_not_promised() -> None:
    storm = BY_NAME["redis-power"]
    lost = with_fault("redis-power", "*", 2.0, 3.0)
    lost = replace(NOTHING, faults=lost.faults)
    cells = row(Ran(storm, "modelyard", 3.0, 7, check(lost)))
    assert cells[0] == "redis-power, lease 3 s"
    assert "0 (+1 of 1 that were not promised)" in cells


def test_a_broken_promise_is_on_the_page() -> None:
    storm = BY_NAME["calm"]
    good = Ran(storm, "modelyard", 3.0, 7, check(GOOD))
    bad = Ran(storm, "plain Celery", 3.0, 7, check(AGAIN), ("paid twice without a reason 1",))
    page = measured([good], "2026-01-01T00:00:00+00:00")
    assert "No promise was broken" in page
    assert "- calm, plain Celery: paid twice" in measured([good, bad], "2026-01-01")
    assert page.startswith("2026-01-01T00:00:00+00:00 · ")
