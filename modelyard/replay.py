"""What a dead letter's request must become so that it can be tried again: pure functions.

A replayed request keeps its id, its text and when it was submitted. It has no attempts; what its
former life was is kept in its metadata, so that a second letter tells of the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from modelyard.errors import InvalidRequest
from modelyard.messages import DeadLetter, Lane, Request, problems
from modelyard.names import REQUESTS_QUEUE, ROUTE_TASK, in_lane
from modelyard.publish import envelope
from modelyard.tokens import estimate_tokens
from modelyard.wording import calls_in, counted

REPLAYS: Final = "modelyard.replays"
"""Metadata key: how many times the request was replayed."""
REPLAYED_AT: Final = "modelyard.replayed_at"
"""Metadata key: when it was last, in seconds since the epoch."""
DIED: Final = "modelyard.died"
"""Metadata key: what it had died of then, and after how many attempts."""


class NotReplayable(InvalidRequest):
    """The request would die again at once. The message says of what, and what to do."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What is changed in a request before it is replayed.

    `route`: its rules decide, whatever models the request named. `models`: these are tried, in
    order, whatever the rules say. `deadline_s` counts from the replay; `no_deadline` takes the
    deadline away. Without either the request keeps the one it has.
    """

    route: str | None = None
    models: tuple[str, ...] = ()
    deadline_s: float | None = None
    no_deadline: bool = False

    def __post_init__(self) -> None:
        if self.deadline_s is not None and self.no_deadline:
            raise InvalidRequest("give either a new deadline or none, not both")
        if self.deadline_s is not None and self.deadline_s <= 0:
            raise InvalidRequest(f"a deadline must be in the future, not in {self.deadline_s} s")


AS_IT_WAS: Final = Edit()


def edited(letter: DeadLetter, edit: Edit, now: float) -> Request:
    """Return the request to replay. `now` is in seconds since the epoch. Raises `NotReplayable`."""
    raw = dict(letter.request)
    if edit.route is not None:
        raw["route"] = edit.route
        raw.pop("models", None)
    if edit.models:
        raw["models"] = edit.models
    if edit.no_deadline:
        raw.pop("deadline", None)
    if edit.deadline_s is not None:
        raw["deadline"] = now + edit.deadline_s
    given = raw.get("metadata")
    raw["metadata"] = remembered(given, letter, now) if isinstance(given or {}, Mapping) else given
    try:
        request = Request.decode(raw)
    except ValidationError as error:
        raise NotReplayable(
            f"what was submitted is not a request ({problems(error)}): "
            "export the letter, mend it and submit it anew"
        ) from error
    if request.deadline is not None and not request.deadline > now:  # so that NaN has passed
        raise NotReplayable(
            "its deadline has passed, it would die again: give it a new one (--deadline 10m) "
            "or none (--no-deadline)"
        )
    return request


def remembered(metadata: Any, letter: DeadLetter, now: float) -> dict[str, Any]:
    """Return the metadata of a request together with what became of it so far."""
    before = metadata or {}
    calls = calls_in(letter.attempts)
    tried = f" after {counted(calls, 'attempt')}" if calls else ""
    return {
        **before,
        REPLAYS: str(replays(before) + 1),
        REPLAYED_AT: repr(now),
        DIED: f"{letter.reason}{tried}",
    }


def replays(metadata: Any) -> int:
    """Return how many times the request with this metadata was replayed."""
    count = metadata.get(REPLAYS) if isinstance(metadata, Mapping) else None
    # A producer may use any key: what is no small number is not ours.
    return int(count) if isinstance(count, str) and count.isdecimal() and len(count) < 10 else 0


def replayed_at(letter: DeadLetter) -> float | None:
    """Return when the letter's request was last replayed, in seconds since the epoch, or None."""
    metadata = letter.request.get("metadata")
    said = metadata.get(REPLAYED_AT) if isinstance(metadata, Mapping) else None
    try:
        return float(said) if isinstance(said, str) else None
    except ValueError:
        return None  # not ours: the producer may use any key


def queue_of(request: Request) -> str:
    """Return the queue on which the request starts: its lane's."""
    return in_lane(REQUESTS_QUEUE, batch=request.lane is Lane.BATCH)


def message_of(id: str, request: Request, queue: str, reply_to: str) -> str:
    """Return the message of the request's first hop, as a client would send it.

    Raises `NotReplayable` if JSON has no form for it.
    """
    try:
        return envelope(
            task=ROUTE_TASK,
            id=id,
            payload=request.encode(),
            queue=queue,
            summary=f"about {estimate_tokens(request.text):,} tokens",
            reply_to=reply_to,
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise NotReplayable(f"it can't be written as JSON: {type(error).__name__}") from error
