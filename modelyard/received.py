"""Reading what came as a task message, when it may have come from anyone."""

import json
from datetime import datetime
from typing import Any, Final

from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from modelyard.claims import Claimed
from modelyard.errors import InvalidRequest
from modelyard.names import DELIVERIES_HEADER

QUEUE_FIELD: Final = "modelyard-queue"
"""Where a message in hand keeps the name of the queue that it came from."""

TYPED: Final = "__type__"
"""What is in a text where kombu wrote an object as more than JSON knows."""

UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What reading a message raises that is none."""


def argument(message: Any) -> Any:
    """Return the one argument of a task message. Raises `InvalidRequest` if it can't be read."""
    try:
        args, kwargs, embed = message.payload
    except (DecodeError, ContentDisallowed, ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"its message can't be read: {str(error)[:300]}") from error
    if any((embed or {}).get(key) for key in ("callbacks", "errbacks", "chain", "chord")):
        raise InvalidRequest(
            "links, chains and chords do not follow a request through the yard: "
            "wait for its answer, and send the next task then"
        )
    if len(args) == 1 and not kwargs:
        return args[0]
    if not args and set(kwargs) == {"payload"}:
        return kwargs["payload"]
    raise InvalidRequest("its message must have one argument, the request")


def read(claimed: Claimed) -> dict[str, Any]:
    """Return a task message, under its claim's name. Raises `UNREADABLE` for what is none."""
    text = bytes_to_str(claimed.message)
    # kombu's reader looks at each object for a type of its own, which hardly any message has.
    raw: dict[str, Any] = loads(text) if TYPED in text else json.loads(text)
    headers, properties = raw["headers"], raw["properties"]
    for name, value in (
        *((name, headers.get(name)) for name in ("id", "task", "root_id", "parent_id")),
        ("reply_to", properties.get("reply_to")),
    ):
        if value is not None:
            if not isinstance(value, str):
                raise TypeError(f"its {name} is no text")
            value.encode()  # a lone surrogate can't be sent to Redis
    for name in ("eta", "expires"):
        if isinstance(when := headers.get(name), str):
            datetime.fromisoformat(when)
        elif when is not None:
            raise TypeError(f"its {name} is no time")
    soft, hard = headers.get("timelimit") or (None, None)
    if not all(isinstance(limit, int | float | None) for limit in (soft, hard)):
        raise TypeError("its timelimit is no number")
    if not isinstance(headers.get("stamped_headers") or [], list):
        raise TypeError("its stamped_headers are no list")
    headers[DELIVERIES_HEADER] = int(headers.get(DELIVERIES_HEADER) or 0)
    raw[QUEUE_FIELD] = claimed.queue
    properties["delivery_tag"] = claimed.claim
    if not isinstance(properties.setdefault("delivery_info", {}), dict):
        raise TypeError("its delivery_info is no object")
    return raw
