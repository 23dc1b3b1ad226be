"""The two systems that the storms hit: how their workers are started, and where messages begin."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos.peer.settings import CALLS
from chaos.peer.settings import REQUESTS as PEER_REQUESTS
from chaos.peer.settings import ROUTE as PEER_ROUTE
from modelyard.names import REQUESTS_QUEUE, ROUTE_TASK
from producer.commands import model_command, router_command

CONCURRENCY: Final = 20
CALL_TIMEOUT_S: Final = 4.0
"""Longer than any call that goes well, but for those that sleep."""

MODELS: Final = ("small", "large", "patient", "judge")

CATALOG: Final = """
models:
  - name: small
    provider: openai
    balance: least_in_flight
    quota: {{requests_per_min: 600000, concurrency: 10000}}
    endpoints:
      - {{name: first, base_url: "{base_url}", quota: {{tokens_per_min: 100000000}}}}
      - {{name: second, base_url: "{base_url}", weight: 2}}
    concurrency: {concurrency}
    timeout_s: {timeout_s}
    retry: {{calls: 3, base_s: 0.1, cap_s: 1.0, patience_s: 5}}
  - name: large
    provider: openai
    endpoints: [{{base_url: "{base_url}"}}]
    concurrency: {concurrency}
    timeout_s: {timeout_s}
    retry: {{calls: 3, base_s: 0.1, cap_s: 1.0, patience_s: 5}}
  - name: patient
    provider: openai
    endpoints: [{{base_url: "{base_url}"}}]
    concurrency: {concurrency}
    timeout_s: 600
  - name: judge
    provider: openai
    endpoints: [{{base_url: "{base_url}"}}]
    concurrency: {concurrency}
    timeout_s: {timeout_s}
    retry: {{calls: 3, base_s: 0.1, cap_s: 1.0, patience_s: 5}}
budgets:
  - {{usd_per_day: 1000000}}
routes:
  default:
    otherwise: [small, large]
    answer_cache: {{ttl_s: 600}}
    after: [trim]
  cascade:
    otherwise:
      models: [small, large]
      strategy: cascade
      accept: {{expression: 'contains(text, "large") or contains(text, "1 of")'}}
  judged:
    otherwise:
      models: [small, large]
      strategy: cascade
      accept: {{judge: judge, judge_floor: 0.15}}
  vote:
    otherwise:
      models: [small, large, patient]
      strategy: ensemble
      combine: {{how: vote, quorum: 2}}
  best:
    otherwise:
      models: [small, large, patient]
      strategy: ensemble
      combine: {{how: best, judge: judge}}
"""


@dataclass(frozen=True, slots=True)
class System:
    """One of the two: its worker commands by slot (`router-1`, `pool-2`), and its first queue."""

    key: str
    name: str
    commands: Mapping[str, list[str]]
    queue: str
    task: str
    env: Mapping[str, str] = field(default_factory=dict)


def ours(routers: int = 2, pools: int = 2) -> System:
    """Return modelyard: the command lines of its own commands."""
    commands = {
        f"router-{number}": router_command(process=number) for number in range(1, routers + 1)
    }
    for number in range(1, pools + 1):
        command = model_command(*MODELS, process=number)
        commands[f"pool-{number}"] = [
            "chaos.crashing_workers" if word == "model_workers" else word for word in command
        ]
    return System("ours", "modelyard", commands, REQUESTS_QUEUE, ROUTE_TASK)


def peer(routers: int = 2, pools: int = 2) -> System:
    """Return the plain Celery app, with as many processes."""
    commands = {
        f"router-{number}": peer_command(
            f"router-{number}", PEER_REQUESTS, "--pool", "solo", "--prefetch-multiplier", "1"
        )
        for number in range(1, routers + 1)
    }
    for number in range(1, pools + 1):
        commands[f"pool-{number}"] = peer_command(
            f"pool-{number}", CALLS, "--pool", "threads", "--concurrency", str(CONCURRENCY)
        )
    return System("peer", "plain Celery", commands, PEER_REQUESTS, PEER_ROUTE)


def peer_command(node: str, queue: str, *options: str) -> list[str]:
    """Return the command line of a worker of the peer, with the flags of modelyard's own."""
    return [
        *(sys.executable, "-m", "celery", "-A", "chaos.peer.tasks", "worker"),
        *("-n", f"{node}@%h", "-Q", queue, "-E", "--without-gossip", "--loglevel", "INFO"),
        *options,
    ]


def environment(
    folder: Path, broker_url: str, endpoint_port: int, lease_s: float
) -> dict[str, str]:
    """Write the catalog, and return what the workers of both systems are told.

    Each process calls an address with its own name, `CHAOS_WORKER`, so that the endpoint knows it.
    """
    address = f"http://127.0.0.1:{endpoint_port}/w/"
    catalog = folder / "catalog.yaml"
    catalog.write_text(
        CATALOG.format(
            base_url=address + "${CHAOS_WORKER}/v1",
            concurrency=CONCURRENCY,
            timeout_s=CALL_TIMEOUT_S,
        )
    )
    return {
        "MODELYARD_BROKER_URL": broker_url,
        "MODELYARD_CATALOG": str(catalog),
        "MODELYARD_LEASE_S": f"{lease_s:g}",
        "MODELYARD_SHUTDOWN_GRACE_S": "60",
        "CHAOS_BROKER_URL": broker_url,
        "CHAOS_BASE_URL": address + "{worker}/v1/",
        "CHAOS_LEASE_S": f"{lease_s:g}",
        "CHAOS_TIMEOUT_S": f"{CALL_TIMEOUT_S:g}",
    }
