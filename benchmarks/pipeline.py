"""The whole pipeline with an endpoint that answers at once, beside a plain Celery app.

    python -m benchmarks pipeline [--requests N]

All of it runs on this machine: a Redis of its own for each measurement, the endpoint, a router
worker and one pool worker, each a real process. The two systems take turns. As the endpoint needs
no time, all of the time is the pipeline's. Linux only: CPU time and memory are read from /proc.
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.plain_celery.client import PlainClient, call_command, route_command
from benchmarks.results import markdown_table, percentile, spread, stamp
from modelyard import Client
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.messages import Request
from modelyard.processes import leashed, log_tail
from producer.commands import model_command, router_command

ROOT = Path(__file__).resolve().parent.parent
CONCURRENCY = 50
ROUNDS = 3
SINGLES = 200
REQUESTS = 2_000
WARM_UP = 100
PAUSE_S = 0.01
"""Between two requests one at a time: the workers' trailing acks and events are not waited for."""
TIMEOUT_S = 120.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROMPT = "Summarize: A classification yard sorts wagons by where they go. " * 8

CATALOG = """
models:
  - name: small
    provider: openai
    endpoints: [{{base_url: "{base_url}"}}]
    price: {{input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.60}}
    concurrency: {concurrency}
routes:
  default:
    rules:
      - {{when: {{keywords: [summarize, tl;dr]}}, intent: summarize, models: [small]}}
    otherwise: [small]
"""


class Producer(Protocol):
    """A client of one of the systems."""

    def one(self, payload: dict[str, Any], timeout_s: float) -> str:
        """Submit one request, wait for its answer and return its text."""

    def many(self, payloads: Sequence[dict[str, Any]], timeout_s: float) -> int:
        """Submit all, wait for all and return how many were answered."""

    def close(self) -> None:
        """Let go of the broker."""


class YardProducer:
    """modelyard's client. It keeps the timings that came with the last single answers."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        self.timings: list[dict[str, float]] = []

    def one(self, payload: dict[str, Any], timeout_s: float) -> str:
        answer = self._client.submit(Request.decode(payload)).result(timeout_s)
        self.timings.append(answer.timings.model_dump())
        return answer.text

    def many(self, payloads: Sequence[dict[str, Any]], timeout_s: float) -> int:
        handles = self._client.submit_many([Request.decode(payload) for payload in payloads])
        return sum(1 for _ in self._client.as_completed(handles, timeout_s))

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True, slots=True)
class System:
    """One of the two: its worker commands by role, and its client."""

    name: str
    commands: Mapping[str, Sequence[str]]
    connect: Callable[[str], Producer]


OURS = System(
    "modelyard", {"router": router_command(), "pool": model_command("small")}, YardProducer
)
PEER = System(
    "plain Celery", {"router": route_command(), "pool": call_command(CONCURRENCY)}, PlainClient
)


@dataclass(frozen=True, slots=True)
class Running:
    """A system that runs: its client, and the process ids by role."""

    producer: Producer
    pids: Mapping[str, int]


@contextlib.contextmanager
def process(command: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[int]:
    """Run a command until the block ends; yield its process id."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            leashed(command), stdout=output, stderr=subprocess.STDOUT, env=env, cwd=ROOT
        )
    try:
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def endpoint(folder: Path) -> Iterator[tuple[str, int]]:
    """Run the endpoint as a process of its own; yield its base_url and process id."""
    log = folder / "endpoint.log"
    with process([sys.executable, "-m", "modelyard.testing"], log, os.environ) as pid:
        deadline = time.monotonic() + 30.0
        while not (said := log.read_text()).endswith("\n"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the endpoint did not start within 30 s: {said}")
            time.sleep(0.02)
        yield said.splitlines()[-1], pid


@contextlib.contextmanager
def running(system: System) -> Iterator[Running]:
    """Start Redis, the endpoint and the system's workers; yield them when they answer."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        base_url, endpoint_pid = stack.enter_context(endpoint(folder))
        redis = stack.enter_context(EmbeddedRedis(folder / "state"))
        catalog = folder / "catalog.yaml"
        catalog.write_text(CATALOG.format(base_url=base_url, concurrency=CONCURRENCY))
        env = {
            **os.environ,
            "MODELYARD_BROKER_URL": redis.url,
            "MODELYARD_CATALOG": str(catalog),
            "PLAIN_BROKER_URL": redis.url,
            "PLAIN_BASE_URL": base_url,
            "PLAIN_CONCURRENCY": str(CONCURRENCY),
        }
        logs = {role: folder / f"{role}.log" for role in system.commands}
        pids = {
            role: stack.enter_context(process(command, logs[role], env))
            for role, command in system.commands.items()
        }
        producer = system.connect(redis.url)
        stack.callback(producer.close)
        try:
            warm_up(producer)
        except Exception as error:
            for role, log in logs.items():
                error.add_note(f"the end of the {role}'s log:\n{log_tail(log)}")
            raise
        yield Running(producer, {**pids, "redis": redis.pid, "endpoint": endpoint_pid})


def payload() -> dict[str, Any]:
    """Return one request as JSON, the same for both systems."""
    return Request.model_validate({"text": PROMPT, "submitted_at": time.time()}).encode()


def warm_up(producer: Producer) -> None:
    """Return when the workers answer and have opened their connections."""
    producer.one(payload(), TIMEOUT_S)
    producer.many([payload() for _ in range(WARM_UP)], TIMEOUT_S)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its ended children have spent (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_S


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return round(kib / 1024, 1)


def one_at_a_time(producer: Producer, count: int) -> list[float]:
    """Return the milliseconds from submit to answer of `count` requests, one after the other."""
    times = []
    for _ in range(count):
        request = payload()
        started = time.perf_counter()
        producer.one(request, TIMEOUT_S)
        times.append(1000 * (time.perf_counter() - started))
        time.sleep(PAUSE_S)
    return times


def at_once(system: Running, count: int) -> dict[str, Any]:
    """Submit `count` requests at once; return the rate, and what each process spent on it."""
    pids = {"client": os.getpid(), **system.pids}
    requests = [payload() for _ in range(count)]
    gc.collect()
    before = {role: cpu_s(pid) for role, pid in pids.items()}
    started = time.perf_counter()
    answered = system.producer.many(requests, TIMEOUT_S)
    elapsed = time.perf_counter() - started
    spent = {role: cpu_s(pid) - before[role] for role, pid in pids.items()}
    if answered != count:
        raise RuntimeError(f"{answered} of {count} requests were answered")
    ours = sum(spent.values()) - spent["endpoint"]
    return {
        "requests_per_s": count / elapsed,
        "cpu_s_per_1000": {
            **{role: 1000 * seconds / count for role, seconds in spent.items()},
            "all but the endpoint": 1000 * ours / count,
        },
        "busy": {role: seconds / elapsed for role, seconds in spent.items()},
        "rss_mib": {role: rss_mib(pid) for role, pid in system.pids.items()},
    }


def measure(system: System, requests: int, singles: int) -> dict[str, Any]:
    """Measure one system once, from its start to its end."""
    with running(system) as run:
        if isinstance(run.producer, YardProducer):
            run.producer.timings.clear()
        times = one_at_a_time(run.producer, singles)
        result: dict[str, Any] = {
            "p50_ms": percentile(times, 50),
            "p99_ms": percentile(times, 99),
            **at_once(run, requests),
        }
        if isinstance(run.producer, YardProducer):
            kept = run.producer.timings
            stages = {key: percentile([each[key] for each in kept], 50) for key in kept[0]}
            result["timings_p50_ms"] = {**stages, "submit_to_answer_ms": result["p50_ms"]}
        return result


def run(
    requests: int = REQUESTS, *, rounds: int = ROUNDS, singles: int = SINGLES
) -> dict[str, Any]:
    """Measure both systems in turn; return it as plain JSON values."""
    ours: list[dict[str, Any]] = []
    peer: list[dict[str, Any]] = []
    for number in range(rounds):
        # Who comes first changes: a machine that slows down must not favour one of them.
        for system, kept in ((OURS, ours), (PEER, peer))[:: -1 if number % 2 else 1]:
            kept.append(measure(system, requests, singles))
    return {
        "benchmark": "pipeline",
        "measured_at": stamp(),
        "requests": requests,
        "singles": singles,
        "concurrency": CONCURRENCY,
        "prompt_chars": len(PROMPT),
        "figures": figures(ours, peer),
        "timings_p50_ms": across([each["timings_p50_ms"] for each in ours]),
        "rounds": {OURS.name: ours, PEER.name: peer},
    }


def across(rounds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the spread of each figure over the rounds."""
    return {key: spread([each[key] for each in rounds]) for key in rounds[0]}


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return nested figures under joined names: `cpu_s_per_1000 router`."""
    flattened: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            flattened |= flat(value, f"{prefix}{key} ")
        else:
            flattened[prefix + key] = value
    return flattened


def figures(
    ours: Sequence[Mapping[str, Any]], peer: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return each figure of both systems, and the ratio ours / peer round by round."""
    left, right = [flat(each) for each in ours], [flat(each) for each in peer]
    return {
        name: {
            "ours": spread([each[name] for each in left]),
            "peer": spread([each[name] for each in right]),
            "ratio": spread(
                [mine[name] / its[name] for mine, its in zip(left, right, strict=True)]
            ),
        }
        for name in left[0]
        if all(each.get(name) for each in (*left, *right))
    }


WORDS = {
    "p50_ms": "one at a time, p50, ms",
    "p99_ms": "one at a time, p99, ms",
    "requests_per_s": "all at once, requests/s",
    "cpu_s_per_1000": "CPU s per 1,000 requests,",
    "busy": "share of a core used,",
    "rss_mib": "memory, MiB,",
}


def table(result: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown: medians, and the ratio with its least and most."""
    rows = []
    for name, figure in result["figures"].items():
        key, _, role = name.partition(" ")
        ratio = figure["ratio"]
        rows.append(
            (
                f"{WORDS[key]} {role}".strip(),
                f"{figure['ours']['median']:.3g}"
                if key != "requests_per_s"
                else f"{figure['ours']['median']:.0f}",
                f"{figure['peer']['median']:.3g}"
                if key != "requests_per_s"
                else f"{figure['peer']['median']:.0f}",
                f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})",
            )
        )
    rounds = len(result["rounds"][OURS.name])
    intro = (
        f"{rounds} rounds each in turn: {result['singles']} requests one at a time, then "
        f"{result['requests']:,} at once; {result['concurrency']} calls in flight at most, prompts "
        f"of {result['prompt_chars']} characters, an endpoint on the same machine that answers at "
        "once. Medians; ratios are ours / peer of the same round, with least and most."
    )
    return intro + "\n\n" + markdown_table(("", OURS.name, PEER.name, "ratio"), rows)


if __name__ == "__main__":
    measured = run()
    print(table(measured))
    print(json.dumps(measured))
