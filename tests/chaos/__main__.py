"""Run storms and say what they broke: `python -m chaos [--storm NAME ...]`.

Without `--storm` all of them run, over modelyard and over the peer, each on fresh processes. Exit
code 1 if modelyard broke a promise. The seed decides the faults; it is printed, and `--seed` takes
it again. With `--keep` a run that was interrupted goes on where it was.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from benchmarks.results import stamp
from chaos import systems
from chaos.checker import Report, check, failures
from chaos.grounds import Grounds
from chaos.load import Load
from chaos.report import Ran, measured, table, write
from chaos.run import Patience, run_storm
from chaos.storms import BY_NAME, STORMS, Storm

REQUESTS: Final = 2_000
CALM_REQUESTS: Final = 100_000
CALM_REQUESTS_OF_PEER: Final = 10_000
"""It needs minutes for these."""
PER_S: Final = 50.0
LEASE_S: Final = 3.0
PATIENCE_S: Final = 30.0
PEER_PATIENCE_S: Final = 120.0
"""Kombu gives a dead worker's messages back late: what comes at all is not stranded."""
DEFAULT_LEASE_S: Final = 10.0
WITH_DEFAULT_LEASE: Final = ("kill-workers", "mixed")
"""These run with the default lease too, in the long run."""
RAN: Final = TypeAdapter(Ran)


def load_of(storm: Storm, requests: int, per_s: float, lease_s: float) -> Load:
    """Return what is submitted in a storm."""
    return Load(
        storm.name,
        requests,
        storm.chunk,
        0.0 if storm.at_once else per_s,
        storm.crash_every,
        storm.sleep_every,
        storm.sleep_leases * lease_s,
        storm.strategies,
    )


def one(
    storm: Storm, system: systems.System, load: Load, lease_s: float, seed: int, logs: Path | None
) -> Ran:
    """Run one storm on fresh processes; its logs are kept in `logs`, if given."""
    folder = logs or Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        with Grounds(
            folder, system, lease_s=lease_s, fsync=storm.fsync, proxied=storm.proxy
        ) as grounds:
            seconds = load.due_s(load.count)
            patience = Patience(
                PEER_PATIENCE_S if system.key == "peer" else max(PATIENCE_S, 10 * lease_s)
            )
            evidence = run_storm(
                grounds, storm, load, seed=seed, seconds=seconds, patience=patience
            )
    finally:
        if logs is None:
            shutil.rmtree(folder, ignore_errors=True)
    report = check(evidence)
    broken = failures(
        report,
        two_leases_s=2 * lease_s if storm.takeover else None,
        flat=storm.flat and load.count >= CALM_REQUESTS,
    )
    return Ran(storm, system.name, lease_s, seed, report, tuple(broken))


def calm_requests(system: systems.System, *, alone: bool, usual: int) -> int:
    """Return how many requests a run without faults has."""
    if alone:
        return usual
    return CALM_REQUESTS_OF_PEER if system.key == "peer" else CALM_REQUESTS


def details(report: Report) -> str:
    """Return the counts that the table leaves out."""
    return (
        f"{report.executions} calls in {report.duration_s:.1f} s, "
        f"{len(report.paid_twice_unexplained)} paid twice without a reason, "
        f"{len(report.unheard)} outcomes nobody was told, {len(report.left_over)} left over, "
        f"{report.never_taken_over} never taken over, router recoveries "
        f"{[round(value, 1) for value in report.router_recoveries_s]}, "
        f"memory {report.memory_growth:+.1%}"
    )


def plan(options: argparse.Namespace) -> list[tuple[Storm, systems.System, float]]:
    """Return what is to run: storm, system and lease."""
    storms = [BY_NAME[name] for name in options.storm] or list(STORMS)
    make: list[Callable[[], systems.System]] = [systems.ours, systems.peer]
    if options.storm or options.only:
        make = [systems.peer] if options.only == "peer" else [systems.ours]
    runs = [
        (storm, system(), options.lease_s)
        for storm in storms
        for system in make
        if not (storm.strategies and system is systems.peer)
    ]
    if not options.storm and options.only != "peer":
        extra = [BY_NAME[name] for name in WITH_DEFAULT_LEASE]
        runs += [(storm, systems.ours(), DEFAULT_LEASE_S) for storm in extra]
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--storm", action="append", default=[], choices=sorted(BY_NAME))
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each storm")
    parser.add_argument("--calm-requests", type=int, default=None, help="of the storm `calm`")
    parser.add_argument("--per-s", type=float, default=PER_S, help="pace of the submits")
    parser.add_argument("--lease-s", type=float, default=LEASE_S)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=("ours", "peer"), help="of the two systems")
    parser.add_argument("--keep", type=Path, help="a folder of results: what is there is not run")
    parser.add_argument("--keep-logs", type=Path, help="a folder for all logs")
    parser.add_argument("--write", type=Path, help="a page to write the tables into")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    begun_at, runs = stamp(), []
    for storm, system, lease_s in plan(options):
        count = options.requests
        if storm.at_once:
            count = options.calm_requests or calm_requests(
                system, alone=bool(options.storm), usual=count
            )
        logs: Path | None = None
        if options.keep_logs is not None:
            logs = options.keep_logs.resolve() / f"{storm.name}-{system.key}-{lease_s:g}s"
            shutil.rmtree(logs, ignore_errors=True)
            logs.mkdir(parents=True)
        kept = options.keep and options.keep / f"{storm.name}-{system.key}-{lease_s:g}s.json"
        if kept and kept.exists():
            runs.append(RAN.validate_json(kept.read_bytes()))
            continue
        print(f"{storm.name}, {system.name}, seed {seed}: {storm.about}", flush=True)
        began = time.monotonic()
        load = load_of(storm, count, options.per_s, lease_s)
        ran = one(storm, system, load, lease_s, seed, logs)
        runs.append(ran)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(RAN.dump_json(ran, indent=2))
        print(f"  {time.monotonic() - began:.0f} s; {details(ran.report)}")
        for failure in ran.failures:
            print(f"  BROKEN: {failure}", flush=True)
    print(table(runs))
    if options.write is not None:
        write(options.write, measured(runs, begun_at))
    ours = systems.ours().name
    return int(any(ran.failures and ran.system == ours for ran in runs))


if __name__ == "__main__":
    sys.exit(main())
