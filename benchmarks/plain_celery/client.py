"""The producer's side of the plain Celery app, and its two worker commands."""

import sys
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.result import ResultSet

from benchmarks.plain_celery.settings import CALLS, REQUESTS, ROUTE, conf


class PlainClient:
    """Submits requests to the plain Celery app and waits for their results."""

    def __init__(self, url: str) -> None:
        self._app = Celery("plain.client", set_as_current=False)
        self._app.conf.update(conf(url))

    def one(self, payload: dict[str, Any], timeout_s: float) -> str:
        """Submit one request, wait for its answer and return its text."""
        result = self._app.send_task(ROUTE, args=[payload], queue=REQUESTS)
        answer: dict[str, Any] = result.get(timeout=timeout_s)
        return str(answer["text"])

    def many(self, payloads: Sequence[dict[str, Any]], timeout_s: float) -> int:
        """Submit all over one producer, wait for all and return how many were answered."""
        with self._app.producer_pool.acquire(block=True) as producer:
            results = [
                self._app.send_task(ROUTE, args=[payload], queue=REQUESTS, producer=producer)
                for payload in payloads
            ]
        # Celery's fastest wait for many: one subscription for all of them.
        answers = ResultSet(results, app=self._app).join_native(timeout=timeout_s)
        return sum(1 for answer in answers if answer["text"])

    def close(self) -> None:
        """Let go of the broker."""
        self._app.close()


def worker_command(queue: str, *options: str, python: str = sys.executable) -> list[str]:
    """Return the command line of a worker of one queue, with the flags of modelyard's own."""
    return [
        *(python, "-m", "celery", "-A", "benchmarks.plain_celery.tasks", "worker"),
        *("-n", f"{queue}@%h", "-Q", queue, "-E", "--without-gossip", "--loglevel", "INFO"),
        *options,
    ]


def route_command() -> list[str]:
    """Return the command line of the route worker: one thread, the fastest pool for it."""
    return worker_command(REQUESTS, "--pool", "solo", "--prefetch-multiplier", "100")


def call_command(concurrency: int) -> list[str]:
    """Return the command line of the call worker: threads, as HTTP calls mostly wait."""
    return worker_command(CALLS, "--pool", "threads", "--concurrency", str(concurrency))
