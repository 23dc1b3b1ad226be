"""The router worker's Celery app: `celery -A router_worker worker -Q requests`."""

import gc
import logging
from typing import Any

from celery.signals import celeryd_after_setup, worker_ready, worker_shutdown
from celery.worker.control import inspect_command

from modelyard.app import lanes, make_app, serve_batch_lanes
from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.catalog_follower import CatalogFollower
from modelyard.following import follow
from modelyard.holdings import settle_at_exit
from modelyard.names import REQUESTS_QUEUE
from modelyard.settings import load_settings
from router_worker.basis import Basis
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
RouteTask.basis = Basis(default_catalog(settings), settings, app.conf.broker_url)
RouteTask.result_ttl_s = settings.result_ttl_s
app.register_task(RouteTask())


@celeryd_after_setup.connect(weak=False)
def consume_lanes(instance: Any, **_: Any) -> None:
    """Serve the batch lane too where the worker was told the queue's name alone."""
    serve_batch_lanes(instance.app.amqp.queues, [REQUESTS_QUEUE])
    # The catalog was read before there was a log.
    logger.info("catalog %s: %s", settings.catalog_path, RouteTask.basis.catalog.summary())
    RouteTask.basis.start()
    # What was imported stays: the collector need not look at it with every batch.
    # https://docs.python.org/3/library/gc.html#gc.freeze
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def use(catalog: Catalog) -> None:
    """Decide by this catalog from the next batch on."""
    RouteTask.basis = RouteTask.basis.followed_by(catalog)


@worker_ready.connect(weak=False)
def follow_catalog(sender: Any, **_: Any) -> None:
    """Go on with the catalog as its file is changed."""
    follow(sender, CatalogFollower(settings, RouteTask.basis.catalog, use))


# `celery -A router_worker inspect learned`:
# https://docs.celeryq.dev/en/stable/userguide/workers.html#writing-your-own-remote-control-commands
@inspect_command()
def learned(state: Any) -> dict[str, Any]:
    """Return the learned models of this router: versions, problems, failures, caches."""
    return RouteTask.basis.shelf.report()


@worker_shutdown.connect(weak=False)
def settle(**_: Any) -> None:
    """Acknowledge and put back what a lost connection left."""
    RouteTask.basis.stop()
    settle_at_exit()
