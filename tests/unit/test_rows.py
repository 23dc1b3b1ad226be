"""Data files: what is read, and what each mistake is answered with."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_worker.learned.rows import (
    MAX_LINE_BYTES,
    IntentRow,
    PairRow,
    RowsError,
    ScoresRow,
    parse,
    read_intents,
    read_rows,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test puts its data file."""
    return tmp_path / "rows.jsonl"


def test_rows_of_intents(path: Path) -> None:
    path.write_text(
        '{"text": "hallo, wie geht\'s?", "intent": "greeting", "second": "translate"}\n'
        '{"text": "2 + 2", "intent": "math", "second": null, "domain": "ignored"}\n'
    )

    assert read_rows(path) == (
        IntentRow("hallo, wie geht's?", "greeting", "translate"),
        IntentRow("2 + 2", "math"),
    )


def test_rows_of_two_models(path: Path) -> None:
    path.write_text('{"prompt": "Why?", "weak": 0, "strong": 7.5, "subject": "ethics"}\n')

    assert read_rows(path) == (PairRow("Why?", 0.0, 7.5, "ethics"),)


def test_rows_of_several_models(path: Path) -> None:
    path.write_text('{"prompt": "Why?", "scores": {"small": 0, "large": 1}, "task": "ignored"}')

    assert read_rows(path) == (ScoresRow("Why?", {"small": 0.0, "large": 1.0}),)


def test_empty_lines_and_a_byte_order_mark_are_no_rows(path: Path) -> None:
    path.write_bytes(b'\xef\xbb\xbf{"text": "a", "intent": "x"}\r\n\n  \n{"text":"b","intent":"y"}')

    assert [row.text for row in read_intents(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text" "a"}', "is not JSON: Expecting ':' delimiter (column 9)"),
        (b'{"text": "\xff"}', "is not UTF-8 (byte 11 of the line)"),
        (b"[" * 100_000, "is not JSON that can be read: a number or the nesting is huge"),
        (b'{"text": "a", "intent": ' + b"1" * 5_000 + b"}", "is not JSON that can be read: "),
        (b'["text", "intent"]', "is not an object of keys and values"),
        (b'{"text": "a"}', "has none of the keys 'intent', 'weak', 'strong', 'scores'"),
        (b'{"intent": "a"}', "has no 'text'"),
        (b'{"text": 3, "intent": "a"}', "'text' must be a text, not a number"),
        (b'{"text": "a", "intent": null}', "'intent' must be a text, not null"),
        (b'{"text": "a", "intent": "x", "second": []}', "'second' must be a text, not a list"),
        (b'{"text": "  ", "intent": "x"}', "'text' is empty"),
        (b'{"text": "\\ud800", "intent": "x"}', "'text' has half a surrogate pair"),
        (b'{"prompt": "a", "weak": 1}', "has only one of 'weak' and 'strong'"),
        (b'{"prompt": "a", "weak": true, "strong": 1}', "'weak' must be a number, not true or"),
        (b'{"prompt": "a", "weak": 0, "strong": NaN}', "'strong' must be a finite number"),
        (b'{"prompt": "a", "weak": 0, "strong": 1e999}', "'strong' must be a finite number"),
        (b'{"prompt": "a", "scores": {}}', "'scores' must be an object of models and their"),
        (b'{"prompt": "a", "scores": {"m": "1"}}', "the score of 'm' must be a number, not a text"),
        (b'{"scores": {"m": 1}}', "has no 'prompt'"),
    ],
)
def test_a_mistake_is_told_with_its_line(path: Path, line: bytes, what: str) -> None:
    path.write_bytes(b"\n" + line + b"\n")

    with pytest.raises(RowsError) as refused:
        read_rows(path)

    assert str(refused.value).startswith(f"{path}:2: {what}")


def test_a_file_holds_one_kind(path: Path) -> None:
    path.write_text('{"text": "a", "intent": "x"}\n{"prompt": "a", "weak": 0, "strong": 1}\n')

    with pytest.raises(
        RowsError, match=r"rows\.jsonl:2: rows of 'weak' and 'strong', but the rows"
    ):
        read_rows(path)


def test_a_file_of_another_kind_than_wanted(path: Path) -> None:
    path.write_text('{"prompt": "a", "weak": 0, "strong": 1}\n')

    with pytest.raises(RowsError, match="rows of 'weak' and 'strong', where rows of intents were"):
        read_intents(path)


def test_files_without_rows(path: Path) -> None:
    with pytest.raises(RowsError, match="can't be read: No such file"):
        read_rows(path)
    path.write_text("\n\n")
    with pytest.raises(RowsError, match="has no rows"):
        read_rows(path)


def test_a_line_without_end_is_not_read_into_memory(path: Path) -> None:
    path.write_bytes(b" " * (MAX_LINE_BYTES + 1))

    with pytest.raises(RowsError, match=r"rows\.jsonl:1: is longer than"):
        read_rows(path)


@given(st.binary() | st.text().map(str.encode))
def test_any_line_is_a_row_or_a_value_error(line: bytes) -> None:
    try:
        row = parse(line)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(row, IntentRow | PairRow | ScoresRow)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["text", "intent", "second", "prompt", "weak", "strong", "scores", "subject", "other"]
)


@given(st.dictionaries(KEYS, JSON))
def test_any_object_is_a_row_or_a_value_error(value: dict[str, object]) -> None:
    try:
        row = parse(json.dumps(value).encode())
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(row, IntentRow | PairRow | ScoresRow)


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@given(texts, texts, st.none() | texts)
def test_what_was_written_is_read(text: str, intent: str, second: str | None) -> None:
    line = json.dumps({"text": text, "intent": intent, "second": second}).encode()

    assert parse(line) == IntentRow(text, intent, second)
