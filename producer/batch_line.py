"""Batch line: one line of a batch file, on its way to one line of the output or of the errors."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from modelyard.catalog import Catalog
from modelyard.messages import Answer
from modelyard.outcome import Outcome
from producer.failure import failure
from producer.job import question_digest
from producer.openai_batch import (
    BadLine,
    answer_line,
    bad_line_id,
    error_line,
    read_line,
    request_line_id,
)
from producer.run import TOO_LARGE, PartRequest

PIECE: Final = 64 * 1024

SMALLER: Final = (
    "split its text over several lines, or raise MODELYARD_MAX_MESSAGE_BYTES for all parts of the "
    "yard"
)


class BatchLine:
    """A unit of `producer.run`: one line of the input, whatever is in it."""

    def __init__(
        self,
        number: int,
        digest: str,
        custom_id: str | None,
        asked: PartRequest | dict[str, Any],
    ) -> None:
        """`asked` is the request, or the error line if there is none; `digest` is of either."""
        self.number = number
        self.digest = digest
        self.custom_id = custom_id
        self.answer: Answer | None = None
        self.bad = not isinstance(asked, PartRequest)
        self.retriable = not self.bad
        self._asked = asked if isinstance(asked, PartRequest) else None
        self.line: dict[str, Any] | None = None if isinstance(asked, PartRequest) else asked

    @property
    def key(self) -> str:
        """What the unit is called in the job."""
        return f"line {self.number}" if self.bad or not self.custom_id else self.custom_id

    @property
    def ended(self) -> bool:
        """Whether its line can be written."""
        return self.line is not None

    def begin(self) -> Sequence[PartRequest]:
        """Return its request, if it is one."""
        asked, self._asked = self._asked, None
        return () if asked is None else (asked,)

    def heard(self, part: str, id: str, outcome: Outcome) -> Sequence[PartRequest]:
        """Take the outcome."""
        if isinstance(outcome, Answer):
            assert self.custom_id is not None
            self.answer = outcome
            self.line = answer_line(self.custom_id, outcome, self.digest)
            return ()
        why = failure(outcome)
        message = why.message
        if why.reason == TOO_LARGE:
            self.retriable = False
            message = f"line {self.number}: it is too large for one message: {SMALLER}"
        self.line = error_line(
            request_line_id(id), self.custom_id, why.reason, message, self.digest
        )
        return ()


def read_lines(
    path: Path, line_limit: int, catalog: Catalog, default_route: str
) -> Iterator[BatchLine]:
    """Yield a unit for each line of the file; one for the file as a whole if it has none.

    `line_limit` is how many bytes a line may have. Raises `OSError`.
    """
    seen: dict[str, int] = {}
    empty = True
    with path.open("rb") as file:
        for number, raw in lines(file, line_limit):
            empty = False
            try:
                if len(raw) > line_limit:
                    too_large = f"line {number}: it has more than {line_limit:,} bytes: {SMALLER}"
                    raise BadLine(TOO_LARGE, too_large)
                yield _unique(raw, number, catalog, default_route, seen)
            except BadLine as error:
                yield _bad(number, raw, error)
    if empty:
        yield _bad(0, b"", BadLine("empty_file", "there is no request in this file"))


def lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the lines that are not blank; of a longer one `limit` + 1 bytes.

    The rest of a line that is too long is never in memory.
    """
    number = 0
    while raw := file.readline(limit + 1):
        number += 1
        rest = raw
        while len(raw) > limit and rest and not rest.endswith(b"\n"):
            rest = file.readline(PIECE)
        if raw.strip():
            yield number, raw


def _unique(
    raw: bytes, number: int, catalog: Catalog, default_route: str, seen: dict[str, int]
) -> BatchLine:
    """Return the unit of a line whose custom_id no line before it has. Raises `BadLine`."""
    try:
        line = read_line(raw, number, catalog, default_route)
        custom_id = line.custom_id
    except BadLine as error:
        if error.custom_id is not None:
            seen.setdefault(error.custom_id, number)
        raise
    first = seen.setdefault(custom_id, number)
    if first != number:
        raise BadLine(
            "duplicate_custom_id",
            f"line {number}: custom_id {custom_id[:80]!r} is used on line {first} already: "
            "answers are told apart by it",
            custom_id,
        )
    return BatchLine(
        number, question_digest(line.request), custom_id, PartRequest("", line.request)
    )


def _bad(number: int, raw: bytes, error: BadLine) -> BatchLine:
    digest = hashlib.sha256(raw.strip()).hexdigest()
    line = error_line(bad_line_id(number), error.custom_id, error.code, str(error), digest)
    return BatchLine(number, digest, error.custom_id, line)
