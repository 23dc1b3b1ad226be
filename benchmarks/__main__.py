"""Run the benchmarks and write their results: `python -m benchmarks [WHAT] [--quick]`.

`http`: CPU time of a model call by HTTP client. `pipeline`: overhead and throughput beside a plain
Celery app. `litellm`: the same beside LiteLLM's proxy, which is installed into `.venv-litellm` when
it is first asked for (left out, with a line that says so, where that fails). `balancing`: three
endpoints of one model, beside LiteLLM's Router. `backlog`: the cost of a request by how many are
queued. `endurance`: many requests, each called once, in flat memory. `waiting`: a pool that holds a
thousand slow calls. `stages`: where the CPU time of a request goes. `decisions`: the router's
decisions per second, beside scikit-learn's classifier (left out where that is not installed).
`routing`: how well the learned classifier and predictor decide on public data (left out where that
is missing). `rouge`: quality of the extractive summaries (left out where its data is missing).
`--quick` is for trying them out: its figures say little.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import (
    backlog,
    balancing,
    comparison,
    decisions,
    endurance,
    gateway,
    http_client,
    pipeline,
    results,
    rouge,
    routing,
    stages,
    waiting,
)
from benchmarks.environment import NoEnvironment

Measured = tuple[dict[str, Any], str]


def http(_: argparse.Namespace) -> Measured:
    """CPU time of a model call by HTTP client."""
    measured = http_client.run()
    return measured, http_client.table(measured)


def amount(options: argparse.Namespace) -> comparison.Amount:
    """How much of a comparison was asked for."""
    whole = comparison.Amount()
    if options.quick:
        whole = comparison.Amount(requests=500, rounds=1, singles=20, paced_s=2.0, warm_up=100)
    return replace(
        whole,
        requests=options.requests or whole.requests,
        rounds=options.rounds or whole.rounds,
        # A run of a few requests is a trial: so is what goes before them.
        warm_up=min(whole.warm_up, options.requests or whole.warm_up),
    )


def beside_celery(options: argparse.Namespace) -> Measured:
    """Overhead and throughput beside a plain Celery app."""
    measured = pipeline.run(amount(options))
    return measured, pipeline.table(measured)


def beside_litellm(options: argparse.Namespace) -> Measured | None:
    """Overhead and throughput beside LiteLLM's proxy; None without it."""
    try:
        measured = gateway.run(amount(options), install=not options.no_install)
    except NoEnvironment as error:
        print(f"litellm: left out, LiteLLM is not installed: {error}", file=sys.stderr)
        return None
    return measured, gateway.table(measured)


def over_endpoints(options: argparse.Namespace) -> Measured:
    """Three endpoints of one model, beside LiteLLM's Router."""
    seconds = 25.0 if options.quick else balancing.SECONDS
    rounds = options.rounds or (1 if options.quick else balancing.ROUNDS)
    measured = balancing.run(install=not options.no_install, seconds=seconds, rounds=rounds)
    return measured, balancing.table(measured)


def with_a_backlog(options: argparse.Namespace) -> Measured:
    """The cost of a request by how many are queued."""
    whole = backlog.Amount()
    if options.quick:
        whole = backlog.Amount(depths=(500, 2_000), window=1_500, warm_up=500, rounds=1)
    measured = backlog.run(
        replace(
            whole,
            depths=options.depths or whole.depths,
            window=options.requests or whole.window,
            rounds=options.rounds or whole.rounds,
        )
    )
    return measured, backlog.table(measured)


def for_long(options: argparse.Namespace) -> Measured:
    """Many requests, each called once, in flat memory."""
    requests = options.requests or (2_000 if options.quick else endurance.Amount().requests)
    warm = max(1, requests // 10)
    whole = endurance.Amount(requests, warm, min(endurance.Amount().chunk, warm))
    measured = endurance.run(whole)
    return measured, endurance.table(measured)


def many_in_flight(options: argparse.Namespace) -> Measured:
    """Memory and CPU of a pool that waits for many calls."""
    calls = options.requests or (50 if options.quick else waiting.CALLS)
    measured = waiting.run(calls, 3.0 if options.quick else waiting.LATENCY_S)
    return measured, waiting.table(measured)


def where_the_time_goes(options: argparse.Namespace) -> Measured:
    """CPU time by stage."""
    measured = stages.run(options.requests or (200 if options.quick else stages.REQUESTS))
    return measured, stages.table(measured)


def routing_quality(_: argparse.Namespace) -> Measured | None:
    """How well the learned parts decide; None without the data."""
    data = Path(os.environ.get("MODELYARD_DATA") or rouge.ROOT.parent / "shared" / "data")
    missing = [name for name in routing.FILES if not (data / name).is_file()]
    if missing:
        print(f"routing: left out, no {' and '.join(missing)}: set MODELYARD_DATA", file=sys.stderr)
        return None
    measured = routing.run(data)
    return measured, routing.table(measured)


def decisions_per_second(options: argparse.Namespace) -> Measured | None:
    """The router's decisions per second; None without the peer."""
    if importlib.util.find_spec("sklearn") is None:
        print("decisions: left out, no scikit-learn: pip install modelyard[train]", file=sys.stderr)
        return None
    measured = decisions.run(options.rounds or (2 if options.quick else decisions.ROUNDS))
    return measured, decisions.table(measured)


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
    "pipeline": beside_celery,
    "litellm": beside_litellm,
    "balancing": over_endpoints,
    "backlog": with_a_backlog,
    "endurance": for_long,
    "waiting": many_in_flight,
    "stages": where_the_time_goes,
    "decisions": decisions_per_second,
    "routing": routing_quality,
    "rouge": summaries,
}


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="?", default="all", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--quick", action="store_true", help="little of everything, as a trial")
    parser.add_argument("--requests", type=int, help="how many are measured (default: by WHAT)")
    parser.add_argument("--rounds", type=int, help="how often (default: by WHAT)")
    parser.add_argument("--depths", type=int, nargs="+", help="of the backlog")
    parser.add_argument("--no-install", action="store_true", help="install no peer")
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
