"""Celery's Redis result backend, and what modelyard adds to it.

*The first outcome wins*: nothing is stored over a terminal result, by one script, so a request
that ran twice keeps the answer that somebody may already have read.

*One subscription*: when the message's `reply_to` is a modelyard client's channel, the id is
published there too. A client that waits for 10,000 answers listens on one channel.

The keys, the encoding and the per-task channel stay Celery's, so `AsyncResult(id)` of a program
that knows only the broker's address works.
"""

import logging
import threading
from typing import Any

import redis
from celery import states
from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str

from modelyard.claims import End, settle
from modelyard.connect import Connection, SSLConnection
from modelyard.endings import reply_channel
from modelyard.errors import RequestFailed
from modelyard.redis_errors import passes
from modelyard.sentinel import DEFAULT_MASTER, master_pool

logger = logging.getLogger("modelyard.backend")


class Backend(RedisBackend):
    """Result backend of every modelyard app, by `override_backends`.

    A write is tried again while Redis is away or refuses it, until `give_up` is set: the answer
    it holds was paid for.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.give_up = threading.Event()

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        return not self.give_up.is_set() and (super().exception_safe_to_retry(exc) or passes(exc))

    def _sleep(self, amount: float) -> None:
        self.give_up.wait(amount)

    def _get_pool(self, **params: Any) -> Any:
        # With TLS and for a socket in the file system Celery names another class.
        kind = params.pop("connection_class", Connection)
        kind = SSLConnection if kind is redis.SSLConnection else kind
        return super()._get_pool(connection_class=kind, **params)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        if state == states.REVOKED and request is None:
            # A `revoke` that reached a worker which does not have the task. Whoever has it stores
            # what becomes of it: a call that runs goes on, and its answer is paid for.
            return result
        if isinstance(result, dict) and result.get("exc_type") == RequestFailed.__name__:
            traceback = None  # An expected end: where in our code it was raised tells nobody.
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        final = state in states.READY_STATES
        end = End(
            claim="",
            key=bytes_to_str(self.get_key_for_task(task_id)),
            result=self.encode(meta),
            ttl_s=self.expires,
            id=meta["task_id"],
            channel=reply_channel(getattr(request, "reply_to", None)) if final else "",
        )
        try:
            settle(self.client, [end])
        except (redis.RedisError, OSError) as error:
            if final:
                raise
            # Not worth waiting for Redis, least of all in a worker that is told to stop.
            logger.info("%s: the state %s is not stored: %s", task_id, state, error)
        return result


class SentinelBackend(Backend):
    """The same on whoever is the master now; the settings are those of `SentinelTransport`."""

    def _get_pool(self, **params: Any) -> Any:
        host, port = params.pop("host"), params.pop("port")
        options = self._transport_options
        return master_pool(
            [(each[0], each[1]) for each in options.get("sentinels") or [(host, port)]],
            options.get("master_name", DEFAULT_MASTER),
            options.get("sentinel_kwargs") or {},
            **params,
        )
