"""Which pools and sizes are best for the plain Celery app: each is measured once or more.

    python -m benchmarks.plain_celery.trial [--requests N] [--rounds N]

The gevent pool runs in an environment of its own, `.venv-gevent`, with the project's versions.
"""

import argparse
from collections.abc import Iterator
from importlib.metadata import version

from benchmarks.environment import Environment
from benchmarks.load import TOGETHER, at_once, one_at_a_time
from benchmarks.plain_celery.system import plain_celery, pool
from benchmarks.results import markdown_table, percentile, spread
from benchmarks.system import System, running

SINGLES = 50


def candidates(gevent: str) -> Iterator[System]:
    """Yield the app with each pool; `gevent` is the Python that has it."""
    solo = pool("solo", 1, 100)
    for concurrency, prefetch in ((20, 1), (50, 1), (50, 4), (100, 1)):
        call = pool("threads", concurrency, prefetch)
        yield plain_celery(solo, call, name=f"solo, {concurrency} threads x {prefetch}")
    yield plain_celery(
        pool("threads", 4, 25), pool("threads", 50, 1), name="4 threads, 50 threads x 1"
    )
    yield plain_celery(
        pool("prefork", 2, 50), pool("threads", 50, 1), name="2 processes, 50 threads x 1"
    )
    yield plain_celery(
        pool("prefork", 2, 50), pool("prefork", 8, 4), name="2 processes, 8 processes x 4"
    )
    for concurrency, prefetch in ((50, 1), (50, 4), (100, 1)):
        call = pool("gevent", concurrency, prefetch)
        name = f"solo, {concurrency} greenlets x {prefetch}"
        yield plain_celery(solo, call, name=name, python=gevent)
    yield plain_celery(
        pool("gevent", 50, 2), pool("gevent", 50, 1), name="50 greenlets, 50 x 1", python=gevent
    )


def main() -> None:
    """Measure them in turns and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_celery.trial")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="candidates whose name contains this")
    options = parser.parse_args()
    names = ("celery", "kombu", "redis", "hiredis", "httpx")
    same = (f"{name}=={version(name)}" for name in names)
    # celery[redis] brings `packaging`, which kombu's transport imports.
    environment = Environment.of("gevent", *same, "celery[redis]", "gevent")
    environment.make()
    found: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(options.rounds):
        for system in candidates(environment.program("python")):
            if options.only not in system.name:
                continue
            with running(system) as run:
                p50_ms = percentile(one_at_a_time(run.producer, SINGLES), 50)
                cost = at_once(run, options.requests)
            figures = cost["requests_per_s"], cost["cpu_ms"][TOGETHER], p50_ms
            found.setdefault(system.name, []).append(figures)
            print(system.name, *(f"{figure:.4g}" for figure in figures), flush=True)
    rows = []
    for name, rounds in found.items():
        medians = [spread(values)["median"] for values in zip(*rounds, strict=True)]
        rows.append((name, *(f"{value:.4g}" for value in medians)))
    head = ("route, call", "requests/s", "CPU ms a request", "p50 of one, ms")
    print(markdown_table(head, rows))


if __name__ == "__main__":
    main()
