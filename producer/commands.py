"""The exact `celery` command lines of the parts: what the yard runs is what people can type."""

import sys
from pathlib import Path
from typing import Final

from modelyard.names import REQUESTS_QUEUE, ROUTER_NODE, model_queue

FLOWER: Final = "flower"
RESERVED: Final = frozenset({ROUTER_NODE, FLOWER, "redis", "yard"})
"""Names of nodes and logs that a model of the same name must not take."""


def node_name(model: str, process: int | None = None) -> str:
    """Return the Celery node name of a model's worker, before the @.

    Two nodes of one name on a broker confuse each other, hence `process`, from 1, for one of
    several on a machine. Celery takes the first @ for the begin of the host: `large@v2` is the node
    `large=v2`, which no model can be called.
    """
    name = (model_queue(model) if model in RESERVED else model).replace("@", "=")
    return name if process is None else f"{name}-{process}"


def router_command(
    *, process: int | None = None, python: str = sys.executable, loglevel: str = "INFO"
) -> list[str]:
    """Return the command line of a router worker."""
    node = ROUTER_NODE if process is None else f"{ROUTER_NODE}-{process}"
    return _worker("router_worker", node, REQUESTS_QUEUE, python, loglevel)


def model_command(
    *models: str,
    process: int | None = None,
    python: str = sys.executable,
    loglevel: str = "INFO",
) -> list[str]:
    """Return the command line of a worker of one model's pool, or of several models'."""
    node = node_name("+".join(models), process)
    queues = ",".join(model_queue(model) for model in models)
    return _worker("model_workers", node, queues, python, loglevel)


def flower_command(
    port: int, *, config: Path | None = None, python: str = sys.executable
) -> list[str]:
    """Return the command line of Flower, for this machine only; `config` is its Python file."""
    options = ["--address=127.0.0.1", f"--port={port}"]
    if config is not None:
        options.append(f"--conf={config}")
    return [python, "-m", "celery", "-A", "modelyard", "flower", *options]


def _worker(app: str, node: str, queue: str, python: str, loglevel: str) -> list[str]:
    return [
        *(python, "-m", "celery", "-A", app, "worker"),
        *("-n", f"{node}@%h"),
        *("-Q", queue),
        "-E",
        "--without-gossip",
        *("--loglevel", loglevel),
    ]
