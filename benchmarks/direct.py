"""The calls of a model without any gateway: what is left of an answer's time without us."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.load import SEED
from benchmarks.pace import arrivals, paced_on_loop
from benchmarks.results import percentile
from benchmarks.system import CONCURRENCY, PROMPT
from model_workers.providers.http import make_client
from model_workers.providers.openai import OpenAI
from modelyard.catalog import Endpoint, Model
from modelyard.messages import Request


def at_a_rate(base_url: str, rate_per_s: float, seconds: float, round: int) -> dict[str, Any]:
    """Call the endpoint by the same process as `load.at_a_rate` submits, with the workers' client.

    Returns the milliseconds from when a call was due to its answer.
    """
    at_s = arrivals(rate_per_s, seconds, random.Random(f"{SEED}:{round}")) or [0.0]
    took = asyncio.run(calls(base_url, at_s))
    return {"p50_ms": percentile(took, 50), "p99_ms": percentile(took, 99)}


async def calls(base_url: str, at_s: Sequence[float]) -> list[float]:
    """Return what each of these calls took, in milliseconds."""
    endpoint = Endpoint(base_url=base_url)
    model = Model(name="small", provider="openai", endpoints=(endpoint,))
    client = make_client(endpoint, timeout_s=30.0, concurrency=CONCURRENCY)
    provider, request = OpenAI(model, endpoint, client), Request.of(PROMPT)

    async def call(due: float) -> float:
        await provider.complete(request)
        return 1000 * (time.perf_counter() - due)

    async with client:
        await provider.complete(request)  # a connection is open, as it is in a worker
        tasks = [asyncio.create_task(call(due)) async for due in paced_on_loop(at_s)]
        return list(await asyncio.gather(*tasks))
