"""Messages that a worker has no task for: dead letters, where Celery would log and drop them.

A step of Celery's consumer (https://docs.celeryq.dev/en/stable/userguide/extending.html). Prompts
do not belong in logs, and nothing that was accepted may be gone.
"""

import logging
from typing import Any

from celery import bootsteps

logger = logging.getLogger("modelyard.transport")


class Strays(bootsteps.Step):
    """The step: `app.steps["consumer"].add("modelyard.strays:Strays")`."""

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        consumer.on_unknown_task = consumer.on_invalid_task = bury
        consumer.on_unknown_message = bury
        consumer.on_decode_error = bury_undecodable


def bury(body: Any, message: Any, error: BaseException | None = None) -> None:
    """End a message of no task, or one whose fields Celery refuses."""
    task = message.headers.get("task") if isinstance(message.headers, dict) else None
    words = "" if error is None else f": {type(error).__name__}"
    message.channel.handover.bury(message, f"no worker here has a task for it ({task!r}{words})")


def bury_undecodable(message: Any, error: BaseException) -> None:
    """End a message whose body can't be read."""
    message.channel.handover.bury(message, f"its body can't be read: {type(error).__name__}")
