"""`python -m router_worker.learned train|evaluate`: what `modelyard train` and `evaluate` run."""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelyard.errors import ModelyardError
from router_worker.learned import tables
from router_worker.learned.commands import evaluate, train
from router_worker.learned.plots import plot


def main(arguments: Sequence[str]) -> int:
    """Run one of the two. The exit code is 2 for wrong input, which is told."""
    given = parser().parse_args(arguments)
    try:
        # A function that makes embeddings may print, and a program reads JSON here.
        with contextlib.redirect_stdout(sys.stderr):
            found, words = run(given)
    except ModelyardError as error:
        if given.json:
            sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write((json.dumps(found) if given.json else words) + "\n")
    return 0


def run(given: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Return what came of the command, and that for people. Raises `ModelyardError`."""
    if given.command == "train":
        found = train(given.data, given.output, seed=given.seed, embeddings=given.embeddings)
        return found, tables.training(found)
    found = evaluate(
        given.data,
        given.model,
        seed=given.seed,
        pair=pair(given.weak, given.strong),
        prices=dict(price(each) for each in given.price),
        embeddings=given.embeddings,
    )
    words = tables.evaluation(found)
    if given.plot is not None:
        plot(found, given.plot)
    return found, words


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    whole = argparse.ArgumentParser(prog="python -m router_worker.learned")
    commands = whole.add_subparsers(dest="command", required=True)
    for name in ("train", "evaluate"):
        each = commands.add_parser(name)
        each.add_argument("data", nargs="+", type=Path)
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--embeddings")
        each.add_argument("--json", action="store_true")
        if name == "train":
            each.add_argument("--output", type=Path, required=True)
        else:
            each.add_argument("--model")
            each.add_argument("--plot", type=Path)
            each.add_argument("--weak")
            each.add_argument("--strong")
            each.add_argument("--price", action="append", default=[])
    return whole


def pair(weak: str | None, strong: str | None) -> tuple[str, str] | None:
    """Return the two models to compare. Raises `ModelyardError` if only one is given."""
    if weak is None and strong is None:
        return None
    if weak is None or strong is None:
        raise ModelyardError("give both --weak and --strong, or neither")
    return weak, strong


def price(given: str) -> tuple[str, float]:
    """Return MODEL=COST as a pair. Raises `ModelyardError`."""
    name, _, cost = given.rpartition("=")
    try:
        value = float(cost)
    except ValueError:
        value = -1.0
    if not name or not 0.0 <= value < float("inf"):
        raise ModelyardError(f"--price takes MODEL=COST of a call, not {given!r}")
    return name, value


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
