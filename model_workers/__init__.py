"""The model pools: call the models, with retries, failover and dead letters.

`advance`, `answer` and the providers know no Celery; `app`, `task`, `coroutine_task` and `pool`
make Celery workers of them.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "celery":  # `celery -A model_workers` looks for this name
        return import_module("model_workers.app").app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
