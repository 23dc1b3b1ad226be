"""The lines to the models: a provider object per endpoint, and the connections that it has.

They live on one event loop and are made when they are first used. Where the catalog changes, those
are made anew whose provider would be another one.
"""

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from model_workers.providers.base import Completion, Provider, Selective
from model_workers.providers.extractive import Extractive
from model_workers.providers.http import make_client
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ModelyardError, ProviderError
from modelyard.messages import Request

logger = logging.getLogger("modelyard.calls")

OVER_HTTP: Final = {
    "openai": "openai:OpenAI",
    "azure": "azure:Azure",
    "anthropic": "anthropic:Anthropic",
    "bedrock": "bedrock:Bedrock",
    "vertex": "vertex:Vertex",
}
"""Where each provider with endpoints is; it is imported when a model of the catalog needs it."""

HERE: Final = "in this worker"

UNREAD: Final = frozenset(
    {
        "endpoints",
        "price",
        "context_tokens",
        "quality",
        "latency_s",
        "tokens_per_s",
        "regions",
        "data_classes",
        "retry",
        "balance",
        "quota",
        "breaker",
        "probe",
    }
)
"""What no provider reads of a model: a line outlives a change of these."""

UNREAD_OF_ENDPOINT: Final = frozenset({"weight", "quota", "disabled", "provider", "model"})
"""What no provider reads of an endpoint: of its provider and model it is told by `Model.at`."""


@dataclass(eq=False, slots=True)
class Line:
    """One endpoint of a model; None where the model is in this worker. `label` names it in
    attempts, without secrets.

    It owns its provider and its connections. `calls` are on their way through it; who retires it
    closes it after the last of them. `made_of` is what the provider may have read.
    """

    label: str
    provider: Provider
    endpoint: Endpoint | None
    made_of: tuple[Any, ...]
    calls: int = 0
    retired: bool = False
    closed: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether no client could be made for it."""
        return isinstance(self.provider, Broken)

    def carries(self, request: Request) -> bool:
        """Return whether its provider has a word for all that is asked for, as far as it knows."""
        provider = self.provider
        return not isinstance(provider, Selective) or provider.lacks(request) is None

    async def aclose(self) -> None:
        """Close its connections, once."""
        if self.closed:
            return
        self.closed = True
        try:
            await self.provider.aclose()
        except Exception:
            # What is left open is a socket; the calls of other lines must not end for it.
            logger.exception("%s could not be closed", self.label)


def connect(model: Model, kept: Mapping[str, Line] | None = None) -> list[Line]:
    """Return the lines to this model, one for each endpoint that can be called, or all that can't
    be if none can; no two of them by the same name.

    Those of `kept`, by label, that would be made of the same again are taken as they are.
    """
    lines = [line_to(model, label, each, kept or {}) for label, each in told_apart(model)]
    return [line for line in lines if not line.is_broken] or lines


def told_apart(model: Model) -> list[tuple[str, Endpoint | None]]:
    """Return the endpoints that can be called, each with a label of its own.

    The endpoints of two keys may have one address, and all that is known of them goes by name.
    """
    if not (model.is_remote or model.live_endpoints):
        return [(HERE, None)]
    seen: dict[str, int] = {}
    named: list[tuple[str, Endpoint | None]] = []
    for endpoint in model.live_endpoints:
        number = seen[endpoint.label] = seen.get(endpoint.label, 0) + 1
        label = endpoint.label if number == 1 else f"{endpoint.label} ({number})"
        named.append((label, endpoint))
    return named


def line_to(model: Model, label: str, endpoint: Endpoint | None, kept: Mapping[str, Line]) -> Line:
    """Return the line to an endpoint, which may be one that there is."""
    made_of = reads(model, endpoint)
    old = kept.get(label)
    if old is not None and old.made_of == made_of and not old.is_broken:
        old.endpoint = endpoint
        return old
    return Line(label, made(label, model, endpoint), endpoint, made_of)


def reads(model: Model, endpoint: Endpoint | None) -> tuple[Any, ...]:
    """Return all that a provider may read of its model and endpoint."""
    model = model if endpoint is None else model.at(endpoint)
    return (
        {name: getattr(model, name) for name in type(model).model_fields.keys() - UNREAD},
        endpoint
        and {
            name: getattr(endpoint, name)
            for name in type(endpoint).model_fields.keys() - UNREAD_OF_ENDPOINT
        },
    )


def identity(model: Model, endpoint: Endpoint | None) -> tuple[Any, ...]:
    """Return what an endpoint is known by: while this is the same, so is what is known of it."""
    there = model if endpoint is None else model.at(endpoint)
    return there.provider, there.provider_model, there.entry_point, reads(model, endpoint)[1]


def made(label: str, model: Model, endpoint: Endpoint | None) -> Provider:
    """Return what calls the endpoint, or what says why nothing can."""
    try:
        return local(model) if endpoint is None else remote(model, endpoint)
    except (ModelyardError, ValueError) as error:
        logger.error("%s can't be used: %s", label, error)
        return Broken(f"{label} can't be used: {error}")


def remote(model: Model, endpoint: Endpoint) -> Provider:
    """Return what calls an endpoint. Raises `ModelyardError` and `ValueError`."""
    model = model.at(endpoint)
    if model.provider == "litellm":
        adapter: Callable[..., Provider] = load("litellm:LiteLLM")
        return adapter(model, endpoint)
    # The pool bounds the calls in flight; a bound of the connections would only hide that. A client
    # that no provider can be made with has no sockets yet.
    client = make_client(endpoint, timeout_s=model.timeout_s, concurrency=0)
    dialect: Callable[..., Provider] = load(OVER_HTTP[model.provider])
    return dialect(model, endpoint, client)


def local(model: Model) -> Provider:
    """Return the provider of a model without endpoints. Raises `ModelyardError`."""
    if model.provider == "extractive":
        return Extractive(model)
    if model.provider == "litellm":
        adapter: Callable[..., Provider] = load("litellm:LiteLLM")
        return adapter(model, None)
    function: Callable[..., Provider] = load("python:Python")
    return function(model)


def load(place: str) -> Any:
    """Return the class of a provider, `module:class` in the folder of providers."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"model_workers.providers.{module}"), name)


class Broken:
    """Stands for an endpoint that can't be called: each call fails, and says why."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        raise ProviderError(FailureKind.PERMANENT, self._why)

    async def aclose(self) -> None:
        """There is nothing to let go of."""
