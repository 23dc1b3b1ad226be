"""The router worker's Celery app: `celery -A router_worker worker -Q requests`."""

import gc
import logging
from typing import Any

from celery.signals import celeryd_after_setup, worker_shutdown
from celery.worker.control import inspect_command

from modelyard.app import lanes, make_app, serve_batch_lanes
from modelyard.catalog_file import default_catalog
from modelyard.connect import connect
from modelyard.holdings import settle_at_exit
from modelyard.names import REQUESTS_QUEUE
from modelyard.settings import load_settings
from router_worker.experiments.watch import Watch
from router_worker.oracles.shared import Shared
from router_worker.oracles.shelf import Shelf
from router_worker.rules import prepare
from router_worker.spending import Spending
from router_worker.sweep import Sweeper
from router_worker.task import RouteTask

YOUNG_OBJECTS = 10_000
"""So many new objects, of some batches, before the collector looks at them."""

logger = logging.getLogger("modelyard.router")
settings = load_settings()
app = make_app(
    "router_worker",
    settings=settings,
    # Routing happens in the consumer; the pool is only for messages with an ETA.
    worker_pool="solo",
    worker_prefetch_multiplier=200,
    task_queues=lanes(REQUESTS_QUEUE),
)
app.conf.broker_transport_options = {**app.conf.broker_transport_options, "poll_s": 0.02}
RouteTask.catalog = default_catalog(settings)
RouteTask.shelf = Shelf(
    settings.catalog_path.parent,
    RouteTask.catalog,
    shared=lambda: Shared.at(app.conf.broker_url),
)
watch = Watch(
    RouteTask.catalog,
    lambda: connect(app.conf.broker_url, socket_timeout=10.0, socket_connect_timeout=10.0),
)
RouteTask.watch = watch
RouteTask.spending = Spending(
    RouteTask.catalog,
    lambda: connect(app.conf.broker_url, socket_timeout=2.0, socket_connect_timeout=2.0),
)
sweeper = Sweeper(
    tuple(model.name for model in RouteTask.catalog.models if model.is_people),
    lambda: connect(app.conf.broker_url, socket_timeout=10.0, socket_connect_timeout=10.0),
    settings,
)
RouteTask.result_ttl_s = settings.result_ttl_s
app.register_task(RouteTask())


@celeryd_after_setup.connect(weak=False)
def consume_lanes(instance: Any, **_: Any) -> None:
    """Serve the batch lane too where the worker was told the queue's name alone."""
    serve_batch_lanes(instance.app.amqp.queues, [REQUESTS_QUEUE])
    # The catalog was read before there was a log.
    logger.info("catalog %s: %s", settings.catalog_path, RouteTask.catalog.summary())
    # No request waits for a pattern to be compiled, or for a model to be read.
    for route in RouteTask.catalog.routes.values():
        prepare(route)
    RouteTask.shelf.knowledge()
    watch.start()
    sweeper.start()
    # What was imported stays: the collector need not look at it with every batch.
    # https://docs.python.org/3/library/gc.html#gc.freeze
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


# `celery -A router_worker inspect learned`:
# https://docs.celeryq.dev/en/stable/userguide/workers.html#writing-your-own-remote-control-commands
@inspect_command()
def learned(state: Any) -> dict[str, Any]:
    """Return the learned models of this router: versions, problems, failures, caches."""
    return RouteTask.shelf.report()


@worker_shutdown.connect(weak=False)
def settle(**_: Any) -> None:
    """Acknowledge and put back what a lost connection left."""
    watch.stop()
    sweeper.stop()
    settle_at_exit()
