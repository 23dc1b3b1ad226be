"""The model pools' Celery app: `celery -A model_workers worker -Q model.NAME`.

Without `-Q` a worker serves every model that can be called. The worker's concurrency is what the
catalog says of the models that it serves, unless `-c` says otherwise.
"""

import logging
from collections.abc import Sequence
from typing import Any

from celery.signals import celeryd_after_setup, celeryd_init, worker_shutdown
from kombu.entity import Exchange, Queue

from model_workers.task import CallTask
from modelyard.app import make_app
from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.errors import ModelyardError
from modelyard.names import model_queue, queue_model
from modelyard.settings import load_settings
from modelyard.transport import settle_at_exit


def own_queue(model: str) -> Queue:
    """Return a model's queue. Its own exchange: the default one would bind it to `requests`."""
    name = model_queue(model)
    return Queue(name, Exchange(name), routing_key=name)


logger = logging.getLogger("modelyard.calls")
settings = load_settings()
catalog = default_catalog(settings)
app = make_app(
    "model_workers",
    settings=settings,
    worker_pool="model_workers.pool:AsyncioPool",
    task_queues=[own_queue(model.name) for model in catalog.live_models],
    modelyard_shutdown_grace_s=settings.shutdown_grace_s,
)
CallTask.catalog = catalog
CallTask.once_s = settings.visibility_timeout_s
# Celery's own line says how long the tracer took, not the call; `CallTask` logs that itself.
logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
app.register_task(CallTask())


@celeryd_init.connect(weak=False)
def size_worker(instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
    """Refuse queues of unknown models, and take the concurrency from the catalog."""
    queues = options.get("queues") or []
    names = queues.split(",") if isinstance(queues, str) else list(queues)
    try:
        served = concurrency(catalog, names)
    except ModelyardError as error:
        raise SystemExit(f"model_workers: {error}") from error
    conf.worker_concurrency = served
    conf.broker_transport_options = {
        **conf.broker_transport_options,
        "queue_limits": queue_limits(catalog, names),
    }


@celeryd_after_setup.connect(weak=False)
def tell_catalog(**_: Any) -> None:
    """Log what can be called: the catalog was read before there was a log."""
    logger.info("catalog %s: %s", settings.catalog_path, catalog.summary())


def concurrency(catalog: Catalog, queues: Sequence[str]) -> int:
    """Return how many calls a worker of these queues may hold; no queues stand for all.

    Queues that are no model's are somebody else's business. Raises `UnknownName`.
    """
    named = [queue_model(queue.strip()) for queue in queues]
    models = [catalog.model(name) for name in named if name is not None]
    return sum(model.concurrency for model in models or catalog.live_models) or 1


def queue_limits(catalog: Catalog, queues: Sequence[str]) -> dict[str, int]:
    """Return how many messages of each queue a worker may have, if it serves several models.

    A worker of one model is bounded by its concurrency, which can be changed as it runs.
    """
    models = [catalog.model(name) for queue in queues if (name := queue_model(queue.strip()))]
    served = models or catalog.live_models
    if len(served) == 1:
        return {}
    return {model_queue(model.name): model.concurrency for model in served}


@worker_shutdown.connect(weak=False)
def settle(**_: Any) -> None:
    """Acknowledge and put back what a lost connection left."""
    settle_at_exit(app.connection_for_write())
