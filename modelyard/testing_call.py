"""What a fake provider remembers of a call."""

import hashlib
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["open", "answered", "failed", "rejected", "dropped", "abandoned"]
"""How a call ended: with a 2xx, with a scripted error, turned down by the API's own checks, by a
connection closed on cue, or by a caller (or the end of the fake) that did not wait for it."""


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """One call that reached the fake.

    `digest` is `text_digest` of its text; `request_id` its header `X-Request-Id`, or
    `request_id` in its `metadata`. Times are seconds since the epoch. `status` is None if no
    status line was sent. `outcome` is "open" while the call runs.
    """

    number: int
    request_id: str | None
    model: str
    digest: str
    started_at: float
    ended_at: float | None = None
    outcome: Outcome = "open"
    status: int | None = None


def text_digest(text: str) -> str:
    """Return 16 hex digits that identify the text of a request (`Request.text`)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
