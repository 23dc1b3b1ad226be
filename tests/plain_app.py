"""A plain Celery app, as others on the same Redis have it: nothing of ours in it."""

import os

from celery import Celery

app = Celery("plain_app", broker=os.environ["PLAIN_URL"], backend=os.environ["PLAIN_URL"])
app.conf.task_default_queue = "plain"


@app.task(name="plain.add")
def add(left: int, right: int) -> int:
    return left + right


@app.task(name="plain.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)
