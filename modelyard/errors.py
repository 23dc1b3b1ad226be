"""What can go wrong, as one tree.

```
ModelyardError
├── CatalogError          the catalog file is wrong: file, line, key, suggestion
├── SettingsError         an environment variable is wrong or missing
├── EmbeddedRedisError    no Redis was given and none could be started here
├── YardFailed            a part of a yard on this machine can't be kept running
├── InvalidRequest        the request can't be accepted as it is
│   └── MessageTooLarge   its message is over the size limit
├── BrokerError           the broker did not take or give what was asked
│   ├── BrokerUnavailable no connection, or it was lost
│   ├── BrokerFull        Redis has no memory left for another message
│   └── QueueFull         the queue or the store of dead letters has as much as it may
├── ResultTimeout         no outcome within the time the caller gave (also a TimeoutError)
├── RequestFailed         the request became a dead letter: id, reason, attempts
├── RequestRevoked        the request was revoked before it was answered
└── ProviderError         one call failed: kind, status, retry_after_s
```
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from modelyard.wording import calls_in, counted


class ModelyardError(Exception):
    """Base of every error that modelyard raises on purpose."""


class CatalogError(ModelyardError):
    """The catalog is refused. The message is `FILE:LINE: WHERE: WHAT (did you mean ...?)`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = tuple(problems)


class SettingsError(ModelyardError):
    """An environment variable of modelyard is wrong or missing."""


class EmbeddedRedisError(ModelyardError):
    """No broker was given and no Redis server could be started on this machine."""


class InvalidRequest(ModelyardError, ValueError):
    """The request can't be accepted as it is."""


class MessageTooLarge(InvalidRequest):
    """The request's message is larger than `MODELYARD_MAX_MESSAGE_BYTES`."""


class BrokerError(ModelyardError):
    """The broker did not take or give what was asked."""


class BrokerUnavailable(BrokerError):
    """There is no connection to the broker, or it was lost."""


class BrokerFull(BrokerError):
    """Redis refused a write because its memory is used up."""


class QueueFull(BrokerError):
    """The queue, or the store of dead letters, has as much as it may: submit later.

    `accepted` of `total` requests were accepted before.
    """

    def __init__(self, message: str, accepted: int = 0, total: int = 1) -> None:
        super().__init__(message)
        self.accepted = accepted
        self.total = total


class ResultTimeout(ModelyardError, TimeoutError):
    """The outcome did not arrive within the time that the caller gave; the request goes on."""


class RequestFailed(ModelyardError):
    """The request became a dead letter.

    Its four arguments are plain JSON values, because Celery's result backend stores an
    exception as its type and its arguments.
    """

    def __init__(
        self,
        message: str,
        id: str = "",
        reason: str = "error",
        attempts: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message, id, reason, list(attempts))
        self.id = id
        self.reason = reason
        self.attempts: tuple[Mapping[str, Any], ...] = tuple(attempts)

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        # What logs, events and Flower show: nothing that a provider said.
        last = self.attempts[-1] if self.attempts else {}
        words = [str(last[key]) for key in ("model", "kind", "status") if last.get(key)]
        calls = calls_in(self.attempts)
        made = f"{counted(calls, 'attempt')}, " if calls else ""
        tried = f", {made}last: {' '.join(words)}" if words else ""
        return f"RequestFailed({self.reason}{tried})"


class RequestRevoked(ModelyardError):
    """The request `id` was revoked before it was answered."""

    def __init__(self, message: str, id: str = "") -> None:
        super().__init__(message)
        self.id = id


class FailureKind(StrEnum):
    """What a failed call means for the request."""

    RETRYABLE = "retryable"
    """May succeed if called again: connection errors, 408, 409, 5xx."""
    LIMITED = "limited"
    """A rate limit: call again, but not before `retry_after_s`."""
    PERMANENT = "permanent"
    """This model will not answer this request, another may: a parameter that it does not know."""
    DENIED = "denied"
    """This endpoint answers none of our requests until a person acts: key, bill, access, name."""
    TOO_LONG = "too_long"
    """The request does not fit this model's window."""
    REFUSED = "refused"
    """The provider declined the content."""
    INVALID = "invalid"
    """The request itself is malformed; no model will answer it."""


class ProviderError(ModelyardError):
    """One call of one endpoint failed.

    `message` is for people and never holds a key; `retry_after_s` is what the provider asked
    for, in seconds.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.retry_after_s = retry_after_s
