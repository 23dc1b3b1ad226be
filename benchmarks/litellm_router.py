"""LiteLLM's Router, driven by a plan: run by the Python of LiteLLM's own environment.

Reads JSON from standard input: `endpoints` (name to base URL), `per_minute` of the limited one,
`strategy`, `at_s` (when each call is due, in seconds), `begin` (a URL to post to before the first).
Writes a list: for each call whether it was answered, and after how many milliseconds.
"""

import asyncio
import json
import sys
import time
import urllib.request

import litellm  # type: ignore[import-not-found, unused-ignore]
from litellm import Router


async def main() -> None:
    """Make the calls."""
    plan = json.load(sys.stdin)
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    models = []
    for name, url in plan["endpoints"].items():
        params = {"model": "openai/small", "api_base": url, "api_key": "none"}
        if name == "limited":
            params["rpm"] = plan["per_minute"]
        models.append({"model_name": "small", "litellm_params": params})
    router = Router(
        model_list=models,
        routing_strategy=plan["strategy"],
        num_retries=3,
        allowed_fails=3,
        cooldown_time=5,
        timeout=20,
        # What keeps it to the limits that it is told.
        enable_pre_call_checks=True,
    )
    messages = [{"role": "user", "content": "Where does this wagon go?"}]
    for _ in range(3):
        await router.acompletion(model="small", messages=messages)
    results = []

    async def call(due: float) -> None:
        try:
            await router.acompletion(model="small", messages=messages)
            answered = True
        except Exception:  # noqa: BLE001 - whatever it is, the caller has no answer
            answered = False
        results.append([answered, 1000 * (time.perf_counter() - due)])

    await asyncio.to_thread(urllib.request.urlopen, plan["begin"], b"")
    began = time.perf_counter()
    tasks = []
    for at in plan["at_s"]:
        await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
        tasks.append(asyncio.create_task(call(began + at)))
    await asyncio.gather(*tasks)
    print(json.dumps(results))


asyncio.run(main())
