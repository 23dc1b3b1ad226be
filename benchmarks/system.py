"""What is measured: a system of worker processes and a client, and the place where it runs.

Each run has a Redis of its own, the zero-latency endpoint, and the system's processes. Linux only.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from benchmarks.process import process
from benchmarks.zero_endpoint import ZeroEndpoint
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.processes import log_tail

CONCURRENCY: Final = 50
"""Calls in flight at most, in every system."""
TIMEOUT_S: Final = 600.0
START_S: Final = 60.0
"""For how long the first answer is waited for: what is longer was a part that did not start."""
WARM_UP: Final = 500
PROMPT: Final = "Summarize: A classification yard sorts wagons by where they go. " * 8

NOT_COUNTED: Final = ("redis", "endpoint")
"""Roles that are reported apart from what a system's own parts spend."""

CATALOG: Final = """
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

    def one(self, text: str, timeout_s: float) -> str:
        """Submit one request, wait for its answer and return its text."""

    def many(self, texts: Sequence[str], timeout_s: float) -> int:
        """Submit all, wait for all and return how many were answered."""

    def paced(self, text: str, at_s: Sequence[float], timeout_s: float) -> list[float]:
        """Submit at these seconds from now, whatever was answered.

        Returns for each the milliseconds from when it was due to its answer, in any order. Raises
        `TimeoutError` if they are not all answered.
        """

    def close(self) -> None:
        """Let go of what it talks to."""


@dataclass(frozen=True, slots=True)
class System:
    """Worker commands by role, and a client; `env` is what its processes get besides.

    `at_most_s` is for how long a batch of it may be measured: a slow peer gets a smaller one.
    """

    name: str
    commands: Mapping[str, Sequence[str]]
    connect: Callable[[str], Producer]
    env: Mapping[str, str] = field(default_factory=dict)
    at_most_s: float | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Redis and an endpoint that run, for a system to be started on."""

    folder: Path
    redis_url: str
    redis_pid: int
    endpoint: ZeroEndpoint

    @classmethod
    @contextlib.contextmanager
    def open(cls, *, count: bool = False) -> Iterator["Site"]:
        """Start both; `count`: the endpoint counts the calls of each id."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            endpoint = stack.enter_context(ZeroEndpoint.running(folder, count=count))
            redis = stack.enter_context(EmbeddedRedis(folder / "state"))
            catalog = CATALOG.format(base_url=endpoint.base_url, concurrency=CONCURRENCY)
            (folder / "catalog.yaml").write_text(catalog)
            yield cls(folder, redis.url, redis.pid, endpoint)

    @property
    def env(self) -> dict[str, str]:
        """What tells every system where things are."""
        return {
            "MODELYARD_BROKER_URL": self.redis_url,
            "MODELYARD_CATALOG": str(self.folder / "catalog.yaml"),
            "PLAIN_BROKER_URL": self.redis_url,
            "PLAIN_BASE_URL": self.endpoint.base_url,
            "PLAIN_CONCURRENCY": str(CONCURRENCY),
            "ENDPOINT_BASE_URL": self.endpoint.base_url,
        }

    @contextlib.contextmanager
    def process(
        self, role: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Iterator[int]:
        """Run a part of a system until the block ends; yield its process id."""
        log = self.folder / f"{role}.log"
        with process(command, log, {**self.env, **(env or {})}) as pid:
            yield pid

    def explain(self, error: Exception, roles: Sequence[str]) -> None:
        """Add the end of the parts' logs to an error."""
        for role in roles:
            tail = log_tail(self.folder / f"{role}.log")
            error.add_note(f"the end of the {role}'s log:\n{tail}")


@dataclass(frozen=True, slots=True)
class Running:
    """A system that runs: its client, and the process ids by role."""

    producer: Producer
    pids: Mapping[str, int]
    site: Site


@contextlib.contextmanager
def running(system: System, *, warm_up: int = WARM_UP, count: bool = False) -> Iterator[Running]:
    """Start Redis, the endpoint and the system's processes; yield them when they answer.

    `warm_up` requests have then been answered: connections are open. `count`: see `Site.open`.
    """
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(Site.open(count=count))
        pids = {
            role: stack.enter_context(site.process(role, command, system.env))
            for role, command in system.commands.items()
        }
        try:
            producer = system.connect(site.redis_url)
            stack.callback(producer.close)
            producer.one(PROMPT, START_S)
            if warm_up:
                producer.many([PROMPT] * warm_up, TIMEOUT_S)
            yield Running(
                producer, {**pids, "redis": site.redis_pid, "endpoint": site.endpoint.pid}, site
            )
        except Exception as error:
            site.explain(error, list(pids))
            raise
