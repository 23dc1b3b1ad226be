"""Entries of the decision ledger as a file: lines of JSON, or a Parquet table."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Literal

from modelyard.decision_ledger import Entry
from producer.dead_export import new_file
from producer.output import UsageError, encode

Format = Literal["jsonl", "parquet"]
ROWS: Final = 5_000
"""Rows that a Parquet file holds together, and that are in memory at a time."""

MAX_WHOLE: Final = 2**63 - 1
"""The largest whole number that the table holds."""


def export(entries: Iterable[Entry], path: Path, form: Format) -> int:
    """Write entries to a new file, which is there whole or not at all; return how many.

    Raises `UsageError` if there is such a file, or no pyarrow; `OutputFailed` if it can't be
    written.
    """
    write: Callable[[Iterable[Entry], IO[bytes]], int] = write_lines
    if form == "parquet":
        write = parquet_writer()
    with new_file(path) as file:
        return write(entries, file)


def write_lines(entries: Iterable[Entry], file: IO[bytes]) -> int:
    """Write one entry a line, as the ledger has it, and return how many."""
    count = 0
    for entry in entries:
        file.write(encode(entry.encode()))
        count += 1
    return count


def parquet_writer() -> Callable[[Iterable[Entry], IO[bytes]], int]:
    """Return what writes a Parquet file. Raises `UsageError` where pyarrow is not installed."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            "--format parquet needs pyarrow: pip install 'modelyard[parquet]', or export as jsonl"
        ) from error
    arm = pa.struct([("experiment", pa.string()), ("arm", pa.string())])
    calls = pa.struct(
        [
            ("model", pa.string()),
            ("made", pa.int64()),
            ("failed", pa.int64()),
            ("answered_s", pa.float64()),
        ]
    )
    schema = pa.schema(
        [
            ("kind", pa.string()),
            ("id", pa.string()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("route", pa.string()),
            ("intent", pa.string()),
            ("rule", pa.int64()),
            ("confidence", pa.float64()),
            ("strategy", pa.string()),
            ("plan", pa.list_(pa.string())),
            ("model", pa.string()),
            ("given", pa.bool_()),
            ("arms", pa.list_(arm)),
            ("outcome", pa.string()),
            ("cost_usd", pa.float64()),
            ("latency_s", pa.float64()),
            ("calling_s", pa.float64()),
            ("calls", pa.list_(calls)),
            ("input_tokens", pa.int64()),
            ("output_tokens", pa.int64()),
            ("complexity", pa.int64()),
            ("score", pa.float64()),
            ("accepted", pa.bool_()),
            ("drafts", pa.int64()),
            ("cached", pa.string()),
            ("saved_usd", pa.float64()),
            ("comment", pa.string()),
            ("stopped_at", pa.string()),
            ("escalated", pa.string()),
            ("request", pa.string()),
            ("text", pa.string()),
        ]
    )

    def write(entries: Iterable[Entry], file: IO[bytes]) -> int:
        left = iter(entries)
        count = 0
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            while rows := [row(entry) for entry in islice(left, ROWS)]:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                count += len(rows)
        return count

    return write


def row(entry: Entry) -> dict[str, Any]:
    """Return an entry as a row of a table: what has keys of its own becomes a list, or JSON."""
    values = entry.model_dump(mode="json")
    values["at"] = round(1e6 * entry.at)
    for key in ("at", "rule", "input_tokens", "output_tokens", "complexity", "drafts"):
        if values[key] is not None:  # what a provider counts may be any number
            values[key] = max(-MAX_WHOLE, min(MAX_WHOLE, values[key]))
    values["calls"] = [{"model": model, **calls} for model, calls in values["calls"].items()]
    if entry.request is not None:
        values["request"] = encode(entry.request).decode().strip()
    return values
