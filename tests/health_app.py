"""A Celery app for the tests of health: a worker whose main thread can be made to hang, or deaf."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Task

from modelyard.app import make_app

app = make_app("health_app", worker_pool="threads", worker_concurrency=1)

Handler = Callable[[Any, Any, Any, Any, Any], None]


@app.task(name="nap")
def nap(begun: str, until: str) -> None:
    """Runs in the pool until a file is there."""
    Path(begun).touch()
    while not Path(until).exists():
        time.sleep(0.05)


class Hang(Task):
    """Hangs the worker's main thread, in its consumer, until a file is there."""

    name = "hang"

    def run(self) -> None:
        """Never runs."""

    def Strategy(self, task: Any, app: Any, consumer: Any) -> Handler:
        def handle(message: Any, *_: Any) -> None:
            until = Path(message.headers["argsrepr"])
            while not until.exists():
                time.sleep(0.05)
            message.ack()

        return handle


class Deafen(Task):
    """Makes the worker's consumer forget to listen; everything else of it goes on."""

    name = "deafen"

    def run(self) -> None:
        """Never runs."""

    def Strategy(self, task: Any, app: Any, consumer: Any) -> Handler:
        def handle(message: Any, *_: Any) -> None:
            message.ack()
            # What asks for messages once per turn of the hub.
            consumer.hub.on_tick.clear()

        return handle


app.register_task(Hang())
app.register_task(Deafen())
