"""What the result backend holds for an id, turned into an answer or the error it stands for."""

import json
from typing import Any

from pydantic import ValidationError

from modelyard.errors import ModelyardError, RequestFailed, RequestRevoked
from modelyard.messages import Answer

TERMINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})

Outcome = Answer | ModelyardError


def read_outcome(raw: bytes | str) -> Outcome | None:
    """Return the outcome in a stored result, or None if it is not final.

    The format is Celery's: `{"status", "result", "task_id", "traceback"}`.
    """
    meta = json.loads(raw)
    id = str(meta.get("task_id", ""))
    status = meta["status"]
    if status not in TERMINAL_STATES:
        return None
    if status == "REVOKED":
        return RequestRevoked(f"request {id} was revoked before it was answered")
    if status == "FAILURE":
        return failure(id, meta["result"])
    try:
        return Answer.decode(meta["result"])
    except ValidationError as error:
        return RequestFailed(
            f"request {id}: its result is not an answer "
            f"({error.error_count()} problems, first: {error.errors()[0]['msg']})",
            id,
            "invalid",
        )


def failure(id: str, result: Any) -> RequestFailed:
    """Return the error in a stored failure: a dead letter, or an error of the worker itself."""
    if not isinstance(result, dict):
        return RequestFailed(f"request {id}: {result}", id)
    arguments = result.get("exc_message")
    if result.get("exc_type") == RequestFailed.__name__ and isinstance(arguments, list | tuple):
        return RequestFailed(*arguments)
    text = ", ".join(map(str, arguments)) if isinstance(arguments, list | tuple) else arguments
    return RequestFailed(f"request {id}: {result.get('exc_type')}: {text}", id)
