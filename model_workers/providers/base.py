"""What every provider is to the workers: one coroutine that completes a request."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from modelyard.errors import FailureKind
from modelyard.messages import Request, ToolCall, Usage


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a provider says is left of its limits, from the headers of an answer.

    Each is None where it did not say. `reset_*_s` is in how many seconds the limit is whole again.
    Azure's -1, and a limit of 0, are what it does not say. `tokens_of_all`: tokens are input and
    output together, and not one of them.
    """

    limit_requests: float | None = None
    remaining_requests: float | None = None
    reset_requests_s: float | None = None
    limit_tokens: float | None = None
    remaining_tokens: float | None = None
    reset_tokens_s: float | None = None
    tokens_of_all: bool = True


@dataclass(frozen=True, slots=True)
class Completion:
    """What one successful call brought.

    `provider_model` is what the provider says it ran; `extractive` marks text that was picked
    from the input. `confidence` is the geometric mean of the probabilities of its tokens, from 0 to
    1, where the provider told them: the mean that does not depend on how long an answer is.
    `finish_reason` is one of `stop`, `length`, `tool_calls` and `content_filter`, or the provider's
    own word where it means none of these. `allowance` is what is left of its limits, if it said so;
    `first_token_s` is how long the first piece of a streamed answer took.
    """

    text: str
    provider_model: str
    usage: Usage
    finish_reason: str = "stop"
    extractive: bool = False
    confidence: float | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    allowance: Allowance | None = None
    first_token_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """A `ProviderError` to be, before its message is cleaned of secrets and of the prompt."""

    kind: FailureKind
    message: str
    status: int | None = None
    retry_after_s: float | None = None


class Unsupported(ValueError):
    """The request asks for what this provider lacks. The message names it, and what to do."""


class Provider(Protocol):
    """A way to call models of one kind; one object per endpoint, for the life of the worker."""

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        """Call once; `request_id` is told to providers that take one.

        Raises `modelyard.errors.ProviderError`, and nothing else on purpose."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and threads."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A provider that knows before a call what it has no word for."""

    def lacks(self, request: Request) -> str | None:
        """Return in words for what of the request `complete` would refuse it, or None."""
        ...
