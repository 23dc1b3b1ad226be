"""A program that has Celery and the broker's address, and nothing of modelyard.

MODELYARD_BROKER_URL=redis://... python examples/plain_celery.py
"""

import os

from celery import Celery

url = os.environ["MODELYARD_BROKER_URL"]
app = Celery(broker=url, backend=url)

# An answer that somebody waits for is a JSON object; a dead letter is raised as an error.
submitted = app.send_task(
    "modelyard.route",
    args=[{"text": "Summarize: The yard was full. Two trains waited."}],
    queue="requests",
)
answer = submitted.get(timeout=60)
print(submitted.id, answer["model"], answer["text"])
