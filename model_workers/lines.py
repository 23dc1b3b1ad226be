"""The lines to the models: a provider object per endpoint.

They live on one event loop, are made when they are first used, and are closed with it.
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from model_workers.providers.base import Completion, Provider
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


@dataclass(frozen=True, slots=True)
class Line:
    """One endpoint of a model; None where the model is in this worker. `label` names it in
    attempts, without secrets.
    """

    label: str
    provider: Provider
    endpoint: Endpoint | None = None


class Lines:
    """All lines of one worker process. Not for use by several threads."""

    def __init__(self) -> None:
        self._clients: list[httpx.AsyncClient] = []
        self._open: list[Provider] = []

    def connect(self, model: Model) -> list[Line]:
        """Return the lines to this model, one for each endpoint that can be called."""
        if model.is_remote or model.live_endpoints:
            lines = [self._remote(model, each) for each in model.live_endpoints]
        else:
            lines = [Line(HERE, self._made(HERE, lambda: local(model)))]
        self._open += [line.provider for line in lines]
        return lines

    async def aclose(self) -> None:
        """Close every provider and connection."""
        for provider in self._open:
            await provider.aclose()
        for client in self._clients:
            await client.aclose()
        self._open.clear()
        self._clients.clear()

    def _made(self, label: str, make: Callable[[], Provider]) -> Provider:
        try:
            return make()
        except (ModelyardError, ValueError) as error:
            logger.error("%s can't be used: %s", label, error)
            return Broken(f"{label} can't be used: {error}")

    def _remote(self, model: Model, endpoint: Endpoint) -> Line:
        def make() -> Provider:
            if model.provider == "litellm":
                adapter: Callable[..., Provider] = load("litellm:LiteLLM")
                return adapter(model, endpoint)
            # The pool bounds the calls in flight; a bound of the connections would only hide that.
            client = make_client(endpoint, timeout_s=model.timeout_s, concurrency=0)
            self._clients.append(client)
            dialect: Callable[..., Provider] = load(OVER_HTTP[model.provider])
            return dialect(model, endpoint, client)

        return Line(endpoint.label, self._made(endpoint.label, make), endpoint)


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
