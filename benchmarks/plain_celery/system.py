"""The plain Celery app as a measured system, with the pools and sizes that suit it best.

They were chosen by `benchmarks.plain_celery.trial` (2026-11-23, 2 cores shared with other work, so
CPU time is the figure to trust; ms of CPU a request without Redis and the endpoint):

| route | call | CPU ms | requests/s |
| --- | --- | ---: | ---: |
| solo, 100 prefetched | 50 threads, 1 prefetched for each | 5.2 to 5.6 | 171 |
| solo, 100 prefetched | 50 threads, 4 prefetched for each | 5.3 to 5.8 | 138 |
| 4 threads | 50 threads | 5.8 to 6.5 | 158 |
| 2 processes | 50 threads | 5.8 to 6.7 | 115 |
| solo | 20 and 100 threads, once each | 5.0 and 5.6 | 166 and 174 |
| 2 processes | 8 processes, 4 prefetched for each, once | 7.6 | 93 |
| solo | 50 and 100 greenlets (gevent 26.9), once each | 8.1 and 8.5 | 46 and 52 |

20 threads are within the noise of 50, which is what modelyard may have in flight too.
"""

import sys
from collections.abc import Sequence
from typing import Final

from benchmarks.plain_celery.client import PlainClient
from benchmarks.plain_celery.settings import CALLS, REQUESTS
from benchmarks.system import CONCURRENCY, System

AT_MOST_S: Final = 20.0


def worker_command(queue: str, *options: str, python: str = sys.executable) -> list[str]:
    """Return the command line of a worker of one queue, with the flags of modelyard's own."""
    return [
        *(python, "-m", "celery", "-A", "benchmarks.plain_celery.tasks", "worker"),
        *("-n", f"{queue}@%h", "-Q", queue, "-E", "--without-gossip", "--loglevel", "INFO"),
        *options,
    ]


def pool(kind: str, concurrency: int, prefetch: int) -> Sequence[str]:
    """Return a worker's options for how it runs tasks; `prefetch` is for each place of the pool."""
    return (
        *("--pool", kind, "--concurrency", str(concurrency)),
        *("--prefetch-multiplier", str(prefetch)),
    )


def plain_celery(
    route: Sequence[str],
    call: Sequence[str],
    *,
    name: str = "plain Celery",
    python: str = sys.executable,
) -> System:
    """Return the app with these options for its two workers."""
    commands = {
        "router": worker_command(REQUESTS, *route, python=python),
        "pool": worker_command(CALLS, *call, python=python),
    }
    return System(name, commands, PlainClient, at_most_s=AT_MOST_S)


PLAIN_CELERY: Final = plain_celery(pool("solo", 1, 100), pool("threads", CONCURRENCY, 1))
