"""Provider `extractive`: summaries inside the worker, without network or model."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from model_workers.extractive import ORDERS, Length, Order, read_task, summarize
from model_workers.providers.base import Completion
from modelyard.catalog import Model, suggestion
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage
from modelyard.tokens import estimate_tokens


class Extractive:
    """Picks sentences of the user's messages; other roles are not read.

    The model's `model:` key names the algorithm, `lead` or `centroid-mmr`; for another one the
    constructor raises `ProviderError` (permanent). Tokens are estimates.
    """

    def __init__(self, model: Model) -> None:
        name = model.provider_model
        if name not in ORDERS:
            raise ProviderError(
                FailureKind.PERMANENT,
                f"model {model.name!r}: the extractive provider has no model {name!r}"
                f"{suggestion(name, ORDERS)}: set `model: lead` or `model: centroid-mmr`",
            )
        self._order = ORDERS[name]
        self._max_output_tokens = model.max_output_tokens
        self._provider_model = f"extractive/{name}"
        # Threads keep the loop free for other calls; more than cores would only share the cores.
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(
            max_workers=os.cpu_count() or 1, thread_name_prefix=f"extractive-{model.name}"
        )

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        """Summarize the user's messages, in a thread.

        `max_tokens` (the model's `max_output_tokens` if it is not given) bounds the summary, and
        so does a number of sentences or words in the instruction.
        Raises `ProviderError`: invalid for an empty document or a bad `max_tokens`, retryable
        after `aclose`.
        """
        if self._threads is None:
            raise ProviderError(
                FailureKind.RETRYABLE, f"{self._provider_model} was closed: its worker is stopping"
            )
        work = partial(
            _complete, request, self._order, self._provider_model, self._max_output_tokens
        )
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def aclose(self) -> None:
        """Take no more calls; threads end after those they have."""
        threads, self._threads = self._threads, None
        if threads is not None:
            # Not waiting: that would hold up the loop on which the last calls are awaited.
            threads.shutdown(wait=False)


def _complete(
    request: Request, order: Order, provider_model: str, max_output_tokens: int
) -> Completion:
    for what in ("tools", "functions", "response_format"):
        asked = request.params.get(what)
        if asked and asked != {"type": "text"}:
            raise ProviderError(
                FailureKind.PERMANENT, f"it picks sentences and knows nothing of params.{what}"
            )
    if any(message.images for message in request.messages):
        raise ProviderError(FailureKind.PERMANENT, "it picks sentences and can't see images")
    task = read_task(message.text for message in request.messages if message.role == "user")
    length = Length(task.sentences, task.words, _max_tokens(request) or max_output_tokens)
    summary = summarize(task.document, order, length)
    if not summary.sentences:
        raise ProviderError(
            FailureKind.INVALID,
            "there is no document to summarize: the user messages hold no text"
            " besides an instruction",
        )
    return Completion(
        text=summary.text,
        provider_model=provider_model,
        usage=Usage(
            input_tokens=sum(estimate_tokens(message.text) for message in request.messages),
            output_tokens=estimate_tokens(summary.text),
        ),
        finish_reason="length" if summary.cut else "stop",
        extractive=True,
    )


def _max_tokens(request: Request) -> int | None:
    limits: list[int] = []
    for name in ("max_tokens", "max_completion_tokens"):
        value = request.params.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ProviderError(
                FailureKind.INVALID, f"params.{name} is {value!r}: give a whole number from 1"
            )
        limits.append(value)
    return min(limits, default=None)
