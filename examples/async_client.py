"""The asyncio twin: many coroutines wait for answers over one subscription.

MODELYARD_BROKER_URL=redis://... python examples/async_client.py
"""

import asyncio

from modelyard import AsyncClient, RequestFailed


async def summary(yard: AsyncClient, text: str) -> str:
    """Return the summary of a text, or why there is none."""
    handle = await yard.submit(f"Summarize: {text}", deadline_s=60)
    try:
        return (await handle.result(timeout_s=60)).text
    except RequestFailed as failed:
        return f"no summary: {failed.reason}"


async def main() -> None:
    """Summarize several texts at once."""
    texts = [f"Train {number} left at noon. Train {number + 1} waited." for number in range(10)]
    async with AsyncClient() as yard:
        for text in await asyncio.gather(*(summary(yard, text) for text in texts)):
            print(text)


asyncio.run(main())
