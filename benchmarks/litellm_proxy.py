"""The peer that is a gateway: LiteLLM's proxy in front of the same endpoint.

It is installed into an environment of its own, `.venv-litellm`, when it is first measured. One
worker process, as modelyard has one pool; what its documentation advises for production is set:
no verbose log, errors only, its price list from the package, production mode
(https://docs.litellm.ai/docs/proxy/prod). No database, no callbacks, telemetry off.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from benchmarks.environment import Environment
from benchmarks.pace import paced_on_loop
from benchmarks.system import CONCURRENCY, System
from modelyard.embedded_redis import unused_port

ENVIRONMENT: Final = Environment.of("litellm", "litellm[proxy]")
AT_MOST_S: Final = 20.0
START_S: Final = 180.0
POLL_S: Final = 0.25
MASTER_KEY: Final = "sk-benchmark"  # of a proxy that lives for a minute on this machine

CONFIG: Final = """
model_list:
  - model_name: small
    litellm_params:
      model: openai/small
      api_base: os.environ/ENDPOINT_BASE_URL
      api_key: none
general_settings:
  master_key: {master_key}
litellm_settings:
  telemetry: false
  set_verbose: false
  num_retries: 0
  request_timeout: 60
"""

T = TypeVar("T")


def litellm_proxy(
    folder: Path, *, workers: int = 1, environment: Environment = ENVIRONMENT
) -> System:
    """Return the proxy as a system, with its configuration in `folder`."""
    config = folder / "litellm.yaml"
    config.write_text(CONFIG.format(master_key=MASTER_KEY))
    port = unused_port()
    command = [
        *(environment.program("litellm"), "--config", str(config)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", str(workers), "--telemetry", "False"),
    ]
    env = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    name = "LiteLLM proxy" if workers == 1 else f"LiteLLM proxy, {workers} workers"
    url = f"http://127.0.0.1:{port}"
    return System(name, {"proxy": command}, lambda _: GatewayClient(url), env, AT_MOST_S)


class GatewayClient:
    """Calls an OpenAI-compatible gateway, with at most `CONCURRENCY` calls in flight."""

    def __init__(self, url: str, *, ready: str = "/health/liveliness") -> None:
        self._url = url
        self._runner = asyncio.Runner()
        self._session = self._runner.run(self._open())
        try:
            self._runner.run(self._wait_until_ready(ready))
        except BaseException:
            self.close()
            raise

    def one(self, text: str, timeout_s: float) -> str:
        """Make one call and return its text."""
        return self._run(self._call(text), timeout_s)

    def many(self, texts: Sequence[str], timeout_s: float) -> int:
        """Make all calls and return how many were answered."""

        async def caller(waiting: Iterator[str]) -> int:
            return len([bool(await self._call(text)) for text in waiting])

        async def all_of_them() -> int:
            waiting = iter(texts)
            return sum(await asyncio.gather(*(caller(waiting) for _ in range(CONCURRENCY))))

        return self._run(all_of_them(), timeout_s)

    def paced(self, text: str, at_s: Sequence[float], timeout_s: float) -> list[float]:
        """Call at these seconds from now; return the milliseconds that each took."""

        async def call(due: float) -> float:
            await self._call(text)
            return 1000 * (time.perf_counter() - due)

        async def all_of_them() -> list[float]:
            tasks = [asyncio.create_task(call(due)) async for due in paced_on_loop(at_s)]
            return list(await asyncio.gather(*tasks))

        return self._run(all_of_them(), timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._session.close())
        self._runner.close()

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(timeout_s):
                return await coroutine

        return self._runner.run(bounded())

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONCURRENCY),
            headers={"Authorization": f"Bearer {MASTER_KEY}"},
        )

    async def _call(self, text: str) -> str:
        body = {"model": "small", "messages": [{"role": "user", "content": text}]}
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                said = (await response.text())[:500]
                raise RuntimeError(f"the gateway answered {response.status}: {said}")
            answer = await response.json()
        return str(answer["choices"][0]["message"]["content"])

    async def _wait_until_ready(
        self, path: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        deadline = clock() + START_S
        while clock() < deadline:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with self._session.get(self._url + path) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(POLL_S)
        raise TimeoutError(f"the gateway did not start within {START_S:g} s")
