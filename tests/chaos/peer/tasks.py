"""The peer's two tasks, for `celery -A chaos.peer.tasks worker`."""

import os
from typing import Any

import httpx
from celery import Celery
from celery.exceptions import Ignore

from chaos.load import CRASH
from chaos.peer.settings import CALL, CALLS, ROUTE, conf

CALL_TIMEOUT_S = float(os.environ.get("CHAOS_TIMEOUT_S", "4"))
KEPT = 50

app = Celery("peer")
app.conf.update(conf(os.environ["CHAOS_BROKER_URL"], float(os.environ["CHAOS_LEASE_S"])))
http = httpx.Client(
    base_url=os.environ["CHAOS_BASE_URL"].format(worker=os.environ["CHAOS_WORKER"]),
    limits=httpx.Limits(max_connections=KEPT, max_keepalive_connections=KEPT),
    timeout=CALL_TIMEOUT_S,
)


@app.task(name=ROUTE, bind=True)
def route(self: Any, text: str) -> None:
    """Choose a model by length and send the request on under the same id."""
    call = {"text": text, "model": "small" if len(text) < 10_000 else "large"}
    self.app.send_task(CALL, args=[call], queue=CALLS, task_id=self.request.id)
    raise Ignore


# https://docs.celeryq.dev/en/stable/userguide/tasks.html#automatic-retry-for-known-exceptions
@app.task(
    name=CALL,
    bind=True,
    autoretry_for=(httpx.HTTPError, ValueError, KeyError),
    max_retries=3,
    retry_backoff=1,
    retry_backoff_max=5,
)
def call(self: Any, payload: dict[str, Any]) -> str:
    """Call the model and return its answer."""
    text: str = payload["text"]
    if CRASH in text:
        os._exit(1)
    response = http.post(
        "chat/completions",
        json={"model": payload["model"], "messages": [{"role": "user", "content": text}]},
        headers={"x-request-id": self.request.id},
        timeout=300.0 if "[sleep=" in text else CALL_TIMEOUT_S,
    )
    response.raise_for_status()
    answer: str = response.json()["choices"][0]["message"]["content"]
    return answer
