"""Three endpoints of one model, and LiteLLM's Router beside the whole yard: who is answered.

python -m benchmarks balancing [--rounds N] [--no-install]

One endpoint is steady, one dies and comes back, one has a limit that it enforces
(`benchmarks.moody_endpoint`). Both systems know the same of them: the addresses, and the limit.
LiteLLM's Router is the library, in a process of its own without a proxy, with three retries, a
cooldown of 5 s and its checks before calls. modelyard has its defaults, whose cooldown is 5 s, too.

How long the endpoint is dead differs from round to round: else a cooldown that ends just then by
chance would look like a fast recovery.
"""

import contextlib
import json
import math
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.environment import Environment, NoEnvironment
from benchmarks.litellm_proxy import ENVIRONMENT
from benchmarks.moody_endpoint import DIES_AT_S, NAMES, PER_MINUTE
from benchmarks.pace import arrivals, paced
from benchmarks.process import ROOT, process
from benchmarks.results import markdown_table, percentile, stamp
from modelyard import Client, RequestFailed
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.errors import ResultTimeout
from modelyard.handle import Handle
from modelyard.processes import leashed
from producer.commands import model_command, router_command

RATE_PER_S: Final = 20.0
SECONDS: Final = 40.0
ROUNDS: Final = 3
DEAD_S: Final = (6.0, 14.0)
"""For how long the endpoint is dead, at least and at most."""
TIMEOUT_S: Final = 120.0
STRATEGIES: Final = ("simple-shuffle", "usage-based-routing-v2")
TEXT: Final = "Where does this wagon go?"

CATALOG: Final = """
models:
  - name: small
    provider: openai
    timeout_s: 20
    retry: {{calls: 4}}
    endpoints:
      - {{name: steady, base_url: "{steady}"}}
      - {{name: dying, base_url: "{dying}"}}
      - {{name: limited, base_url: "{limited}", quota: {{requests_per_min: {per_minute}}}}}
routes:
  default:
    otherwise: [small]
"""

System = Callable[[Mapping[str, str], Sequence[float]], list[tuple[bool, float]]]
"""Makes calls at these seconds; says for each whether it was answered, and after how many ms."""


@contextlib.contextmanager
def endpoints(back_at_s: float) -> Iterator[dict[str, str]]:
    """Start the endpoints, and yield where they are. One is dead until `back_at_s`."""
    child = subprocess.Popen(
        leashed([sys.executable, "-m", "benchmarks.moody_endpoint", f"{back_at_s:.2f}"]),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())
    finally:
        child.terminate()
        child.communicate(timeout=30)


def tell(url: str, *, post: bool = False) -> Any:
    """Return what the endpoints' control says."""
    with urllib.request.urlopen(url, data=b"" if post else None, timeout=30) as answer:
        return json.load(answer)


def ours(where: Mapping[str, str], at_s: Sequence[float]) -> list[tuple[bool, float]]:
    """Submit at these seconds; return for each whether it was answered, and after how many ms."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="balancing-")))
        redis = stack.enter_context(EmbeddedRedis(folder / "state"))
        catalog = folder / "catalog.yaml"
        catalog.write_text(CATALOG.format(**where, per_minute=PER_MINUTE))
        env = {"MODELYARD_BROKER_URL": redis.url, "MODELYARD_CATALOG": str(catalog)}
        for role, command in {"router": router_command(), "pool": model_command("small")}.items():
            stack.enter_context(process(command, folder / f"{role}.log", env))
        client = stack.enter_context(Client(redis.url))
        for _ in range(3):
            client.submit(TEXT).result(60)
        tell(where["control"] + "/begin", post=True)
        took: dict[str, float] = {}
        handles: list[Handle] = []

        def note(due: float, handle: Handle) -> None:
            took[handle.id] = 1000 * (time.perf_counter() - due)

        for due in paced(at_s):
            handle = client.submit(TEXT)
            client.when_done([handle], partial(note, due))
            handles.append(handle)
        results = []
        for handle in handles:
            answered = True
            try:
                handle.result(TIMEOUT_S)
            except (RequestFailed, ResultTimeout):
                answered = False
            results.append((answered, took.get(handle.id, 1000 * TIMEOUT_S)))
        return results


def theirs(
    where: Mapping[str, str], at_s: Sequence[float], strategy: str, environment: Environment
) -> list[tuple[bool, float]]:
    """The same of LiteLLM's Router."""
    plan = {
        "endpoints": {name: where[name] for name in NAMES},
        "per_minute": PER_MINUTE,
        "strategy": strategy,
        "at_s": list(at_s),
        "begin": where["control"] + "/begin",
    }
    done = subprocess.run(
        [environment.program("python"), str(ROOT / "benchmarks" / "litellm_router.py")],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
        check=True,
        env={
            "PATH": "/usr/bin:/bin",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "CRITICAL",
            "LITELLM_TELEMETRY": "False",
        },
    )
    return [(bool(ok), float(ms)) for ok, ms in json.loads(done.stdout.splitlines()[-1])]


def figures(results: Sequence[tuple[bool, float]], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run comes to."""
    times = [ms for ok, ms in results if ok] or [0.0]
    counts = report["counts"]
    answered = sum(ok for ok, _ in results)
    paid = sum(count for what, count in counts.items() if what.endswith("answered"))
    return {
        "requests": len(results),
        "answered": answered,
        "failed": len(results) - answered,
        "upstream_429": counts.get("limited 429", 0),
        "p50_ms": round(percentile(times, 50), 1),
        "p99_ms": round(percentile(times, 99), 1),
        "recovery_s": report["recovery_s"] and round(report["recovery_s"], 2),
        "paid": paid,
        "shares": {name: counts.get(f"{name} answered", 0) for name in NAMES},
    }


def run(
    *, install: bool = True, seconds: float = SECONDS, rounds: int = ROUNDS, seed: int = 5
) -> dict[str, Any]:
    """Measure all; return it as plain JSON values. Without LiteLLM, ours alone."""
    environment: Environment | None = ENVIRONMENT
    try:
        if install:
            ENVIRONMENT.make()
        elif not ENVIRONMENT.ready:
            environment = None
    except NoEnvironment as error:
        print(f"balancing: LiteLLM is left out: {error}", file=sys.stderr)
        environment = None
    systems: dict[str, list[dict[str, Any]]] = {}
    random_numbers = random.Random(seed)
    for number in range(1, rounds + 1):
        at_s = arrivals(RATE_PER_S, seconds, random_numbers)
        back_at_s = round(DIES_AT_S + random_numbers.uniform(*DEAD_S), 2)
        for name, system in competitors(environment).items():
            with endpoints(back_at_s) as where:
                results = system(where, at_s)
                measured = figures(results, tell(where["control"] + "/report"))
            systems.setdefault(name, []).append({**measured, "back_at_s": back_at_s})
            print(f"round {number}: {name}: {json.dumps(measured)}", file=sys.stderr)
    version = environment.version("litellm") if environment is not None else None
    return {
        "measured_at": stamp(),
        "litellm": version,
        "rate_per_s": RATE_PER_S,
        "seconds": seconds,
        "rounds": systems,
    }


def competitors(environment: Environment | None) -> dict[str, System]:
    """Return what is measured, by name."""
    found: dict[str, System] = {"modelyard": ours}
    if environment is not None:
        for strategy in STRATEGIES:
            named = partial(theirs, strategy=strategy, environment=environment)
            found[f"LiteLLM Router, {strategy}"] = named
    return found


def table(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown: sums over the rounds, and medians with least and most."""
    head = (
        *("", "requests", "answered", "failed", "upstream 429", "p50, ms", "p99, ms"),
        *("recovery, s", "calls paid", "steady / dying / limited"),
    )
    rows = []
    for name, every in result["rounds"].items():
        sums = (
            f"{sum(each[key] for each in every):,}"
            for key in ("requests", "answered", "failed", "upstream_429")
        )
        shares = (f"{sum(each['shares'][one] for each in every):,}" for one in NAMES)
        rows.append(
            [
                name,
                *sums,
                middle([each["p50_ms"] for each in every], 0),
                middle([each["p99_ms"] for each in every], 0),
                middle([each["recovery_s"] for each in every], 1),
                f"{sum(each['paid'] for each in every):,}",
                " / ".join(shares),
            ]
        )
    dead = sorted({each["back_at_s"] - DIES_AT_S for each in result["rounds"]["modelyard"]})
    return "\n\n".join(
        (
            f"{result['rate_per_s']:g} requests/s for {result['seconds']:g} s over three endpoints "
            f"of one model: one steady, one dead from {DIES_AT_S:g} s on for "
            f"{', '.join(f'{each:.1f}' for each in dead)} s, one with {PER_MINUTE} a minute. "
            f"LiteLLM {result['litellm'] or 'was not there'}. Sums over the rounds; medians, with "
            "the least and the most. Recovery: from when the dead one is back to its first answer.",
            markdown_table(head, rows),
        )
    )


def middle(values: Sequence[float | None], digits: int) -> str:
    """Return the median with least and most; None is never."""
    known = sorted(math.inf if each is None else each for each in values)
    told = [
        "never" if each == math.inf else f"{each:,.{digits}f}"
        for each in (known[len(known) // 2], known[0], known[-1])
    ]
    return told[0] if len(known) == 1 else f"{told[0]} ({told[1]} to {told[2]})"
