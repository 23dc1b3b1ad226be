"""What becomes of a request before it is sent: it is checked, stamped, and written as a message."""

import itertools
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from modelyard.claims import New
from modelyard.errors import InvalidRequest
from modelyard.messages import Lane, Request, problems
from modelyard.names import REQUESTS_QUEUE, ROUTE_TASK, in_lane
from modelyard.publish import envelope
from modelyard.tokens import estimate_tokens

ONCE_S: Final = 600
"""For how long a second submit of the same id is recognized as the same request, in seconds."""

UNENCODABLE: Final = (ValueError, TypeError, RecursionError)
"""What encoders raise: pydantic, `json` and `str.encode`."""


@dataclass(frozen=True, slots=True)
class Name:
    """By what a request is known: its id, and the mark under which it is accepted once."""

    id: str
    mark: str
    once_s: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A message, and the queue that it is for."""

    queue: str
    new: New


def names(
    ids: Iterable[str] | None,
    keys: Iterable[str | None] | None,
    *,
    once_s: int | None,
    key_once_s: int,
    made_once_s: int,
) -> Iterator[Name]:
    """Return what requests are known by, in order: endless if neither ids nor keys are given.

    A request is known by its id or by its idempotency key, and by an id that is made here if it has
    neither. `once_s` is for how many seconds; None: `ONCE_S` for ids, `key_once_s` for keys, and
    `made_once_s` for an id that nobody else knows. Raises `InvalidRequest`.
    """
    if once_s is not None and int(once_s) < 1:
        raise InvalidRequest(f"once_s must be at least 1 second, not {once_s}")
    if ids is not None and keys is not None:
        raise InvalidRequest(
            "give ids or idempotency keys, not both: each says which requests are the same"
        )
    if ids is not None:
        return (id_name(each, int(once_s or ONCE_S)) for each in ids)
    made_s, key_s = int(once_s or made_once_s), int(once_s or key_once_s)
    return (
        made_name(made_s) if each is None else key_name(each, key_s)
        for each in (itertools.repeat(None) if keys is None else keys)
    )


def id_name(id: str, once_s: int) -> Name:
    """Return the name of a request whose producer gave it an id."""
    check_name("id", id)
    return Name(id, f"id:{id}", once_s)


def key_name(key: str, once_s: int) -> Name:
    """Return the name of a request whose producer gave it an idempotency key."""
    check_name("idempotency key", key)
    return Name(str(uuid.uuid4()), f"key:{key}", once_s)


def made_name(once_s: int) -> Name:
    """Return the name of a request that its producer gave none."""
    id = str(uuid.uuid4())
    return Name(id, f"id:{id}", once_s)


def check_name(what: str, name: str) -> None:
    """Raise `InvalidRequest` if this can't be an id or a key: notices are lines of ids."""
    if not name or "\n" in name or "\r" in name:
        raise InvalidRequest(f"an {what} is a text without line breaks, not {name!a}")


def prepare(
    request: str | Request,
    given: Mapping[str, Any],
    *,
    now: float,
    deadline_s: float | None,
) -> Request:
    """Return the request with what was given, stamped with the time. Raises `InvalidRequest`."""
    if not isinstance(request, str | Request):
        raise InvalidRequest(f"a request is a text or a Request, not {type(request).__name__}")
    try:
        fields: dict[str, Any] = (
            {"text": request}
            if isinstance(request, str)
            else request.model_dump(exclude_defaults=True)
        )
    except UNENCODABLE as error:
        raise unencodable(error) from error
    if deadline_s is not None:
        if not isinstance(deadline_s, int | float) or not 0 < deadline_s < math.inf:
            raise InvalidRequest(
                f"deadline_s must be a positive, finite number, not {deadline_s!r}"
            )
        fields["deadline"] = now + deadline_s
    try:
        return Request.model_validate({**fields, **given, "submitted_at": now})
    except ValidationError as error:
        raise InvalidRequest(problems(error)) from error


def submission(request: Request, name: Name, *, reply_to: str, max_bytes: int) -> Submission:
    """Return the request as a message. Raises `InvalidRequest` and `MessageTooLarge`."""
    queue = in_lane(REQUESTS_QUEUE, batch=request.lane is Lane.BATCH)
    try:
        name.mark.encode()
        message = envelope(
            task=ROUTE_TASK,
            id=name.id,
            payload=request.encode(),
            queue=queue,
            summary=f"about {estimate_tokens(request.text):,} tokens",
            reply_to=reply_to,
            max_bytes=max_bytes,
        )
    except InvalidRequest:
        raise
    except UNENCODABLE as error:
        raise unencodable(error) from error
    return Submission(queue, New(name.id, message, name.mark, name.once_s))


def unencodable(error: Exception) -> InvalidRequest:
    """Return the error of a request that JSON has no form for."""
    return InvalidRequest(f"the request can't be written as JSON in UTF-8: {error}")
