"""Document summary: one document on its way to one line of the output."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.errors import RequestFailed
from modelyard.messages import Answer, Attempt, Lane, Request, Timings, Usage
from modelyard.outcome import Outcome
from producer.documents import Document, Unreadable
from producer.failure import Failure, failure
from producer.mapreduce import Ask, Limits, Round, Summary, advance, begin
from producer.run import PartRequest
from producer.window import Window

INSTRUCTION: Final = "Summarize the following document in a few sentences."

UNREADABLE: Final = "unreadable"
"""The reason of a document that could not be read."""

BESIDE_BYTES: Final = 512
"""What a message has around a request: its id's envelope, the time of its submit."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about each document. `message_bytes` is the limit of one message."""

    instruction: str
    window: Window
    message_bytes: int
    route: str = "default"
    models: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The SHA-256 in hex of what was asked for: summaries of one output have all the same."""
        options = [self.instruction, self.route, self.models, dict(self.params)]
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()

    def request(self, text: str, path: str) -> Request:
        """Return the request with this text."""
        return Request.model_validate(
            {
                "text": text,
                "route": self.route,
                "lane": Lane.BATCH,
                "models": self.models,
                "params": dict(self.params),
                "metadata": {"path": path},
            }
        )

    def limits(self, path: str) -> Limits:
        """Return how long the text of one request about this document may be."""
        beside = len(json.dumps(self.request("-", path).encode(), ensure_ascii=False).encode())
        return Limits(self.window, self.message_bytes - beside - BESIDE_BYTES)


class DocumentSummary:
    """A unit of `producer.run`: asks for the summary of one document, in parts if it is long."""

    def __init__(self, file: str, source: Document | Unreadable, question: Question) -> None:
        """`source` is the document, or why there is none; `file` is its real path."""
        self.key = file
        self.path = source.path
        self._sha256 = source.sha256
        self._source: Document | Unreadable | None = source
        self._question = question
        self._round: Round | None = None
        self._result: Summary | Failure | None = None
        self._spent = Spent()
        self._id: str | None = None
        self._answer: Answer | None = None
        self._parts = 1

    @property
    def ended(self) -> bool:
        """Whether its record can be written."""
        return self._result is not None

    def begin(self) -> Sequence[PartRequest]:
        """Return the requests to make first."""
        source, self._source = self._source, None
        if not isinstance(source, Document):
            self._result = Failure(UNREADABLE, source.why if source else "")
            return ()
        question = self._question
        limits = question.limits(self.path)
        asked = self._follow(begin(question.instruction, source.title, source.text, limits))
        self._parts = max(1, len(asked))
        return asked

    def heard(self, part: str, id: str, outcome: Outcome) -> Sequence[PartRequest]:
        """Take the outcome of one request, and return those to make next."""
        assert self._round is not None
        self._id = id
        self._spent.add(outcome)
        if isinstance(outcome, Answer):
            self._answer = outcome
            return self._follow(advance(self._round, part, outcome.text))
        return self._follow(advance(self._round, part, failure(outcome)))

    def record(self) -> dict[str, Any]:
        """Return the line of the output. `id` is that of the last request."""
        line: dict[str, Any] = {
            "path": self.path,
            "file": self.key,
            "sha256": self._sha256,
            "options": self._question.digest,
            "id": self._id,
        }
        spent = {
            "usage": self._spent.usage.told(),
            "cost_usd": round(self._spent.cost_usd, 9),
            "attempts": [attempt_line(attempt) for attempt in self._spent.attempts],
        }
        if isinstance(self._result, Summary) and self._answer is not None:
            decision = self._answer.decision
            return {
                **line,
                "status": "answered",
                "summary": self._result.text,
                "model": self._answer.model,
                "intent": decision.intent,
                "why": decision.why,
                **spent,
                "timings_ms": self._spent.timings_ms(),
                "extractive": self._answer.extractive,
                "parts": self._parts,
            }
        assert isinstance(self._result, Failure)
        error = {"reason": self._result.reason, "message": self._result.message}
        return {**line, "status": "failed", "error": error, **spent, "parts": self._parts}

    def _follow(
        self, step: "tuple[Round, tuple[Ask, ...]] | Summary | Failure"
    ) -> list[PartRequest]:
        if isinstance(step, Summary | Failure):
            self._result = step
            return []
        self._round, asks = step
        return [PartRequest(ask.part, self._question.request(ask.text, self.path)) for ask in asks]


class Spent:
    """What all the requests about one document took together."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.cost_usd = 0.0
        self.attempts: list[Attempt] = []
        self._sum = Timings()
        self._began: float | None = None
        self._ended = 0.0

    def add(self, outcome: Outcome) -> None:
        """Add an answer, or what is known of a failure."""
        if isinstance(outcome, RequestFailed):
            self.attempts += (Attempt.model_validate(attempt) for attempt in outcome.attempts)
        if not isinstance(outcome, Answer):
            return
        self.usage += outcome.usage
        self.cost_usd += outcome.cost_usd
        self.attempts += outcome.attempts
        took = outcome.timings
        self._sum = Timings(
            routing_ms=self._sum.routing_ms + took.routing_ms,
            queued_ms=self._sum.queued_ms + took.queued_ms,
            calling_ms=self._sum.calling_ms + took.calling_ms,
        )
        submitted = outcome.decision.decided_at - took.routing_ms / 1000
        self._began = submitted if self._began is None else min(self._began, submitted)
        self._ended = max(self._ended, submitted + took.total_ms / 1000)

    def timings_ms(self) -> dict[str, float]:
        """Return where the time went: sums, and `total` from the first submit to the last answer.

        The parts of a document are asked side by side, so the sums may exceed the total.
        """
        return {
            "routing": round(self._sum.routing_ms, 3),
            "queued": round(self._sum.queued_ms, 3),
            "calling": round(self._sum.calling_ms, 3),
            "total": round(1000 * (self._ended - (self._began or 0.0)), 3),
        }


def attempt_line(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as the output has it: what went well has no `kind`."""
    return attempt.model_dump(mode="json", exclude_defaults=True)
