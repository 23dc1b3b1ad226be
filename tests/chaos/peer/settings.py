"""Settings and names of the peer."""

from collections.abc import Mapping
from typing import Any, Final

ROUTE: Final = "peer.route"
CALL: Final = "peer.call"
REQUESTS: Final = "peer.requests"
CALLS: Final = "peer.calls"


def conf(url: str, visibility_s: float) -> Mapping[str, Any]:
    """Return the Celery settings that its documentation names for not losing work."""
    return {
        "broker_url": url,
        "result_backend": url,
        "accept_content": ["json"],
        # https://docs.celeryq.dev/en/stable/faq.html#should-i-use-retry-or-acks-late
        "task_acks_late": True,
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-reject-on-worker-lost
        "task_reject_on_worker_lost": True,
        # https://docs.celeryq.dev/en/stable/userguide/optimizing.html#prefetch-limits
        "worker_prefetch_multiplier": 1,
        "task_create_missing_queues": True,
        "worker_send_task_events": True,
        # https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout
        "broker_transport_options": {
            "visibility_timeout": visibility_s,
            "socket_keepalive": True,
            "socket_timeout": 10,
            "retry_on_timeout": True,
            "health_check_interval": 25,
            "max_connections": 1000,
        },
        # https://docs.celeryq.dev/en/stable/userguide/calling.html#message-sending-retry
        "task_publish_retry": True,
        "task_publish_retry_policy": {"max_retries": 10, "interval_step": 0.2, "interval_max": 1.0},
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-retry
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-backend-always-retry
        "result_backend_always_retry": True,
        "result_backend_thread_safe": True,
        "redis_socket_timeout": 10,
        "redis_retry_on_timeout": True,
        "redis_backend_health_check_interval": 25,
    }
