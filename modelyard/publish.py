"""Task messages as they lie in a queue: Celery's protocol 2 in the envelope of kombu's transports.

https://docs.celeryq.dev/en/stable/internals/protocol.html describes headers and body; the envelope
is what `kombu.transport.virtual` reads. Any Celery worker understands them.
"""

import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from modelyard.errors import MessageTooLarge
from modelyard.names import DELIVERIES_HEADER

EMBED: Final = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'

encode_json: Final[Callable[[Any], str]] = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":")
).encode


def envelope(
    *,
    task: str,
    id: str,
    payload: Mapping[str, Any] | str,
    queue: str,
    summary: str,
    reply_to: str = "",
    parent_id: str | None = None,
    shadow: str | None = None,
    redelivered: bool = False,
    deliveries: int = 0,
    max_bytes: int | None = None,
) -> str:
    """Return the message of one task with `payload` as its one argument, ready for its queue.

    A `payload` that is a string is JSON already. `summary` stands for the payload in logs, events
    and Flower: prompts do not belong there. `deliveries`: how many workers that had it were lost.
    Raises `MessageTooLarge` if the task's body has more
    than `max_bytes`, and what `json` raises.
    """
    argument = payload if isinstance(payload, str) else encode_json(payload)
    body = f"[[{argument}],{{}},{EMBED}]"
    if max_bytes is not None and len(body) * 4 > max_bytes:  # no need to count a short one
        size = len(body.encode())
        if size > max_bytes:
            raise MessageTooLarge(
                f"request {id}: its message has {size:,} bytes, the limit is {max_bytes:,} "
                "(MODELYARD_MAX_MESSAGE_BYTES): send less text, or let `modelyard summarize` "
                "split it"
            )
    return encode_json(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": task,
                "id": id,
                "shadow": shadow,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": id,
                "parent_id": parent_id,
                "argsrepr": summary,
                "kwargsrepr": "{}",
                "origin": origin(),
                "ignore_result": False,
                **({"redelivered": True} if redelivered else {}),
                **({DELIVERIES_HEADER: deliveries} if deliveries else {}),
            },
            "properties": {
                "correlation_id": id,
                "reply_to": reply_to,
                "delivery_mode": 2,
                "delivery_info": {
                    "exchange": "",
                    "routing_key": queue,
                    **({"redelivered": True} if redelivered else {}),
                },
                "priority": 0,
                "delivery_tag": id,  # a worker names its claim in its stead
            },
        }
    )


_origin: tuple[int, str] = (0, "")


def origin() -> str:
    """Return who sends: process id and host, as Celery writes it."""
    global _origin  # noqa: PLW0603 - a fork changes it
    pid = os.getpid()
    if _origin[0] != pid:
        _origin = pid, f"{pid}@{socket.gethostname()}"
    return _origin[1]
