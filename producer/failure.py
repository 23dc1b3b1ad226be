"""Failure: why a request or a document has no answer, as all outputs say it."""

from dataclasses import dataclass

from modelyard.errors import RequestFailed


@dataclass(frozen=True, slots=True)
class Failure:
    """`reason` is for programs, `message` for people."""

    reason: str
    message: str


def failure(outcome: Exception) -> Failure:
    """Return why a request failed; what is no `RequestFailed` was revoked."""
    reason = outcome.reason if isinstance(outcome, RequestFailed) else "revoked"
    return Failure(reason, str(outcome))
