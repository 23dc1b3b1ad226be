"""Putting a task message on a queue, as Celery's protocol 2 has it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery

from modelyard.errors import MessageTooLarge
from modelyard.names import ONCE_HEADER


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """A task message, encoded once."""

    queue: str
    body: str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]


def task_message(
    app: Celery,
    *,
    task: str,
    id: str,
    payload: Mapping[str, Any],
    queue: str,
    summary: str,
    reply_to: str = "",
    parent_id: str | None = None,
    shadow: str | None = None,
    once_s: int | None = None,
    mark: str | None = None,
    max_bytes: int | None = None,
) -> TaskMessage:
    """Return the message of one task with `payload` as its one argument.

    `summary` stands for the payload in logs, events and Flower: prompts do not belong there.
    `once_s` makes the transport accept `mark`, by default the id, once in so many seconds. Raises
    `MessageTooLarge` above `max_bytes`.
    """
    message = app.amqp.as_task_v2(
        id,
        task,
        args=(payload,),
        reply_to=reply_to,
        root_id=id,
        parent_id=parent_id,
        shadow=shadow,
        argsrepr=summary,
        kwargsrepr="{}",
    )
    body = json.dumps(message.body, ensure_ascii=False, separators=(",", ":"))
    size = len(body.encode()) if max_bytes is not None else 0
    if max_bytes is not None and size > max_bytes:
        raise MessageTooLarge(
            f"request {id}: its message has {size:,} bytes, the limit is {max_bytes:,} "
            "(MODELYARD_MAX_MESSAGE_BYTES): send less text, or let `modelyard summarize` split it"
        )
    headers = dict(message.headers)
    if once_s is not None:
        headers[ONCE_HEADER] = [mark or id, once_s]
    return TaskMessage(queue, body, headers, message.properties)


def publish(producer: Any, message: TaskMessage) -> None:
    """Publish on the default exchange, which needs no declaration. Raises what kombu raises."""
    producer.publish(
        message.body,
        exchange="",
        routing_key=message.queue,
        content_type="application/json",
        content_encoding="utf-8",
        headers=dict(message.headers),
        **message.properties,
    )
