"""Settings and names of the plain Celery app."""

from collections.abc import Mapping
from typing import Any, Final

ROUTE: Final = "plain.route"
CALL: Final = "plain.call"
REQUESTS: Final = "plain.requests"
CALLS: Final = "plain.model.small"


def conf(url: str) -> Mapping[str, Any]:
    """Return the Celery settings: the guarantees of modelyard's, and what makes threads fast."""
    return {
        "broker_url": url,
        "result_backend": url,
        "accept_content": ["json"],
        "task_acks_late": True,
        # Each worker holds what it can run now; the route worker's command line says more.
        # https://docs.celeryq.dev/en/stable/userguide/optimizing.html#prefetch-limits
        "worker_prefetch_multiplier": 1,
        "task_create_missing_queues": True,
        "worker_send_task_events": True,
        # Without it every thread opens a result backend of its own, at a third of the speed.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-backend-thread-safe
        "result_backend_thread_safe": True,
        # The default of 10 connections fails acks of 50 threads.
        "broker_transport_options": {"max_connections": 1000},
    }
