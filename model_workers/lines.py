"""The lines to the models: a provider object per endpoint.

They live on one event loop, are made when they are first used, and are closed with it.
"""

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import httpx

from model_workers.providers.base import Completion, Provider
from model_workers.providers.extractive import Extractive
from model_workers.providers.http import make_client
from model_workers.providers.openai import OpenAI
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ModelyardError, ProviderError
from modelyard.messages import Request

logger = logging.getLogger("modelyard.calls")


@dataclass(frozen=True, slots=True)
class Line:
    """One endpoint of a model. `label` names it in attempts, without secrets."""

    label: str
    provider: Provider


class Lines:
    """All lines of one worker process. Not for use by several threads."""

    def __init__(self) -> None:
        self._lines: dict[str, Iterator[Line]] = {}
        self._open: list[Provider] = []
        self._clients: list[httpx.AsyncClient] = []

    def next_line(self, model: Model) -> Line:
        """Return a line to this model; its endpoints take turns."""
        if model.name not in self._lines:
            self._lines[model.name] = itertools.cycle(self._connect(model))
        return next(self._lines[model.name])

    async def aclose(self) -> None:
        """Close every provider and connection."""
        for provider in self._open:
            await provider.aclose()
        for client in self._clients:
            await client.aclose()
        self._lines.clear()
        self._open.clear()
        self._clients.clear()

    def _connect(self, model: Model) -> list[Line]:
        if model.provider == "extractive":
            lines = [self._line("in this worker", lambda: Extractive(model))]
        else:
            lines = [
                self._line(each.label, partial(self._remote, model, each))
                for each in model.live_endpoints
            ]
        self._open += [line.provider for line in lines]
        return lines

    def _line(self, label: str, make: Callable[[], Provider]) -> Line:
        try:
            return Line(label, make())
        except (ModelyardError, ValueError) as error:
            logger.error("%s can't be used: %s", label, error)
            return Line(label, Broken(f"{label} can't be used: {error}"))

    def _remote(self, model: Model, endpoint: Endpoint) -> Provider:
        # The pool bounds the calls in flight; a bound of the connections would only hide that.
        client = make_client(endpoint, timeout_s=model.timeout_s, concurrency=0)
        self._clients.append(client)
        return OpenAI(model, endpoint, client)


class Broken:
    """Stands for an endpoint that can't be called: each call fails, and says why."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        raise ProviderError(FailureKind.PERMANENT, self._why)

    async def aclose(self) -> None:
        """There is nothing to let go of."""
