"""Running somebody else's function aside of the loop, and not waiting for it for ever."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def aside(seconds: float, act: Callable[..., T], *args: Any) -> T:
    """Return `act(*args)`, run in a thread of its own. Raises what it raises, and `TimeoutError`.

    A thread can't be ended: one that hangs goes on. It takes no place of other work, and being a
    daemon it does not hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():
            return  # nobody waits any more
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        error: Exception | None = None
        try:
            result = act(*args)
        except (StopIteration, SystemExit, KeyboardInterrupt) as raised:
            # In a coroutine these would end more than what they are about.
            error = RuntimeError(f"it raised {type(raised).__name__}")
        except Exception as raised:  # noqa: BLE001 - raised again where it is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who waited
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=f"aside {act.__name__}", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await future
