"""The router worker's Celery app: `celery -A router_worker worker -Q requests`."""

import logging
from typing import Any

from celery.signals import celeryd_after_setup, worker_shutdown

from modelyard.app import lanes, make_app, serve_batch_lanes
from modelyard.catalog_file import default_catalog
from modelyard.holdings import settle_at_exit
from modelyard.names import REQUESTS_QUEUE
from modelyard.settings import load_settings
from router_worker.task import RouteTask

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
RouteTask.result_ttl_s = settings.result_ttl_s
app.register_task(RouteTask())


@celeryd_after_setup.connect(weak=False)
def consume_lanes(instance: Any, **_: Any) -> None:
    """Serve the batch lane too where the worker was told the queue's name alone."""
    serve_batch_lanes(instance.app.amqp.queues, [REQUESTS_QUEUE])
    # The catalog was read before there was a log.
    logger.info("catalog %s: %s", settings.catalog_path, RouteTask.catalog.summary())


@worker_shutdown.connect(weak=False)
def settle(**_: Any) -> None:
    """Acknowledge and put back what a lost connection left."""
    settle_at_exit()
