"""What is done to a running system, and what is measured: rates, times, CPU and memory."""

import gc
import os
import random
import time
from typing import Any, Final

from benchmarks.pace import arrivals
from benchmarks.process import cpu_s, own_cpu_s, rss_mib
from benchmarks.results import percentile
from benchmarks.system import NOT_COUNTED, PROMPT, TIMEOUT_S, Producer, Running

PAUSE_S: Final = 0.01
"""Between two requests one at a time: the workers' trailing acks and events are not waited for."""
TOGETHER: Final = "together"
SEED: Final = 3


def one_at_a_time(producer: Producer, count: int) -> list[float]:
    """Return the milliseconds from submit to answer of `count` requests, one after the other."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        producer.one(PROMPT, TIMEOUT_S)
        times.append(1000 * (time.perf_counter() - started))
        time.sleep(PAUSE_S)
    return times


def spent_s(system: Running) -> dict[str, float]:
    """Return the CPU seconds of each part until now; the client is this process."""
    # All the others are its children, which are counted by themselves.
    own = {"client": own_cpu_s(os.getpid())}
    return own | {role: cpu_s(pid) for role, pid in system.pids.items()}


def at_once(system: Running, count: int) -> dict[str, Any]:
    """Submit `count` requests at once; return the rate, and what each process spent on it.

    CPU times are milliseconds for each request; `together` is without Redis and the endpoint.
    """
    texts = [PROMPT] * count
    gc.collect()
    before = spent_s(system)
    started = time.perf_counter()
    answered = system.producer.many(texts, TIMEOUT_S)
    elapsed = time.perf_counter() - started
    spent = {role: seconds - before[role] for role, seconds in spent_s(system).items()}
    if answered != count:
        raise RuntimeError(f"{answered} of {count} requests were answered")
    counted = sum(seconds for role, seconds in spent.items() if role not in NOT_COUNTED)
    return {
        "requests": count,
        "requests_per_s": count / elapsed,
        "cpu_ms": {
            **{role: 1000 * seconds / count for role, seconds in spent.items()},
            TOGETHER: 1000 * counted / count,
        },
        "busy": {role: seconds / elapsed for role, seconds in spent.items()},
        "rss_mib": {role: rss_mib(pid) for role, pid in system.pids.items()},
    }


def at_a_rate(system: Running, rate_per_s: float, seconds: float, round: int) -> dict[str, Any]:
    """Submit by a Poisson process; return the rate and the milliseconds from due to answer."""
    at_s = arrivals(rate_per_s, seconds, random.Random(f"{SEED}:{round}")) or [0.0]
    took = system.producer.paced(PROMPT, at_s, TIMEOUT_S)
    return {
        "requests": len(took),
        "requests_per_s": rate_per_s,
        "p50_ms": percentile(took, 50),
        "p99_ms": percentile(took, 99),
    }
