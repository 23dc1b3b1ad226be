"""The commands `summarize` and `batch run` as processes, with a fake provider to call."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_models import fake_model, fake_models
from waiting import eventually

from modelyard.testing import FakeProvider

ROUTES = "routes: {default: {otherwise: [small]}}"


@dataclass
class Desk:
    """A folder to work in, and the provider that answers."""

    folder: Path
    fake: FakeProvider
    env: dict[str, str]

    def summarize(
        self, output: Path, paths: Sequence[Path], *, again: bool = False
    ) -> "subprocess.Popen[str]":
        """Start `modelyard summarize`."""
        return self._start("summarize", *map(str, paths), "-o", str(output), again=again)

    def batch(self, source: Path, output: Path, *, again: bool = False) -> "subprocess.Popen[str]":
        """Start `modelyard batch run`."""
        return self._start("batch", "run", str(source), "-o", str(output), again=again)

    def _start(self, *words: str, again: bool) -> "subprocess.Popen[str]":
        more = ["--retry-failed"] if again else []
        return subprocess.Popen(
            [sys.executable, "-m", "producer.cli", *words, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=self.folder,
        )

    def calls_twice(self) -> list[str]:
        """Return the texts that the provider was asked more than once."""
        counts = Counter(call.digest for call in self.fake.calls)
        return [digest for digest, count in counts.items() if count > 1]


@contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    """Give a desk without any broker."""
    with FakeProvider() as fake:
        catalog = folder / "catalog.yaml"
        small = fake_model(
            "small",
            endpoints=[{"base_url": fake.base_url}],
            price={"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0},
            context_tokens=1000,
            max_output_tokens=100,
            concurrency=4,
            timeout_s=120,
            retry={"calls": 2, "base_s": 0.01},
        )
        catalog.write_text(fake_models(small) + ROUTES)
        env = {
            **{key: value for key, value in os.environ.items() if key != "MODELYARD_BROKER_URL"},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "MODELYARD_CATALOG": str(catalog),
            "MODELYARD_SHUTDOWN_GRACE_S": "30",
        }
        yield Desk(folder, fake, env)


def finish(process: "subprocess.Popen[str]", timeout_s: float = 60.0) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command that ends by itself."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout_s:g} s:\n{out}\n{err}") from None
    return process.returncode, out, err


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the records in a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wait_for_lines(path: Path, count: int) -> None:
    """Return when so many lines have been written."""
    eventually(
        lambda: path.exists() and path.read_bytes().count(b"\n") >= count,
        timeout_s=60,
        message=f"{count} lines in {path.name}",
    )
