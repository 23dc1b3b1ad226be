"""Data files: JSON lines with the examples that the router learns from.

There are three kinds of rows; a file holds one kind, and other keys are ignored:

```
{"text": "...", "intent": "math", "second": "code"}     what a request is about
{"prompt": "...", "weak": 0, "strong": 1}               how well two models answered
{"prompt": "...", "scores": {"small": 0, "large": 1}}   how well several models answered
```

`second` (the other intent that would be right) and `subject` (what a prompt is about) may be
left out or null. The intent `oos` marks a request that is none of the file's intents.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from modelyard.errors import ModelyardError

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""A longer line is no example, and would be read into memory as a whole."""


class RowsError(ModelyardError):
    """A data file is refused. The message is `FILE:LINE: WHAT`, or `FILE: WHAT`."""


@dataclass(frozen=True, slots=True)
class IntentRow:
    """A text and what it is about."""

    text: str
    intent: str
    second: str | None = None


@dataclass(frozen=True, slots=True)
class PairRow:
    """A prompt and the scores of a weak and a strong model's answers (any scale, both the same)."""

    prompt: str
    weak: float
    strong: float
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class ScoresRow:
    """A prompt and the score of each model's answer, at least one."""

    prompt: str
    scores: Mapping[str, float]
    subject: str | None = None


Row: TypeAlias = IntentRow | PairRow | ScoresRow


def read_rows(path: Path) -> tuple[Row, ...]:
    """Return the rows of a data file, in order, all of one kind.

    Empty lines are skipped. Raises `RowsError` with the line of the first mistake, and where the
    file can't be read or has no rows.
    """
    rows: list[Row] = []
    for number, line in lines(path):
        try:
            row = parse(line)
        except ValueError as error:
            raise RowsError(f"{path}:{number}: {error}") from error
        if rows and type(row) is not type(rows[0]):
            raise RowsError(
                f"{path}:{number}: {KINDS[type(row)]}, but the rows before are of another kind "
                f"({KINDS[type(rows[0])]}); a file holds one kind"
            )
        rows.append(row)
    if not rows:
        raise RowsError(f"{path}: has no rows")
    return tuple(rows)


def read_intents(path: Path) -> tuple[IntentRow, ...]:
    """Return the rows of a file of intents. Raises `RowsError`, also for other kinds of rows."""
    rows = read_rows(path)
    found = tuple(row for row in rows if isinstance(row, IntentRow))
    if len(found) != len(rows):
        raise RowsError(f"{path}: {KINDS[type(rows[0])]}, where {KINDS[IntentRow]} were wanted")
    return found


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers (from 1)."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise RowsError(f"{path}:{number}: is longer than {MAX_LINE_BYTES:,} bytes")
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # some editors begin a file so
                if line.strip():
                    yield number, line
    except OSError as error:
        raise RowsError(f"{path}: can't be read: {error.strerror or error}") from error


def parse(line: bytes) -> Row:
    """Return the row of one line. Raises `ValueError` with what is wrong with it."""
    try:
        value = json.loads(line.decode().rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start + 1} of the line)") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, or deep nesting
        raise ValueError("is not JSON that can be read: a number or the nesting is huge") from error
    if not isinstance(value, dict):
        raise ValueError("is not an object of keys and values")
    for key, read in READERS.items():
        if key in value:
            return read(value)
    raise ValueError("has none of the keys 'intent', 'weak', 'strong', 'scores'")


def intent_row(value: Mapping[str, Any]) -> IntentRow:
    """Return a row of what a text is about."""
    return IntentRow(text(value, "text"), text(value, "intent"), name(value, "second"))


def pair_row(value: Mapping[str, Any]) -> PairRow:
    """Return a row of two models' scores."""
    if "weak" not in value or "strong" not in value:
        raise ValueError("has only one of 'weak' and 'strong'")
    return PairRow(
        text(value, "prompt"),
        score(value["weak"], "'weak'"),
        score(value["strong"], "'strong'"),
        name(value, "subject"),
    )


def scores_row(value: Mapping[str, Any]) -> ScoresRow:
    """Return a row of several models' scores."""
    scores = value["scores"]
    if not isinstance(scores, dict) or not scores:
        raise ValueError("'scores' must be an object of models and their scores, and not empty")
    return ScoresRow(
        text(value, "prompt"),
        {model: score(each, f"the score of {model!r}") for model, each in scores.items()},
        name(value, "subject"),
    )


def text(value: Mapping[str, Any], key: str) -> str:
    """Return a text that must be there and say something."""
    if key not in value:
        raise ValueError(f"has no {key!r}")
    found = value[key]
    if not isinstance(found, str):
        raise ValueError(f"{key!r} must be a text, not {json_type(found)}")
    if not found.strip():
        raise ValueError(f"{key!r} is empty")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{key!r} has half a surrogate pair, which is no character") from error
    return found


def name(value: Mapping[str, Any], key: str) -> str | None:
    """Return a text that may be left out."""
    return None if value.get(key) is None else text(value, key)


def score(value: Any, what: str) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} must be a number, not {json_type(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{what} must be a finite number")
    return number


def json_type(value: Any) -> str:
    """Return what JSON calls the type of a value."""
    return JSON_TYPES.get(type(value), type(value).__name__)


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Row]]] = {
    "intent": intent_row,
    "scores": scores_row,
    "weak": pair_row,
    "strong": pair_row,
}
"""The key that tells each kind. The first that a row has counts."""

KINDS: Final[Mapping[type, str]] = {
    IntentRow: "rows of intents",
    PairRow: "rows of 'weak' and 'strong'",
    ScoresRow: "rows of 'scores'",
}
JSON_TYPES: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
