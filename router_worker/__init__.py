"""The router: classifies each request and sends it to the queue of the model that fits it.

Deciding (`features`, `rules`, `policy`, `forward`) is pure and knows no Celery; `app` and `task`
make a Celery worker of it. What is learned from rows is in `learned`, the models that came of it
and are in use in `oracles`, and who takes part in what is tried out in `experiments`.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "celery":  # `celery -A router_worker` looks for this name
        return import_module("router_worker.app").app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
