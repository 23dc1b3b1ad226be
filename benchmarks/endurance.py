"""Many requests without faults: each is called once, and the workers' memory stays as it is.

python -m benchmarks endurance [--requests N]
"""

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.process import rss_mib
from benchmarks.results import markdown_table, stamp
from benchmarks.system import PROMPT, TIMEOUT_S, running
from benchmarks.yard import OURS
from modelyard import Client
from modelyard.handle import Handle

FLAT: Final = 0.05
CHUNKS_OPEN: Final = 4
WORKERS: Final = ("router", "pool")


@dataclass(frozen=True, slots=True)
class Amount:
    """How many requests, after how many of them the workers count as warm, and how many at once.

    `chunk` divides the other two.
    """

    requests: int = 100_000
    warm: int = 10_000
    chunk: int = 1_000

    @property
    def samples_every(self) -> int:
        """After how many requests memory is read."""
        return max(self.chunk, self.warm)


def run(amount: Amount) -> dict[str, Any]:
    """Send the requests, a few chunks ahead; return it as plain JSON values."""
    samples: list[dict[str, float]] = []
    with running(OURS, warm_up=0, count=True) as yard, Client(yard.site.redis_url) as client:
        workers = {role: yard.pids[role] for role in WORKERS}
        with yard.site.endpoint.teller() as endpoint:
            before = endpoint.report()
            started = time.perf_counter()
            chunks: deque[list[Handle]] = deque()
            answered = submitted = 0
            while submitted < amount.requests or chunks:
                if submitted < amount.requests and len(chunks) < CHUNKS_OPEN:
                    some = min(amount.chunk, amount.requests - submitted)
                    chunks.append(client.submit_many([PROMPT] * some))
                    submitted += some
                    continue
                answered += completed(client, chunks.popleft())
                if answered % amount.samples_every == 0 or answered == amount.requests:
                    print(f"endurance: {answered:,} answered", file=sys.stderr, flush=True)
                    samples.append(
                        {
                            "answered": answered,
                            **{role: rss_mib(pid) for role, pid in workers.items()},
                        }
                    )
            elapsed = time.perf_counter() - started
            report = endpoint.report()
    return {
        "benchmark": "endurance",
        "measured_at": stamp(),
        "requests": amount.requests,
        "answered": answered,
        "requests_per_s": answered / elapsed,
        "calls": report["calls"] - before["calls"],
        "ids_called": report["ids"] - before["ids"],
        "doubled": report["doubled"],
        "warm_at": samples[0]["answered"],
        "rss_mib": samples,
        "growth": {role: samples[-1][role] / samples[0][role] - 1 for role in WORKERS},
    }


def completed(client: Client, handles: Sequence[Handle]) -> int:
    """Return how many were answered; raises what one of them ended in, or `ResultTimeout`."""
    return sum(1 for handle in client.as_completed(handles, TIMEOUT_S) if handle.result(0).text)


def table(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown."""
    once = not result["doubled"] and result["calls"] == result["requests"]
    flat = all(grown <= FLAT for grown in result["growth"].values())
    intro = (
        f"{result['requests']:,} requests, {result['answered']:,} answered, "
        f"{result['calls']:,} calls of {result['ids_called']:,} ids, {len(result['doubled'])} ids "
        f"called more than once; {result['requests_per_s']:,.0f} requests/s. "
        f"Each called once: {'yes' if once else 'no'}. Memory grows by at most "
        f"{100 * FLAT:.0f} % after {result['warm_at']:,}: {'yes' if flat else 'no'} ("
        + ", ".join(f"{role} {100 * grown:+.1f} %" for role, grown in result["growth"].items())
        + ")."
    )
    rows = [
        (f"{sample['answered']:,}", *(f"{sample[role]:.1f}" for role in WORKERS))
        for sample in result["rss_mib"]
    ]
    return intro + "\n\n" + markdown_table(("answered", *(f"{w}, MiB" for w in WORKERS)), rows)
