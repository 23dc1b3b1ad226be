"""The router worker's Celery app: `celery -A router_worker worker -Q requests`."""

from modelyard.app import make_app
from modelyard.catalog_file import default_catalog
from modelyard.settings import load_settings
from router_worker.task import RouteTask

settings = load_settings()
app = make_app(
    "router_worker",
    settings=settings,
    # Routing happens in the consumer; the pool is only for messages with an ETA.
    worker_pool="solo",
    worker_prefetch_multiplier=100,
)
RouteTask.catalog = default_catalog(settings)
app.register_task(RouteTask())
