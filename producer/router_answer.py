"""What the router and the model workers say: programs of their own, as a worker would say it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from modelyard.errors import BrokerUnavailable, ModelyardError


def ask_experiments() -> Any:
    """Return how the experiments go. Raises `ModelyardError`."""
    run = subprocess.run(
        [sys.executable, "-m", "router_worker", "experiments"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if run.returncode == 3 and run.stdout:
        raise BrokerUnavailable(json.loads(run.stdout)["error"])
    if run.returncode != 0 or not run.stdout:
        raise ModelyardError(f"the router failed with exit code {run.returncode}")
    return json.loads(run.stdout)


def ask_models(catalog: Path) -> list[str]:
    """Return in words what is wrong with the learned models that a catalog names.

    Raises `ModelyardError` if the router fails.
    """
    return ask_warnings(catalog, "the router", "router_worker", "check")


def ask_providers(catalog: Path) -> list[str]:
    """Return in words what a catalog asks for that workers of here can't do, or don't look at.

    Raises `ModelyardError` if their program fails.
    """
    return ask_warnings(catalog, "the check of providers", "model_workers")


def ask_warnings(catalog: Path, who: str, *module: str) -> list[str]:
    """Return the warnings of a program of ours about a catalog. Raises `ModelyardError`."""
    run = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", *module],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "MODELYARD_CATALOG": str(catalog)},
    )
    if run.returncode != 0 or not run.stdout:
        raise ModelyardError(f"{who} failed with exit code {run.returncode}")
    warnings: list[str] = json.loads(run.stdout)["warnings"]
    return warnings


def ask_decisions(
    past: Iterable[str], catalog: Path, taken_back: Iterable[str] = ()
) -> Generator[dict[str, Any], None, None]:
    """Yield what is decided by a catalog about each past request, in order.

    `past` are lines of JSON, `{"id", "at", "request"}`; they are read in another thread, and what
    goes wrong there is raised here. `taken_back` are experiments that are over. Raises
    `ModelyardError` if the router fails.
    """
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "router_worker", "replay", *taken_back],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MODELYARD_CATALOG": str(catalog)},
    ) as router:
        assert router.stdin is not None
        assert router.stdout is not None
        failed: list[BaseException] = []
        # Both pipes hold little: who only wrote, and who only read, would wait for ever.
        feeder = threading.Thread(target=feed, args=(router.stdin, past, failed), daemon=True)
        feeder.start()
        try:
            for line in router.stdout:
                yield json.loads(line)
        finally:
            router.stdout.close()
            feeder.join()
    if failed:
        raise failed[0]
    if router.returncode != 0:
        raise ModelyardError(f"the router failed with exit code {router.returncode}")


def feed(stream: Any, lines: Iterable[str], failed: list[BaseException]) -> None:
    """Write lines to a program; note what fails, as nobody could catch it."""
    try:
        with stream:
            for line in lines:
                stream.write(line + "\n")
    except BrokenPipeError:
        pass  # its exit code tells more
    except Exception as error:  # noqa: BLE001 - raised where the answers are read
        failed.append(error)
