"""How calls spread over endpoints that are slow, flap and have a limit, and how a backlog drains.

`python -m benchmarks.spread [--quick]`: 5,000 requests over three endpoints of one model (one slow,
one that is down every other five seconds, one that takes 60 calls in any minute and says 429 to all
others), by four worker processes; then 10,000 that are queued for a model when it goes down, and
that its fallback answers. Each has a Redis of its own; the endpoints are this process's threads.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.process import process
from modelyard.client import Client
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.processes import log_tail
from modelyard.settings import Settings
from modelyard.testing import Cue, FakeProvider, Gate, Reply
from producer.commands import model_command, router_command

LIMIT: Final = 60
WORKERS: Final = 4
SLOW_S: Final = 2.0
FAST_S: Final = 0.2
FLAP_S: Final = 5.0
TIMEOUT_S: Final = 900.0

SPREAD: Final = f"""
models:
  - name: spread
    provider: openai
    endpoints:
      - {{name: slow, base_url: "${{SLOW}}"}}
      - {{name: flapping, base_url: "${{FLAPPING}}"}}
      - name: limited
        base_url: "${{LIMITED}}"
        quota: {{requests_per_min: {LIMIT}, interactive_share: 0}}
    concurrency: 20
    retry: {{calls: 5, base_s: 0.1, cap_s: 1}}
    breaker: {{failures: 3, cooldown_s: 1, longest_s: 5}}
routes:
  default: {{otherwise: [spread]}}
"""

DRAIN: Final = """
models:
  - name: down
    provider: openai
    endpoints: [{base_url: "${DOWN}"}]
    concurrency: 50
  - name: fallback
    provider: openai
    endpoints: [{base_url: "${FALLBACK}"}]
    concurrency: 50
routes:
  default: {otherwise: [down, fallback]}
"""


class Limited:
    """Takes `limit` calls in any minute, and says 429 to all others."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self.most = 0
        self._taken: deque[float] = deque()
        self._came: deque[float] = deque()

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        now = time.monotonic()
        for times in (self._taken, self._came):
            while times and times[0] <= now - 60.0:
                times.popleft()
        self._came.append(now)
        self.most = max(self.most, len(self._came))
        if len(self._taken) >= self.limit:
            self.refused += 1
            wait_s = self._taken[0] + 60.0 - now
            return Reply(status=429, headers={"retry-after": f"{wait_s:.1f}"})
        self._taken.append(now)
        return Reply(delay_s=FAST_S)


def flaps(period_s: float) -> Callable[[Mapping[str, Any]], Reply]:
    """Return an endpoint that is well and down by turns."""

    def reply(body: Mapping[str, Any]) -> Reply:
        is_down = int(time.monotonic() / period_s) % 2
        return Reply(status=503) if is_down else Reply(delay_s=FAST_S)

    return reply


@dataclass(frozen=True, slots=True)
class Place:
    """Redis, a router, worker processes and a client."""

    client: Client
    logs: Sequence[Path]


@contextlib.contextmanager
def place(
    catalog: str, env: Mapping[str, str], commands: Mapping[str, Sequence[str]]
) -> Iterator[Place]:
    """Run the parts until the block ends."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spread-")))
        path = folder / "catalog.yaml"
        path.write_text(catalog)
        store = stack.enter_context(EmbeddedRedis(folder / "state"))
        told = {
            **os.environ,
            **env,
            "MODELYARD_BROKER_URL": store.url,
            "MODELYARD_CATALOG": str(path),
        }
        logs = []
        for role, command in {"router": router_command(), **commands}.items():
            logs.append(folder / f"{role}.log")
            stack.enter_context(process(command, logs[-1], told))
        for log in logs:
            wait_for(lambda log=log: " ready." in log.read_text(), 60.0, log)  # type: ignore[misc]
        client = stack.enter_context(Client(store.url, settings=Settings(catalog=path)))
        yield Place(client, logs)


def wait_for(condition: Callable[[], object], timeout_s: float, log: Path) -> None:
    """Return once it is so. Raises `TimeoutError` with the end of the log."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {timeout_s:g} s:\n{log_tail(log)}")
        time.sleep(0.05)


def spread(requests: int) -> dict[str, Any]:
    """Return which endpoint answered how many of so many requests, and what it said to others."""
    limited = Limited(LIMIT)
    cues: dict[str, Cue] = {
        "slow": Reply(delay_s=SLOW_S),
        "flapping": flaps(FLAP_S),
        "limited": limited,
    }
    with contextlib.ExitStack() as stack:
        fakes = {name: stack.enter_context(FakeProvider(default=cue)) for name, cue in cues.items()}
        env = {name.upper(): fake.base_url for name, fake in fakes.items()}
        commands = {
            f"pool-{number}": model_command("spread", process=number)
            for number in range(1, WORKERS + 1)
        }
        yard = stack.enter_context(place(SPREAD, env, commands))
        began = time.monotonic()
        handles = yard.client.submit_many([f"request {number}" for number in range(requests)])
        answers = [handle.result(TIMEOUT_S) for handle in handles]
        took_s = time.monotonic() - began
        answered = Counter(answer.attempts[-1].endpoint for answer in answers)
        said = {
            name: Counter(str(call.status) for call in fake.calls) for name, fake in fakes.items()
        }
    calls = sum(sum(each.values()) for each in said.values())
    return {
        "requests": requests,
        "answered": sum(answered.values()),
        "seconds": round(took_s, 1),
        "endpoints": {
            name: {
                "answered": answered[name],
                "share": round(answered[name] / requests, 3),
                "said": dict(said[name]),
            }
            for name in cues
        },
        "calls": calls,
        "429s": limited.refused,
        "share_429": round(limited.refused / calls, 4),
        "limit_per_min": LIMIT,
        "most_in_a_minute": limited.most,
        "limit_passed": limited.most > LIMIT,
        "most_attempts": max(len(answer.attempts) for answer in answers),
    }


def drain(backlog: int) -> dict[str, Any]:
    """Return how long it takes until a model's queue is answered by the next one."""
    gate = Gate()
    with contextlib.ExitStack() as stack:
        down = stack.enter_context(FakeProvider(default=Reply(status=503, gate=gate)))
        fallback = stack.enter_context(FakeProvider())
        env = {"DOWN": down.base_url, "FALLBACK": fallback.base_url}
        commands = {
            f"{name}-{number}": model_command(name, process=number)
            for name in ("down", "fallback")
            for number in (1, 2)
        }
        yard = stack.enter_context(place(DRAIN, env, commands))
        handles = yard.client.submit_many([f"request {number}" for number in range(backlog)])
        # The router has passed on the last of them when the workers have what they can hold.
        wait_for(lambda: down.in_flight == 100, 120.0, yard.logs[0])
        began = time.monotonic()
        gate.open()
        answers = [handle.result(TIMEOUT_S) for handle in handles]
        took_s = time.monotonic() - began
        return {
            "backlog": backlog,
            "answered_by": dict(Counter(answer.model for answer in answers)),
            "seconds": round(took_s, 1),
            "per_s": round(backlog / took_s),
            "calls_of_what_is_down": len(down.calls),
        }


def run(requests: int = 5000, backlog: int = 10_000) -> dict[str, Any]:
    """Measure both."""
    return {"spread": spread(requests), "drain": drain(backlog)}


def table(measured: Mapping[str, Any]) -> str:
    """Return what was measured as Markdown."""
    one, two = measured["spread"], measured["drain"]
    lines = [
        f"{one['answered']:,} of {one['requests']:,} requests answered in {one['seconds']} s by "
        f"{WORKERS} worker processes, {one['calls']:,} calls, at most {one['most_attempts']} for "
        "one request",
        "",
        "| endpoint | answered | share | said |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, each in one["endpoints"].items():
        said = ", ".join(f"{count:,} x {status}" for status, count in sorted(each["said"].items()))
        lines.append(f"| {name} | {each['answered']:,} | {each['share']:.1%} | {said} |")
    passed = "passed" if one["limit_passed"] else "never passed"
    lines += [
        "",
        f"429s: {one['429s']} of {one['calls']:,} calls ({one['share_429']:.2%}); the limit of "
        f"{one['limit_per_min']} a minute was {passed}: at most {one['most_in_a_minute']} in one",
        "",
        f"Drain: {two['backlog']:,} requests queued for a model that goes down: answered by "
        f"{two['answered_by']} in {two['seconds']} s ({two['per_s']:,} a second); the model that "
        f"is down was called {two['calls_of_what_is_down']:,} times",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="for trying it out")
    quick = parser.parse_args().quick
    print(table(run(400, 500) if quick else run()))


if __name__ == "__main__":
    main()
