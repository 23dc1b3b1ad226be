"""The plain Celery app's two tasks, for `celery -A benchmarks.plain_celery.tasks worker`.

`PLAIN_BROKER_URL` is its Redis, `PLAIN_BASE_URL` the OpenAI-compatible endpoint, and
`PLAIN_CONCURRENCY` how many connections to it are kept.
"""

import os
from typing import Any

import httpx
from celery import Celery

from benchmarks.plain_celery.settings import CALL, CALLS, ROUTE, conf

app = Celery("plain")
app.conf.update(conf(os.environ["PLAIN_BROKER_URL"]))

KEPT = int(os.environ.get("PLAIN_CONCURRENCY", "50"))
KEYWORDS = ("summarize", "tl;dr")
http = httpx.Client(
    base_url=os.environ["PLAIN_BASE_URL"],
    limits=httpx.Limits(max_connections=KEPT, max_keepalive_connections=KEPT),
    timeout=60.0,
)


# The result under this id is the call's. `raise Ignore` instead costs much more CPU: Celery makes
# a traceback of it.
# https://docs.celeryq.dev/en/stable/userguide/tasks.html#ignore-results-you-don-t-want
@app.task(name=ROUTE, bind=True, ignore_result=True)
def route(self: Any, payload: dict[str, Any]) -> None:
    """Classify by keyword and send the request on under the same id."""
    text = "\n".join(message["content"] for message in payload["messages"]).casefold()
    intent = "summarize" if any(word in text for word in KEYWORDS) else "other"
    call = {"request": payload, "intent": intent, "model": "small"}
    self.app.send_task(CALL, args=[call], queue=CALLS, task_id=self.request.id)


@app.task(name=CALL)
def call(payload: dict[str, Any]) -> dict[str, Any]:
    """Call the model and return its answer."""
    body = {"model": payload["model"], "messages": payload["request"]["messages"]}
    response = http.post("chat/completions", json=body)
    response.raise_for_status()
    answer = response.json()
    return {
        "text": answer["choices"][0]["message"]["content"],
        "model": payload["model"],
        "intent": payload["intent"],
        "usage": answer["usage"],
    }
