"""What every provider is to the workers: one coroutine that completes a request."""

from dataclasses import dataclass
from typing import Protocol

from modelyard.messages import Request, Usage


@dataclass(frozen=True, slots=True)
class Completion:
    """What one successful call brought.

    `provider_model` is what the provider says it ran; `extractive` marks text that was picked
    from the input. `confidence` is the geometric mean of the probabilities of its tokens, from 0 to
    1, where the provider told them: the mean that does not depend on how long an answer is.
    """

    text: str
    provider_model: str
    usage: Usage
    finish_reason: str = "stop"
    extractive: bool = False
    confidence: float | None = None


class Provider(Protocol):
    """A way to call models of one kind; one object per endpoint, for the life of the worker."""

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        """Call once; `request_id` is told to providers that take one.

        Raises `modelyard.errors.ProviderError`, and nothing else on purpose."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and threads."""
        ...
