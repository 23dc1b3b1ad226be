"""Real worker processes for tests: a broker, a fake provider, a router and pools."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis
from fake_models import fake_model, fake_models
from waiting import eventually

from modelyard.client import Client
from modelyard.dead_entries import Filter
from modelyard.dead_letters import DeadLetters
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.errors import RequestFailed
from modelyard.settings import Settings
from modelyard.testing import FakeProvider
from producer.commands import model_command, router_command

CATALOG = (
    fake_models(
        fake_model(
            "small",
            model="provider-small",
            price={"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0},
            context_tokens=1000,
            max_output_tokens=100,
        ),
        fake_model("large"),
    )
    + """
routes:
  default:
    rules:
      - {when: {keywords: [summarize, "tl;dr"]}, intent: summarize, models: [small, large]}
      - {when: {min_tokens: 600}, intent: long, models: [large]}
    otherwise: [small, large]
"""
)

KEY = "sk-test-0123456789"


@dataclass
class Workers:
    """Running workers. `env` is what they were started with."""

    broker_url: str
    fake: FakeProvider
    env: dict[str, str]
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], **env: str) -> subprocess.Popen[bytes]:
        """Start one worker and wait until it consumes."""
        log_path = self.folder / f"{name}.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**self.env, **env}, cwd=self.folder
            )
        self.processes[name] = process
        written = log_path.stat().st_size
        eventually(
            lambda: (
                b" ready." in log_path.read_bytes()[max(0, written - 4096) :]
                or process.poll() is not None
            ),
            timeout_s=60,
            message=f"{name} is ready",
        )
        assert process.poll() is None, self.log(name)
        return process

    def start_router(self) -> subprocess.Popen[bytes]:
        return self.start("router", router_command())

    def start_pool(self, model: str, *options: str, **env: str) -> subprocess.Popen[bytes]:
        return self.start(model, [*model_command(model), *options], **env)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop one worker and return its exit code."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(60)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def calm(self, *models: str) -> None:
        """Forget cues and calls. Each of these models answers a call before that: no breaker goes
        on with what the test before did to it.
        """
        self.fake.reset()
        with self.client() as client:
            for model in models:
                eventually(
                    partial(answers, self.broker_url, client, model), message=f"{model} answers"
                )
        self.fake.reset()

    def client(self) -> Client:
        return Client(self.broker_url, settings=Settings(catalog=self.folder / "catalog.yaml"))


def answers(broker_url: str, client: Client, model: str) -> bool:
    """Whether a model answers now. Nothing of it stays."""
    handle = client.submit("calm", models=(model,))
    try:
        handle.result(30)
    except RequestFailed:
        with redis.Redis.from_url(broker_url) as store:
            letters = DeadLetters(store)
            letters.drop(list(letters.find(Filter(ids=(handle.id,)))))
        return False
    return True


@contextmanager
def workers(
    folder: Path, broker_url: str, *, catalog: str = CATALOG, env: Mapping[str, str] | None = None
) -> Iterator[Workers]:
    """Give a fake provider and a place to start workers; whatever was started is stopped."""
    path = folder / "catalog.yaml"
    path.write_text(catalog)
    with FakeProvider(api_key=KEY) as fake:
        yard = Workers(
            broker_url,
            fake,
            {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "MODELYARD_BROKER_URL": broker_url,
                "MODELYARD_CATALOG": str(path),
                "FAKE_URL": fake.base_url,
                "FAKE_KEY": KEY,
                **(env or {}),
            },
            folder,
        )
        try:
            yield yard
        finally:
            for process in yard.processes.values():
                process.terminate()
            for process in yard.processes.values():
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)


@contextmanager
def own_yard(
    folder: Path, *, catalog: str = CATALOG, env: Mapping[str, str] | None = None
) -> Iterator[Workers]:
    """Give a yard of its own Redis, and no worker."""
    with (
        EmbeddedRedis(folder / "state") as server,
        workers(folder, server.url, catalog=catalog, env=env) as yard,
    ):
        yield yard


@contextmanager
def whole_yard(folder: Path) -> Iterator[Workers]:
    """Give a yard of its own Redis, a router and the pools of `small` and `large`."""
    with own_yard(folder) as yard:
        yard.start_router()
        yard.start_pool("small")
        yard.start_pool("large")
        yield yard
