"""What a request costs with many others behind it: the same whether 1,000 or 1,000,000 wait.

    python -m benchmarks backlog [--depths N ...]

The parts are measured one after the other, so that what Redis spends has one cause at a time: the
client puts requests on the queue; then a router alone, and after it a pool alone, works through
some of them. At each depth at least so many requests are in the queue all the while. Redis's own
rewriting of its log, which comes when the log has doubled, is held off.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.process import own_cpu_s, rss_mib
from benchmarks.results import markdown_table, spread, stamp
from benchmarks.system import Site
from benchmarks.yard import OURS
from modelyard import Client
from modelyard.names import REQUESTS_QUEUE, model_queue
from modelyard.settings import load_settings

TEXT: Final = "Summarize: A classification yard sorts wagons by where they go."
CHUNK: Final = 5_000
POLL_S: Final = 0.005
STUCK_S: Final = 60.0
DEEP: Final = 1_000_000
"""From here on measured once only: it takes minutes."""
DEEP_NEEDS_GIB: Final = 6.0
FLAT: Final = 0.1
NO_LIMIT: Final = {"MODELYARD_QUEUE_LIMIT": "0"}


@dataclass(frozen=True, slots=True)
class Amount:
    """How deep the queue is, and how many requests are measured, after how many to warm up."""

    depths: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000)
    window: int = 5_000
    warm_up: int = 1_000
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a part was at some time, and what had been spent until then."""

    done: int
    at_s: float
    part_cpu_s: float
    redis_cpu_s: float

    @classmethod
    def now(cls, done: int, part: int, redis: int) -> "Moment":
        """Return the present one; `part` and `redis` are process ids."""
        return cls(done, time.perf_counter(), own_cpu_s(part), own_cpu_s(redis))

    def since(self, then: "Moment") -> dict[str, float]:
        """Return rate, and milliseconds of CPU for each request, since another moment."""
        count = self.done - then.done
        if not count:
            raise RuntimeError("the window was over in one batch: measure more requests")
        return {
            "requests_per_s": count / (self.at_s - then.at_s),
            "cpu_ms": 1000 * (self.part_cpu_s - then.part_cpu_s) / count,
            "redis_cpu_ms": 1000 * (self.redis_cpu_s - then.redis_cpu_s) / count,
        }


def wait_for(target: int, done: Callable[[], int], clock: Callable[[], float]) -> int:
    """Return how many are done when it is `target` or more.

    Raises `TimeoutError` when nothing was done for a minute.
    """
    last, moved_at = -1, clock()
    while (count := done()) < target:
        if count != last:
            last, moved_at = count, clock()
        elif clock() - moved_at > STUCK_S:
            raise TimeoutError(f"stuck at {count:,} of {target:,} for {STUCK_S:g} s")
        time.sleep(POLL_S)
    return count


def fill(site: Site, amount: Amount, depth: int) -> dict[str, float]:
    """Put the requests on the queue; return what the last of them cost the client."""
    settings = load_settings().model_copy(update={"queue_limit": 0})
    before = depth + amount.warm_up
    done = 0
    with Client(site.redis_url, settings=settings) as client:
        for target in (before, before + amount.window):
            then = Moment.now(done, os.getpid(), site.redis_pid)
            while done < target:
                some = min(CHUNK, target - done)
                client.submit_many([TEXT] * some)
                done += some
        return Moment.now(done, os.getpid(), site.redis_pid).since(then)


def drain(
    site: Site, role: str, amount: Amount, done: Callable[[], int], whole: int | None = None
) -> dict[str, float]:
    """Run one part on what is queued; return what the window cost it.

    It runs on until `whole` requests are done.
    """
    with site.process(role, OURS.commands[role], NO_LIMIT) as pid:
        try:
            begun = wait_for(amount.warm_up, done, time.monotonic)
            then = Moment.now(begun, pid, site.redis_pid)
            ended = wait_for(amount.warm_up + amount.window, done, time.monotonic)
            now = Moment.now(ended, pid, site.redis_pid)
            cost = {**now.since(then), "rss_mib": rss_mib(pid)}
            if whole is not None:
                wait_for(whole, done, time.monotonic)
        except TimeoutError as error:
            site.explain(error, [role])
            raise
        return cost


def measure(depth: int, amount: Amount) -> dict[str, Any]:
    """Measure the three parts at one depth."""
    whole = depth + amount.warm_up + amount.window
    with Site.open() as site, redis.Redis.from_url(site.redis_url) as store:
        store.config_set("auto-aof-rewrite-percentage", 0)

        def length(queue: str) -> int:
            count = store.llen(queue)
            assert isinstance(count, int)
            return count

        def memory_mib() -> float:
            info = store.info("memory")
            assert isinstance(info, dict)
            return float(info["used_memory"]) / 2**20

        parts = {"client": fill(site, amount, depth)}
        queued = length(REQUESTS_QUEUE)
        if queued != whole:
            raise RuntimeError(f"{queued:,} requests are queued, not {whole:,}")
        filled_mib = memory_mib()
        routed = model_queue("small")
        parts["router"] = drain(site, "router", amount, lambda: length(routed), whole)
        routed_mib = memory_mib()
        with site.endpoint.teller() as endpoint:
            parts["pool"] = drain(site, "pool", amount, endpoint.calls)
    return {
        **parts,
        "cpu_ms": sum(part["cpu_ms"] for part in parts.values()),
        "redis_cpu_ms": sum(part["redis_cpu_ms"] for part in parts.values()),
        "redis_mib": {"submitted": filled_mib, "routed": routed_mib},
    }


def run(amount: Amount) -> dict[str, Any]:
    """Measure all depths in turns; return it as plain JSON values."""
    depths = [depth for depth in amount.depths if fits(depth)]
    rounds: dict[int, list[dict[str, Any]]] = {depth: [] for depth in depths}
    for number in range(amount.rounds):
        for depth in depths[:: -1 if number % 2 else 1]:
            if depth < DEEP or not rounds[depth]:
                print(f"backlog: {depth:,} queued", file=sys.stderr, flush=True)
                rounds[depth].append(measure(depth, amount))
    return {
        "benchmark": "backlog",
        "measured_at": stamp(),
        "window": amount.window,
        "warm_up": amount.warm_up,
        "depths": {str(depth): summary(kept) for depth, kept in rounds.items()},
        "rounds": {str(depth): kept for depth, kept in rounds.items()},
    }


def fits(depth: int, meminfo: Path = Path("/proc/meminfo")) -> bool:
    """Return whether there is the memory for it; says so if there is not."""
    if depth < DEEP:
        return True
    lines = meminfo.read_text().splitlines()
    free_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    enough = free_kib / 2**20 >= DEEP_NEEDS_GIB * depth / DEEP
    if not enough:
        print(f"backlog: {depth:,} left out, {free_kib / 2**20:.1f} GiB free", file=sys.stderr)
    return enough


PARTS: Final = ("client", "router", "pool")


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the spread of each figure of one depth."""
    return {
        **{
            part: {key: spread([each[part][key] for each in rounds]) for key in rounds[0][part]}
            for part in PARTS
        },
        "cpu_ms": spread([each["cpu_ms"] for each in rounds]),
        "redis_cpu_ms": spread([each["redis_cpu_ms"] for each in rounds]),
        "redis_mib": {
            key: spread([each["redis_mib"][key] for each in rounds])
            for key in rounds[0]["redis_mib"]
        },
    }


def growth(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the cost of a request at each depth, Redis included, over that at the least depth."""
    costs = {
        depth: figures["cpu_ms"]["median"] + figures["redis_cpu_ms"]["median"]
        for depth, figures in result["depths"].items()
    }
    least = costs[min(costs, key=int)]
    return {depth: cost / least for depth, cost in costs.items()}


def table(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown."""
    grown = growth(result)
    rows = []
    for depth, figures in result["depths"].items():
        parts = [figures[part] for part in PARTS]
        rows.append(
            (
                f"{int(depth):,}",
                *(f"{part['requests_per_s']['median']:,.0f}" for part in parts),
                *(f"{part['cpu_ms']['median']:.3f}" for part in parts),
                f"{figures['redis_cpu_ms']['median']:.3f}",
                f"{figures['cpu_ms']['median'] + figures['redis_cpu_ms']['median']:.3f}",
                f"{100 * (grown[depth] - 1):+.1f} %",
                f"{figures['redis_mib']['submitted']['median']:,.0f}",
            )
        )
    head = (
        *("queued", "submitted/s", "routed/s", "called/s"),
        *("client, CPU ms", "router", "pool", "Redis", "all", "against the least"),
        "Redis, MiB",
    )
    flat = all(abs(ratio - 1) <= FLAT for ratio in grown.values())
    intro = (
        f"Each part by itself, {result['window']:,} requests after {result['warm_up']:,} to warm "
        "up, with at least so many in the queue. Medians of the rounds. "
        f"Flat within {100 * FLAT:.0f} %: {'yes' if flat else 'no'}."
    )
    return intro + "\n\n" + markdown_table(head, rows)
