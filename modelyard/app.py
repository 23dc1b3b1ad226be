"""The Celery app that all parts share."""

from collections.abc import Mapping
from typing import Any, ClassVar

from celery import Celery
from celery.loaders.app import AppLoader

from modelyard.errors import SettingsError
from modelyard.names import REQUESTS_QUEUE
from modelyard.settings import Settings, load_settings


class Loader(AppLoader):
    """Celery's loader for apps, with modelyard's result backend in place of Celery's."""

    # https://docs.celeryq.dev/en/stable/userguide/extending.html
    override_backends: ClassVar = {
        "redis": "modelyard.backend:Backend",
        "rediss": "modelyard.backend:Backend",
    }


def make_app(
    name: str,
    broker_url: str | None = None,
    settings: Settings | None = None,
    *,
    current: bool = True,
    **conf: Any,
) -> Celery:
    """Return a Celery app with modelyard's settings; no connection is made.

    `broker_url` overrides `MODELYARD_BROKER_URL`. `current` makes it the process's current app,
    which a worker needs and a guest in somebody else's program must not do. Raises
    `SettingsError` when neither is given or it is not a Redis address.
    """
    settings = settings or load_settings()
    url = broker_url or settings.broker_url
    if not url:
        raise SettingsError(
            "no broker: set MODELYARD_BROKER_URL to a Redis address such as "
            "redis://localhost:6379/0, or run `modelyard up`, which starts one"
        )
    if not url.startswith(("redis://", "rediss://")):
        scheme = url.split("://", 1)[0] if "://" in url else "no scheme"
        raise SettingsError(
            f"MODELYARD_BROKER_URL must start with redis:// or rediss:// ({scheme})"
        )
    app = Celery(name, loader=Loader, set_as_current=current)
    app.conf.update(celery_conf(url, settings))
    app.conf.update(conf)
    return app


def celery_conf(url: str, settings: Settings) -> Mapping[str, Any]:
    """Return the Celery settings of all parts; each that surprises has its documentation above."""
    return {
        "broker_url": url,
        "broker_transport": "modelyard.transport:Transport",
        "result_backend": url,
        # JSON only: a pickle from the broker would run whatever its sender wants.
        # https://docs.celeryq.dev/en/stable/userguide/security.html#serializers
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        # A message is given up only when its outcome is stored.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-acks-late
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        # A worker holds what it can run now, and no more.
        # https://docs.celeryq.dev/en/stable/userguide/optimizing.html#prefetch-limits
        "worker_prefetch_multiplier": 1,
        "task_default_queue": REQUESTS_QUEUE,
        "task_create_missing_queues": True,
        "result_expires": settings.result_ttl_s,
        # Retry a result write while Redis is away instead of losing a paid answer.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-backend-always-retry
        "result_backend_always_retry": True,
        # One backend object for all threads; else each of them opens connections of its own.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-backend-thread-safe
        "result_backend_thread_safe": True,
        "redis_backend_health_check_interval": 25,
        # A server that hangs is an error after this long, not a wait for ever.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#redis-socket-timeout
        "redis_socket_timeout": 20,
        "redis_socket_connect_timeout": 5,
        "broker_connection_retry_on_startup": True,
        # Keep trying for ever: a yard whose Redis restarts at night must not need a person.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-max-retries
        "broker_connection_max_retries": None,
        # The calls in flight go on while the broker is away; their answers are stored afterwards.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-cancel-long-running-tasks-on-connection-loss
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport_options": {
            # https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout
            "visibility_timeout": settings.visibility_timeout_s,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        "worker_send_task_events": True,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_soft_shutdown_timeout": 0,
        # Prompts are not shown in logs, events and Flower: `argsrepr` says how long one is.
        "result_extended": False,
    }
