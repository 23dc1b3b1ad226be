"""What the result backend holds for an id, turned into an answer or the error it stands for."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from modelyard.errors import ModelyardError, RequestFailed, RequestRevoked
from modelyard.messages import Answer

TERMINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})

Outcome = Answer | ModelyardError


class Answered(BaseModel):
    """A stored answer: what nearly all results are, and twice as fast to read as any result."""

    status: Literal["SUCCESS"]
    result: Answer


read_answered = Answered.__pydantic_validator__.validate_json


def read_outcome(raw: bytes | str, id: str = "") -> Outcome | None:
    """Return the outcome in a stored result, or None if it is not final.

    The format is Celery's: `{"status", "result", "task_id", "traceback"}`. What is no such thing
    is a `RequestFailed` too: nothing else will ever be stored for `id`.
    """
    try:
        answered: Answered = read_answered(raw)
    except ValidationError:
        return read_other(raw, id)
    return answered.result


def read_other(raw: bytes | str, id: str) -> Outcome | None:
    """Return the outcome in a result that holds no answer as ours are."""
    try:
        meta = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return unreadable(id, f"no JSON: {error}")
    if not isinstance(meta, dict) or not isinstance(meta.get("status"), str):
        return unreadable(id, "no status")
    id = str(meta.get("task_id") or id)
    status: str = meta["status"]
    result: Any = meta.get("result")
    if status not in TERMINAL_STATES:
        return None
    if status == "REVOKED":
        return RequestRevoked(f"request {id} was revoked before it was answered", id)
    if status == "FAILURE":
        return failure(id, result)
    try:
        return Answer.decode(result)
    except ValidationError as error:
        count, first = error.error_count(), error.errors()[0]["msg"]
        return unreadable(id, f"no answer: {count} problems, first: {first}")


def unreadable(id: str, why: str) -> RequestFailed:
    """Return the error that a result stands for which is not one of ours."""
    return RequestFailed(f"request {id}: its stored result can't be read ({why})", id, "invalid")


def failure(id: str, result: Any) -> RequestFailed:
    """Return the error in a stored failure: a dead letter, or an error of the worker itself."""
    if not isinstance(result, dict):
        return RequestFailed(f"request {id}: {result}", id)
    kind, arguments = result.get("exc_type"), result.get("exc_message")
    match arguments:
        case [str(message), str(of), str(reason), list(attempts)] if (
            kind == RequestFailed.__name__ and all(isinstance(each, dict) for each in attempts)
        ):
            return RequestFailed(message, of, reason, attempts)
        case list():
            text = ", ".join(map(str, arguments))
        case _:
            text = str(arguments)
    return RequestFailed(f"request {id}: {kind}: {text}", id)
