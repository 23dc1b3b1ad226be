"""The lines to the models: a provider object per endpoint, and how many calls it may carry.

They live on one event loop, are made when they are first used, and are closed with it.
"""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from model_workers.providers.base import Provider
from model_workers.providers.extractive import Extractive
from model_workers.providers.http import make_client
from model_workers.providers.openai import OpenAI
from modelyard.catalog import Endpoint, Model


@dataclass(frozen=True, slots=True)
class Line:
    """One endpoint of a model. `label` names it in attempts, without secrets."""

    label: str
    provider: Provider


class Lines:
    """All lines of one worker process. Not for use by several threads."""

    def __init__(self) -> None:
        self._lines: dict[str, Iterator[Line]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._open: list[Provider] = []
        self._clients: list[httpx.AsyncClient] = []

    def slot(self, model: Model) -> asyncio.Semaphore:
        """Return what bounds this model's calls in flight in this process."""
        return self._slots.setdefault(model.name, asyncio.Semaphore(model.concurrency))

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
            lines = [Line("in this worker", Extractive(model))]
        else:
            lines = [Line(each.label, self._remote(model, each)) for each in model.live_endpoints]
        self._open += [line.provider for line in lines]
        return lines

    def _remote(self, model: Model, endpoint: Endpoint) -> Provider:
        client = make_client(endpoint, timeout_s=model.timeout_s, concurrency=model.concurrency)
        self._clients.append(client)
        return OpenAI(model, endpoint, client)
