"""The Celery app that all parts share."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from celery import Celery
from celery.loaders.app import AppLoader
from kombu.entity import Exchange, Queue

from modelyard.address import broker_address
from modelyard.names import REQUESTS_QUEUE, in_lane
from modelyard.sentinel import SentinelAddress, is_sentinel, parse
from modelyard.settings import Settings, load_settings


class Loader(AppLoader):
    """Celery's loader for apps, with modelyard's result backend in place of Celery's."""

    # https://docs.celeryq.dev/en/stable/userguide/extending.html
    override_backends: ClassVar = {
        "redis": "modelyard.backend:Backend",
        "rediss": "modelyard.backend:Backend",
        "sentinel": "modelyard.backend:SentinelBackend",
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
    url = broker_address(broker_url, settings)
    app = Celery(name, loader=Loader, set_as_current=current)
    app.conf.update(celery_conf(url, settings))
    if is_sentinel(url):
        with_sentinels(app.conf, parse(url), ours=conf.get("broker_transport", True))
    app.conf.update(conf)
    # As strings: only a worker imports them.
    # https://docs.celeryq.dev/en/stable/userguide/extending.html#installing-bootsteps
    app.steps["worker"].add("modelyard.heartbeat:Heartbeat")
    app.steps["consumer"].add("modelyard.events:BatchedEvents")
    app.steps["consumer"].add("modelyard.strays:Strays")
    return app


def with_sentinels(conf: Any, address: SentinelAddress, *, ours: Any) -> None:
    """Change an app's settings to a broker that sentinels watch over.

    Not `ours`: with kombu's transport, which wants to have all addresses. `broker_url` stays the
    whole address, for `modelyard.connect`.
    """
    urls = address.kombu_urls
    options = {
        "master_name": address.master_name,
        "sentinels": [list(each) for each in address.sentinels],
        "sentinel_kwargs": address.sentinel_kwargs,
    }
    conf.update(
        broker_transport="modelyard.sentinel_transport:SentinelTransport",
        broker_read_url=urls[0] if ours else ";".join(urls),
        broker_write_url=urls[0] if ours else ";".join(urls),
        broker_transport_options={**conf.broker_transport_options, **options},
        result_backend=urls[0],
        result_backend_transport_options=options,
    )


def lanes(name: str) -> list[Queue]:
    """Return the interactive and the batch lane of a queue.

    With exchanges of their own: Celery's default one would bind them to `requests`.
    """
    names = [in_lane(name, batch=batch) for batch in (False, True)]
    return [Queue(each, Exchange(each), routing_key=each) for each in names]


def serve_batch_lanes(queues: Any, names: Iterable[str]) -> None:
    """Let a worker that consumes one of `names` consume its batch lane too.

    `queues` is the app's `amqp.queues`, after the worker was told which of them to consume.
    """
    consumed = set(queues.consume_from)
    for name in names:
        if name in consumed:
            queues.select_add(lanes(name)[1])


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
        # A Redis that refuses a command (a replica, a full disk) is tried again, as one away.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-channel-error-retry
        "broker_channel_error_retry": True,
        # The calls in flight go on while the broker is away; their answers are stored afterwards.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-cancel-long-running-tasks-on-connection-loss
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport_options": {
            # Ours, in place of a visibility timeout: see `modelyard.transport`.
            "lease_s": settings.lease_s,
            "batch_share": settings.batch_share,
            "ledger_entries": settings.ledger_entries,
            "ledger_text": settings.ledger_text,
            # A server that hangs is an error after this long, not a wait for ever.
            # https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.transport.redis.html
            "socket_timeout": 20,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        "modelyard_dead_letter_limit": settings.dead_letter_limit,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_soft_shutdown_timeout": 0,
        # Prompts are not shown in logs, events and Flower: `argsrepr` says how long one is.
        "result_extended": False,
    }
