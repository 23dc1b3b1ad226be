"""Messages that no program of ours would send."""

import base64
import json
import random
from typing import Final

from chaos.load import ID_MARK

NO_MESSAGES: Final = (
    b"",
    b"no JSON at all",
    b"\xff\xfe\x00\x01",
    b"7",
    b"null",
    b"[]",
    b"{}",
    b'{"body": 5}',
    b'{"body": "", "headers": {}, "properties": {}}',
    b'{"body": "e30=", "headers": null, "properties": null}',
)
"""Nothing in these tells whose they are: they have to leave the queue, and that is all."""

NO_REQUESTS: Final = (
    "no JSON at all",
    "7",
    "[]",
    "[[7], {}, {}]",
    '[[{"text": 5}], {}, {}]',
    '[[{"text": "hi", "route": ["a"]}], {}, {}]',
    '[[{"text": "hi", "metadata": {"a": "\\udfff"}}], {}, {}]',
    "[[" + "[" * 300 + "]" * 300 + "], {}, {}]",
    "[[" + "[" * 20_000 + "]" * 20_000 + "], {}, {}]",
)
"""Bodies of task messages with an id: they have to end as dead letters."""


def envelope(id: str, task: str, queue: str, body: str) -> bytes:
    """Return a task message with this body, as Celery's protocol 2 has it."""
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"id": id, "task": task, "lang": "py", "root_id": id},
            "properties": {
                "correlation_id": id,
                "delivery_tag": f"tag-{id}",
                "body_encoding": "base64",
                "delivery_mode": 2,
                "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": queue},
            },
        }
    ).encode()


def some(
    rng: random.Random, storm: str, number: int, task: str, queue: str
) -> tuple[bytes, dict[str, bytes]]:
    """Return one message that is none, and by their ids some that are no requests."""
    bodies = rng.sample(NO_REQUESTS, 3)
    ids = [f"{ID_MARK}{storm}-bad{number:03d}{letter}" for letter in "abc"]
    named = {id: envelope(id, task, queue, body) for id, body in zip(ids, bodies, strict=True)}
    return rng.choice(NO_MESSAGES), named
