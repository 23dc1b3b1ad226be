"""The producer's side of the plain Celery app."""

import threading
import time
import uuid
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, Final

import redis
from celery import Celery
from celery.result import ResultSet

from benchmarks.pace import gathered, paced
from benchmarks.plain_celery.settings import REQUESTS, ROUTE, conf

LOOK_S: Final = 0.1


class PlainClient:
    """Submits requests to the plain Celery app and waits for their results."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._app = Celery("plain.client", set_as_current=False)
        self._app.conf.update(conf(url))

    def one(self, text: str, timeout_s: float) -> str:
        """Submit one request, wait for its answer and return its text."""
        result = self._app.send_task(ROUTE, args=[payload(text)], queue=REQUESTS)
        answer: dict[str, Any] = result.get(timeout=timeout_s)
        return str(answer["text"])

    def many(self, texts: Sequence[str], timeout_s: float) -> int:
        """Submit all over one producer, wait for all and return how many were answered."""
        with self._app.producer_pool.acquire(block=True) as producer:
            results = [
                self._app.send_task(ROUTE, args=[payload(text)], queue=REQUESTS, producer=producer)
                for text in texts
            ]
        # Celery's fastest wait for many: one subscription for all of them.
        answers = ResultSet(results, app=self._app).join_native(timeout=timeout_s)
        return sum(1 for answer in answers if answer["text"])

    def paced(self, text: str, at_s: Sequence[float], timeout_s: float) -> list[float]:
        """Submit at these seconds from now; return the milliseconds that each took.

        The answers are heard on one subscription to all results, which costs less than Celery's
        own ways: its `AsyncResult.get` in one thread would hear them in the order of the submits.
        """
        due_at: dict[str, float] = {}
        ended: SimpleQueue[float] = SimpleQueue()
        stopping = threading.Event()
        with redis.Redis.from_url(self._url) as client, client.pubsub() as subscription:
            prefix = self._app.backend.task_keyprefix
            subscription.psubscribe(prefix + b"*")
            subscription.get_message(timeout=timeout_s)

            def listen() -> None:
                while not stopping.is_set():
                    message = subscription.get_message(timeout=LOOK_S)
                    if message and message["type"] == "pmessage":
                        now = time.perf_counter()
                        due = due_at.get(message["channel"].removeprefix(prefix).decode())
                        if due is not None:
                            ended.put(1000 * (now - due))

            listener = threading.Thread(target=listen, name="listener")
            listener.start()
            try:
                with self._app.producer_pool.acquire(block=True) as producer:
                    for due in paced(at_s):
                        id = str(uuid.uuid4())
                        due_at[id] = due
                        self._app.send_task(
                            ROUTE,
                            args=[payload(text)],
                            queue=REQUESTS,
                            producer=producer,
                            task_id=id,
                        )
                return gathered(ended, len(due_at), timeout_s)
            finally:
                stopping.set()
                listener.join()

    def close(self) -> None:
        """Let go of the broker."""
        self._app.close()


def payload(text: str) -> dict[str, Any]:
    """Return one request as JSON."""
    return {"messages": [{"role": "user", "content": text}], "submitted_at": time.time()}
