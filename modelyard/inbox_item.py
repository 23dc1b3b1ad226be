"""One request that waits for a person, as it lies in the queue: pure functions."""

import base64
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from modelyard.claims import Claimed
from modelyard.errors import RequestFailed, RequestRevoked
from modelyard.messages import Answer, Call, problems
from modelyard.names import queue_model
from modelyard.outcome import Outcome
from modelyard.received import UNREADABLE, read

State = Literal["waiting", "expired", "cancelled", "answered", "dead", "unreadable"]


@dataclass(frozen=True, slots=True)
class Item:
    """A message in a people model's queue.

    `call` is None and `problem` says why if it can't be read. `outcome` is what its request has
    come to already, if it has. `summary` is what Flower shows of it.
    """

    id: str
    model: str
    queue: str
    message: bytes
    call: Call | None = None
    reply_to: str = ""
    parent_id: str | None = None
    summary: str = ""
    problem: str = ""
    outcome: Outcome | None = None

    @property
    def request_id(self) -> str:
        """The id under which the producer knows it."""
        return (self.call.origin if self.call else None) or self.id

    def state(self, now: float) -> State:
        """Return whether it can be answered at `now`, in seconds since the epoch."""
        if self.outcome is not None:
            return ended_how(self.outcome)
        if self.call is None:
            return "unreadable"
        deadline = self.call.request.deadline
        return "expired" if deadline is not None and now >= deadline else "waiting"


def ended_how(outcome: Outcome) -> State:
    """Return what became of a request that has its outcome."""
    if isinstance(outcome, Answer):
        return "answered"
    return "cancelled" if isinstance(outcome, RequestRevoked) else "dead"


def told(id: str, outcome: Outcome | None) -> str:
    """Return in a sentence why a request can't be answered any more."""
    if outcome is None:
        return f"request {id} came to its end without this answer: nobody waits for it any more"
    if isinstance(outcome, Answer):
        return f"request {id} was answered already, by {outcome.model} ({outcome.provider_model})"
    if isinstance(outcome, RequestRevoked):
        return f"request {id} was cancelled: nobody waits for an answer"
    reason = f" ({outcome.reason})" if isinstance(outcome, RequestFailed) else ""
    return f"request {id} is a dead letter already{reason}"


def read_item(queue: str, message: bytes) -> Item:
    """Return what a message in a queue is, whatever was put there."""
    model = queue_model(queue) or queue
    try:
        raw: dict[str, Any] = read(Claimed("", queue, message))
        headers, properties = raw["headers"], raw["properties"]
        id = str(headers["id"])
    except UNREADABLE as error:
        return Item("", model, queue, message, problem=f"no task message: {type(error).__name__}")
    call, problem = None, ""
    try:
        body = raw["body"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body)
        decoded = Call.decode(json.loads(body)[0][0])
        (decoded.origin or "").encode()  # Redis can't be asked about a lone surrogate
        call = decoded
    except ValidationError as error:
        problem = f"not a call: {problems(error)}"
    except UNREADABLE as error:
        problem = f"its body can't be read: {type(error).__name__}"
    return Item(
        id,
        model,
        queue,
        message,
        call=call,
        reply_to=properties.get("reply_to") or "",
        parent_id=headers.get("parent_id"),
        summary=str(headers.get("argsrepr") or ""),
        problem=problem,
    )
