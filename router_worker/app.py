"""The router worker's Celery app: `celery -A router_worker worker -Q requests`."""

import logging
from typing import Any

from celery.signals import celeryd_after_setup, worker_shutdown

from modelyard.app import make_app
from modelyard.catalog_file import default_catalog
from modelyard.settings import load_settings
from modelyard.transport import settle_at_exit
from router_worker.task import RouteTask

logger = logging.getLogger("modelyard.router")
settings = load_settings()
app = make_app(
    "router_worker",
    settings=settings,
    # Routing happens in the consumer; the pool is only for messages with an ETA.
    worker_pool="solo",
    worker_prefetch_multiplier=100,
)
RouteTask.catalog = default_catalog(settings)
RouteTask.once_s = settings.visibility_timeout_s
app.register_task(RouteTask())


@celeryd_after_setup.connect(weak=False)
def tell_catalog(**_: Any) -> None:
    """Log what can be routed to: the catalog was read before there was a log."""
    logger.info("catalog %s: %s", settings.catalog_path, RouteTask.catalog.summary())


@worker_shutdown.connect(weak=False)
def settle(**_: Any) -> None:
    """Acknowledge and put back what a lost connection left."""
    settle_at_exit(app.connection_for_write())
