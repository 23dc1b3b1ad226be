"""Quality and speed of the extractive summaries: ROUGE on SciTLDR and QMSum.

    python benchmarks/rouge.py [--scitldr FILE] [--qmsum FILE] [-o FILE]

Prints a table, then the same numbers as JSON. The files are JSON lines with `text` and
`summaries`; without arguments they are looked for in `$MODELYARD_DATA`, or in `../shared/data`
beside the checkout. Exits with 2 if one is missing.

ROUGE (Lin, 2004) is computed here: tokens are runs of a-z and 0-9 in the lower-cased text, without
stemming or stop words; source marks such as `[12]` are removed before; ROUGE-L is the longest
common subsequence of the whole summaries. Each score is the F1 (in percent) of the best of a
document's reference summaries, by ROUGE-1, averaged over documents. The weights of centroid-mmr
were chosen on these same documents, so its lead here is a little flattering.
"""

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_workers.extractive import ORDERS, Length, Order, summarize

ROOT = Path(__file__).resolve().parent.parent
TOKEN = re.compile(r"[a-z0-9]+")
SOURCE_MARK = re.compile(r"\s\[\d{1,6}\]")
SCITLDR_LENGTH = Length(sentences=1)  # a TLDR is one sentence
QMSUM_LENGTH = Length(words=120)  # the references have 110 words on average
TIMED_WORDS = range(9_000, 11_001)
TIMED_RUNS = 5

Score = tuple[float, float, float]


def tokens(text: str) -> list[str]:
    """Return what ROUGE compares: lower-case words and numbers, without source marks."""
    return TOKEN.findall(SOURCE_MARK.sub("", text).lower())


def f1(common: int, ours: int, theirs: int) -> float:
    """Return the F1 of `common` among two counts, from 0 to 1."""
    return 2 * common / (ours + theirs) if common else 0.0


def rouge_n(ours: Sequence[str], theirs: Sequence[str], n: int) -> float:
    """Return ROUGE-n as F1, from 0 to 1."""
    left = Counter(zip(*(ours[at:] for at in range(n)), strict=False))
    right = Counter(zip(*(theirs[at:] for at in range(n)), strict=False))
    return f1((left & right).total(), left.total(), right.total())


def rouge_l(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """Return ROUGE-L as F1, from 0 to 1.

    The subsequence's length by Hyyrö's bit-parallel algorithm (2004): a zero bit a match.
    """
    masks: Counter[str] = Counter()
    for at, token in enumerate(ours):
        masks[token] |= 1 << at
    everything = (1 << len(ours)) - 1
    row = everything
    for token in theirs:
        matches = row & masks[token]
        row = ((row + matches) | (row - matches)) & everything
    return f1(len(ours) - row.bit_count(), len(ours), len(theirs))


def score(summary: str, references: Sequence[str]) -> Score:
    """Return ROUGE-1, -2 and -L against the reference that is nearest by ROUGE-1."""
    ours = tokens(summary)
    scores: list[Score] = []
    for reference in references:
        theirs = tokens(reference)
        scores.append((rouge_n(ours, theirs, 1), rouge_n(ours, theirs, 2), rouge_l(ours, theirs)))
    return max(scores)


def evaluate(rows: Sequence[dict[str, Any]], order: Order, length: Length) -> dict[str, float]:
    """Return the mean scores, in percent, and the mean length of the summaries in words."""
    scores: list[Score] = []
    words = 0
    for row in rows:
        summary = summarize(row["text"], order, length)
        plain = " ".join(sentence.text for sentence in summary.sentences)
        scores.append(score(plain, row["summaries"]))
        words += len(plain.split())
    means = (100 * statistics.fmean(column) for column in zip(*scores, strict=True))
    result = dict(zip(("rouge_1", "rouge_2", "rouge_l"), means, strict=True))
    return {**result, "words": words / len(rows)}


def median_ms(text: str, order: Order) -> float:
    """Return the median time of a summary of the usual length, in milliseconds."""
    times = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        summarize(text, order)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def measure(scitldr: Sequence[dict[str, Any]], qmsum: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return all numbers, with the machine and the date."""
    meetings = [row["text"] for row in qmsum if len(row["text"].split()) in TIMED_WORDS]
    datasets = {"scitldr": (scitldr, SCITLDR_LENGTH), "qmsum": (qmsum, QMSUM_LENGTH)}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "documents": {name: len(rows) for name, (rows, _) in datasets.items()},
        "scores": {
            dataset: {name: evaluate(rows, order, length) for name, order in ORDERS.items()}
            for dataset, (rows, length) in datasets.items()
        },
        "timing": {
            "words": [TIMED_WORDS[0], TIMED_WORDS[-1]],
            "documents": len(meetings),
            "runs": TIMED_RUNS,
            "slowest_median_ms": {
                name: max((median_ms(text, order) for text in meetings), default=None)
                for name, order in ORDERS.items()
            },
        },
    }


def table(result: dict[str, Any]) -> str:
    """Return the numbers as aligned text."""
    lines = [f"{'data':<10}{'model':<16}{'R-1':>7}{'R-2':>7}{'R-L':>7}{'words':>8}"]
    for dataset, models in result["scores"].items():
        for name, means in models.items():
            numbers = "".join(f"{means[key]:>7.1f}" for key in ("rouge_1", "rouge_2", "rouge_l"))
            lines.append(f"{dataset:<10}{name:<16}{numbers}{means['words']:>8.1f}")
    low, high = result["timing"]["words"]
    for name, milliseconds in result["timing"]["slowest_median_ms"].items():
        if milliseconds is not None:
            lines.append(f"{low} to {high} words, {name}: {milliseconds:.0f} ms at most")
    return "\n".join(lines)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a file of JSON lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def main() -> int:
    """Run the benchmark; returns the exit code."""
    data = Path(os.environ.get("MODELYARD_DATA") or ROOT.parent / "shared" / "data")
    parser = argparse.ArgumentParser(description="ROUGE of the extractive summaries.")
    parser.add_argument("--scitldr", type=Path, default=data / "docs_scitldr_dev.jsonl")
    parser.add_argument("--qmsum", type=Path, default=data / "docs_qmsum_val.jsonl")
    parser.add_argument("-o", "--output", type=Path, help="write the JSON to this file too")
    options = parser.parse_args()
    missing = [path for path in (options.scitldr, options.qmsum) if not path.is_file()]
    for path in missing:
        print(f"{path}: no such file: give its place, or set MODELYARD_DATA", file=sys.stderr)
    if missing:
        return 2
    result = measure(read_rows(options.scitldr), read_rows(options.qmsum))
    as_json = json.dumps(result, indent=2)
    print(table(result), as_json, sep="\n\n")
    if options.output:
        options.output.write_text(as_json + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
