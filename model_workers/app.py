"""The model pools' Celery app: `celery -A model_workers worker -Q model.NAME`.

Without `-Q` a worker serves every model that can be called. The worker's concurrency is what the
catalog says of the models that it serves, unless `-c` says otherwise.
"""

import logging
from collections.abc import Sequence
from typing import Any

from celery.signals import celeryd_after_setup, celeryd_init, worker_shutdown

from model_workers import combine
from model_workers.answer_cache import embeddings
from model_workers.post import process
from model_workers.task import CallTask
from modelyard.app import lanes, make_app, serve_batch_lanes
from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.errors import ModelyardError
from modelyard.holdings import settle_at_exit
from modelyard.names import model_queue, queue_model
from modelyard.settings import load_settings

logger = logging.getLogger("modelyard.calls")
settings = load_settings()
catalog = default_catalog(settings)
app = make_app(
    "model_workers",
    settings=settings,
    worker_pool="model_workers.pool:AsyncioPool",
    task_queues=[
        queue for model in catalog.live_models for queue in lanes(model_queue(model.name))
    ],
    modelyard_shutdown_grace_s=settings.shutdown_grace_s,
)
CallTask.catalog = catalog
CallTask.folder = settings.catalog_path.parent
CallTask.result_ttl_s = settings.result_ttl_s
CallTask.keep_ledger = settings.ledger_entries > 0
CallTask.ledger_entries = settings.ledger_entries
CallTask.keep_text = settings.ledger_text
CallTask.region = settings.region or ""
# One line a request is enough, and `CallTask` writes it: these say that a message came, and how
# long Celery's tracer took.
for noisy in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(noisy).setLevel(logging.WARNING)
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
def consume_lanes(instance: Any, **_: Any) -> None:
    """Serve the batch lanes too where the worker was told the models' queues alone."""
    names = [model_queue(model.name) for model in catalog.models]
    serve_batch_lanes(instance.app.amqp.queues, names)
    # The catalog was read before there was a log.
    logger.info("catalog %s: %s", settings.catalog_path, catalog.summary())
    for problem in (*combine.problems(catalog), *process.problems(catalog)):
        logger.error("requests that need it will be dead letters: %s", problem)
    for problem in embeddings.problems(catalog, CallTask.folder):
        logger.error("%s", problem)


def concurrency(catalog: Catalog, queues: Sequence[str]) -> int:
    """Return how many calls a worker of these queues may hold; no queues stand for all.

    Queues that are no model's are somebody else's business. Raises `UnknownName`, and
    `ModelyardError` for queues that no worker serves, or that this one can't.
    """
    named = [queue_model(queue.strip()) for queue in queues]
    models = [catalog.model(name) for name in dict.fromkeys(named) if name is not None]
    people = [model.name for model in models if model.is_people]
    if people:
        raise ModelyardError(
            f"{', '.join(people)}: provider people has no worker: what waits there is answered by "
            "`modelyard inbox`"
        )
    off = [f"{model.name} ({model.disabled})" for model in models if model.disabled is not None]
    if off:
        # It would take messages from workers that have the key, and could only refuse them.
        raise ModelyardError(f"can't be called here: {', '.join(off)}")
    if not queues and not catalog.live_models:
        # Celery would have it consume `requests`, which is the router's.
        raise ModelyardError(f"no model of the catalog can be called here ({catalog.summary()})")
    return sum(model.concurrency for model in models or catalog.live_models) or 1


def queue_limits(catalog: Catalog, queues: Sequence[str]) -> dict[str, int]:
    """Return how many messages of each queue, both lanes together, a worker of several may have.

    A worker of one model is bounded by its concurrency, which can be changed as it runs.
    """
    named = dict.fromkeys(queue_model(queue.strip()) for queue in queues)
    models = [catalog.model(name) for name in named if name is not None]
    served = models or catalog.live_models
    if len(served) == 1:
        return {}
    return {model_queue(model.name): model.concurrency for model in served}


@worker_shutdown.connect(weak=False)
def settle(**_: Any) -> None:
    """Acknowledge and put back what a lost connection left."""
    settle_at_exit()
