"""The model pools' Celery app: `celery -A model_workers worker -Q model.NAME`.

Without `-Q` a worker serves every model that can be called. The worker's concurrency is what the
catalog says of the models that it serves, unless `-c` says otherwise.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery.signals import celeryd_after_setup, celeryd_init, worker_ready, worker_shutdown

from model_workers import combine
from model_workers.answer_cache import embeddings
from model_workers.post import process
from model_workers.serving import (
    concurrency,
    consume,
    consume_new,
    going_on,
    known_again,
    leave_to_people,
    leave_unknown,
    queue_limits,
    resize,
    unknown_models,
)
from model_workers.task import CallTask
from modelyard.app import lanes, make_app, serve_batch_lanes
from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.catalog_follower import CatalogFollower
from modelyard.errors import ModelyardError
from modelyard.following import follow
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


@dataclass
class Serving:
    """What this worker serves: as it was started, and as its catalog is now.

    `limits` is what the transport's channel looks at: this very mapping. `left` are the queues that
    it left to people. `unknown`: the models that its catalog did not have when it was started, and
    `waiting` their queues.
    """

    queues: tuple[str, ...] = ()
    size: int = 0
    limits: dict[str, int] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    unknown: Mapping[str, str] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)


serving = Serving()


@celeryd_init.connect(weak=False)
def size_worker(instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
    """Refuse queues if all models are unknown, and take the concurrency from the catalog."""
    queues = options.get("queues") or []
    names = queues.split(",") if isinstance(queues, str) else list(queues)
    serving.unknown = unknown_models(catalog, names)
    names = [name for name in names if queue_model(name.strip()) not in serving.unknown]
    try:
        serving.size = concurrency(catalog, names)
    except ModelyardError as error:
        raise SystemExit(f"model_workers: {error}") from error
    conf.worker_concurrency = serving.size
    serving.queues = tuple(names)
    serving.limits.update(queue_limits(catalog, names))
    conf.broker_transport_options = {
        **conf.broker_transport_options,
        "queue_limits": serving.limits,
    }


@celeryd_after_setup.connect(weak=False)
def consume_lanes(instance: Any, **_: Any) -> None:
    """Serve the batch lanes too where the worker was told the models' queues alone."""
    # What waits in the queue of a name that became an alias can be served by that name.
    names = (*(model.name for model in catalog.models), *catalog.aliases, *serving.unknown)
    serve_batch_lanes(instance.app.amqp.queues, map(model_queue, names))
    serving.waiting = leave_unknown(instance.app.amqp.queues, serving.unknown)
    # The catalog was read before there was a log.
    logger.info("catalog %s: %s", settings.catalog_path, catalog.summary())
    tell_problems(catalog)


@worker_ready.connect(weak=False)
def follow_catalog(sender: Any, **_: Any) -> None:
    """Go on with the catalog as its file is changed."""
    follow(sender, CatalogFollower(settings, CallTask.catalog, partial(use, sender)))


def use(consumer: Any, catalog: Catalog) -> None:
    """Call by this catalog from now on; what is being called goes on as it began."""
    before = CallTask.catalog
    after = going_on(catalog, before, serving.queues)
    known = known_again(after, serving.waiting)
    queues = (*serving.queues, *known)
    size, limits = concurrency(after, queues), queue_limits(after, queues)
    CallTask.catalog = after
    serving.limits.clear()
    serving.limits.update(limits)
    if consumer.controller.concurrency == app.conf.worker_concurrency:
        resize(consumer, size - serving.size)
        serving.size = size
    serving.queues = queues
    serving.waiting.difference_update(known)
    consume(consumer, [app.amqp.queues[name] for name in known])
    if not queues:
        consume_new(consumer, after, before)
    leave_to_people(consumer, catalog, serving.left)
    tell_problems(after)


def tell_problems(catalog: Catalog) -> None:
    """Log what is named in the catalog and can't be used here."""
    for problem in (*combine.problems(catalog), *process.problems(catalog)):
        logger.error("requests that need it will be dead letters: %s", problem)
    for problem in embeddings.problems(catalog, CallTask.folder):
        logger.error("%s", problem)


@worker_shutdown.connect(weak=False)
def settle(**_: Any) -> None:
    """Acknowledge and put back what a lost connection left."""
    settle_at_exit()
