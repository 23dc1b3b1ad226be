"""Provider `litellm`: what litellm can call and we can't, by `litellm.acompletion`.

It is no dependency: `pip install litellm` where a model needs it. The first call imports it, in a
thread, as that takes seconds. `model` is litellm's name of the model, with its prefix
(`mistral/mistral-small-latest`). With an endpoint its `base_url` and `api_key` are used; without
one litellm looks for its keys in the environment.

Of a request's params those of OpenAI's chat API and the few of `PARAMS` beside it are passed on;
what the model does not know of them litellm refuses by itself. All others are refused here: among
litellm's own are some that say where a call goes to, with whose key.

| litellm raised | kind |
| --- | --- |
| RateLimitError | LIMITED, with the wait that was asked for; DENIED for `insufficient_quota` |
| ContextWindowExceededError | TOO_LONG |
| ContentPolicyViolationError | REFUSED |
| AuthenticationError, PermissionDeniedError, NotFoundError | DENIED |
| PaymentRequiredError, BudgetExceededError | DENIED |
| Timeout, APIConnectionError | RETRYABLE |
| InternalServerError, ServiceUnavailableError, BadGatewayError | RETRYABLE |
| an answer that litellm could not read (APIResponseValidationError) | RETRYABLE |
| BadRequestError, UnprocessableEntityError, UnsupportedParamsError | PERMANENT |
| others with a status | by `complaint.classify` |
| anything else | PERMANENT |

https://docs.litellm.ai/docs/exception_mapping and https://docs.litellm.ai/docs/completion/input
"""

import asyncio
import importlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from model_workers.providers.base import Completion, Failure
from model_workers.providers.clean import clean
from model_workers.providers.complaint import Complaint, classify
from model_workers.providers.http import retry_after_s
from model_workers.providers.opaque import author
from model_workers.providers.openai import OURS, read_completion
from model_workers.providers.vendor_fields import give_back
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Message, Request

logger = logging.getLogger("modelyard.calls")

PARAMS: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""What is passed on."""

_KINDS: Final[Mapping[str, FailureKind]] = {
    "RateLimitError": FailureKind.LIMITED,
    "ContextWindowExceededError": FailureKind.TOO_LONG,
    "ContentPolicyViolationError": FailureKind.REFUSED,
    "AuthenticationError": FailureKind.DENIED,
    "PermissionDeniedError": FailureKind.DENIED,
    "NotFoundError": FailureKind.DENIED,
    "PaymentRequiredError": FailureKind.DENIED,
    "BudgetExceededError": FailureKind.DENIED,
    "UnsupportedParamsError": FailureKind.PERMANENT,
    "BadRequestError": FailureKind.PERMANENT,
    "UnprocessableEntityError": FailureKind.PERMANENT,
    "Timeout": FailureKind.RETRYABLE,
    "APITimeoutError": FailureKind.RETRYABLE,
    "APIConnectionError": FailureKind.RETRYABLE,
    "APIResponseValidationError": FailureKind.RETRYABLE,
    "BadGatewayError": FailureKind.RETRYABLE,
    "InternalServerError": FailureKind.RETRYABLE,
    "ServiceUnavailableError": FailureKind.RETRYABLE,
}
"""What the nearest of these names among an exception's classes means."""


class LiteLLM:
    """Calls one model by litellm. Implements `model_workers.providers.base.Provider`.

    `clock` gives seconds since the epoch, for Retry-After dates.
    """

    def __init__(
        self, model: Model, endpoint: Endpoint | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._model = model
        self._author = author(model)
        self._label = endpoint.label if endpoint else "litellm"
        self._clock = clock
        key = endpoint.api_key.get_secret_value() if endpoint and endpoint.api_key else ""
        self._secrets = (key,) if key else ()
        told = {
            "api_key": key or None,
            "api_base": endpoint.base_url if endpoint else None,
            "api_version": endpoint.api_version if endpoint else None,
        }
        self._told = {name: value for name, value in told.items() if value is not None}
        self._litellm: Any = None

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        """Call once: litellm's own retries are off. Raises `ProviderError` by the table above."""
        if (problem := self.lacks(request)) is not None:
            raise self._error(Failure(FailureKind.PERMANENT, problem), request)
        asked = {key: value for key, value in request.params.items() if key in PARAMS}
        try:
            async with asyncio.timeout(self._model.timeout_s) as limit:
                if self._litellm is None:
                    self._litellm = await asyncio.to_thread(import_litellm)
                response = await self._litellm.acompletion(
                    **asked,
                    **self._told,
                    model=self._model.provider_model,
                    messages=[turn(message, self._author) for message in request.messages],
                    num_retries=0,
                    max_retries=0,  # of the clients below it
                    timeout=self._model.timeout_s,
                    stream=False,
                )
        except ProviderError as error:
            raise self._error(Failure(error.kind, str(error)), request) from error
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                words = f"timeout: no answer within {self._model.timeout_s:g} s"
                raise self._error(Failure(FailureKind.RETRYABLE, words), request) from error
            raise self._error(explained(error, self._clock()), request) from error
        # Its classes warn of answers that have more fields than they expect.
        body: str = response.model_dump_json(warnings=False)
        outcome = read_completion(200, body.encode(), self._model.provider_model, by=self._author)
        if isinstance(outcome, Failure):
            raise self._error(outcome, request)
        return outcome

    def lacks(self, request: Request) -> str | None:
        """Return which parameter is not passed on, or None."""
        unknown = sorted(request.params.keys() - PARAMS - OURS)
        if not unknown:
            return None
        return (
            f"litellm is not told the parameter {unknown[0]!r}: leave it out, or send the "
            "request to models of another provider"
        )

    async def aclose(self) -> None:
        """Connections are litellm's own, and shared by all its models."""

    def _error(self, failure: Failure, request: Request) -> ProviderError:
        words = clean(failure.message, self._secrets, [m.text for m in request.messages])
        return ProviderError(
            failure.kind,
            f"{self._label}: {words}",
            status=failure.status,
            retry_after_s=failure.retry_after_s,
        )


def import_litellm() -> Any:
    """Return the module. Raises `ProviderError` (denied) if it is not installed."""
    # It would fetch its list of prices from the network, which nothing here asks for.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        module: Any = importlib.import_module("litellm")
    except ImportError as error:
        raise ProviderError(
            FailureKind.DENIED, f"provider litellm needs litellm: pip install litellm ({error})"
        ) from error
    module.suppress_debug_info = True  # It prints where to get help for every error.
    return module


def turn(message: Message, by: str = "") -> dict[str, Any]:
    """Return a message in OpenAI's form, with content wherever that has to be.

    `by` is whose fields are given back with tool calls (`providers.vendor_fields`).
    """
    said = message.encode()
    if not message.content:
        said["content"] = None if message.tool_calls else ""
    return give_back(said, message, by)


def explained(error: Exception, now: float) -> Failure:
    """Return what an exception of litellm's means. Its classes are known by their names."""
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) and 400 <= status <= 599 else None
    words = str(error)
    named = [_KINDS[each.__name__] for each in type(error).__mro__ if each.__name__ in _KINDS]
    # A refused key may come as a BadRequestError, too, and only its status tells.
    vague = named[:1] == [FailureKind.PERMANENT] and status not in (None, 400, 422)
    if named and not vague:
        kind = named[0]
    elif status is not None:
        kind = classify(status, Complaint(words))
    else:
        logger.error("litellm failed in an unforeseen way", exc_info=error)
        return Failure(FailureKind.PERMANENT, f"litellm failed: {type(error).__name__}")
    if kind is FailureKind.LIMITED and "insufficient_quota" in words + str(
        getattr(error, "body", "")
    ):
        kind = FailureKind.DENIED
    wait_s = None
    if kind in (FailureKind.LIMITED, FailureKind.RETRYABLE):
        wait_s = _wait_s(error, now)
    return Failure(kind, words, status, wait_s)


def _wait_s(error: Exception, now: float) -> float | None:
    """The wait that the headers ask for: litellm keeps them in one place or another."""
    response = getattr(error, "response", None)
    for headers in (
        getattr(response, "headers", None),
        getattr(error, "litellm_response_headers", None),
        getattr(error, "headers", None),
    ):
        if isinstance(headers, Mapping):
            lower = {str(name).lower(): str(value) for name, value in headers.items()}
            wait_s = retry_after_s(lower, now)
            if wait_s is not None:
                return wait_s
    return None
