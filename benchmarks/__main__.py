"""Run the benchmarks and write their results: `python -m benchmarks [WHAT] [--requests N]`.

`http`: CPU time of a model call by HTTP client. `pipeline`: overhead and throughput beside a plain
Celery app. `stages`: where the CPU time of a request goes. `rouge`: quality of the extractive
summaries (left out, with a line that says so, where its data is missing).
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import http_client, pipeline, results, rouge, stages

Measured = tuple[dict[str, Any], str]


def http(_: argparse.Namespace) -> Measured:
    """CPU time of a model call by HTTP client."""
    measured = http_client.run()
    return measured, http_client.table(measured)


def whole_pipeline(options: argparse.Namespace) -> Measured:
    """Overhead and throughput beside a plain Celery app."""
    measured = pipeline.run(options.requests, rounds=options.rounds)
    return measured, pipeline.table(measured)


def where_the_time_goes(options: argparse.Namespace) -> Measured:
    """CPU time by stage."""
    measured = stages.run(options.requests)
    return measured, stages.table(measured)


def summaries(_: argparse.Namespace) -> Measured | None:
    """Quality and speed of the extractive summaries; None without the data."""
    data = Path(os.environ.get("MODELYARD_DATA") or rouge.ROOT.parent / "shared" / "data")
    files = data / "docs_scitldr_dev.jsonl", data / "docs_qmsum_val.jsonl"
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        print(f"rouge: left out, no {' and '.join(missing)}: set MODELYARD_DATA", file=sys.stderr)
        return None
    measured = rouge.measure(*(rouge.read_rows(file) for file in files))
    return measured, f"```\n{rouge.table(measured)}\n```"


BENCHMARKS: dict[str, Callable[[argparse.Namespace], Measured | None]] = {
    "http": http,
    "pipeline": whole_pipeline,
    "stages": where_the_time_goes,
    "rouge": summaries,
}


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="?", default="all", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--requests", type=int, default=pipeline.REQUESTS, help="at once")
    parser.add_argument("--rounds", type=int, default=pipeline.ROUNDS, help="of the pipeline")
    parser.add_argument("-o", "--output", type=Path, default=results.FOLDER, help="a folder")
    options = parser.parse_args(arguments)
    for what in BENCHMARKS if options.what == "all" else [options.what]:
        measured = BENCHMARKS[what](options)
        if measured is not None:
            page = results.write(what, *measured, options.output)
            print(page.read_text(encoding="utf-8"))
            print(f"written to {options.output.name}/{page.name} and .json\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
