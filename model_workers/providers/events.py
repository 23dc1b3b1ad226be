"""Streamed answers: the events of a `text/event-stream` body.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `name` is `message` where the server gave none."""

    name: str
    data: str


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether a response's content type says that its body is events."""
    kind = headers.get("content-type", "").partition(";")[0]
    return kind.strip().lower() == "text/event-stream"


def read_events(body: bytes) -> list[Event]:
    """Return the events of a whole body, in order.

    Lines end with CR, LF or both. Comments, the fields `id` and `retry`, and events without data
    are left out; so is a last event without a blank line behind it: half of it may be missing.
    """
    events: list[Event] = []
    name, data = b"", list[bytes]()
    # bytes, unlike str, split at CR and LF only: no line ends at a U+2028 inside of JSON.
    for line in body.removeprefix(_BOM).splitlines():
        if not line:
            if data:
                events.append(Event(_text(name) or "message", _text(b"\n".join(data))))
            name, data = b"", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return events


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
