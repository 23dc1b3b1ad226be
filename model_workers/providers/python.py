"""Provider `python`: a function of the operator's own answers, inside the worker.

The catalog's `entry_point` names it as `module:function`. It gets the `Request` and returns its
text, or a `Completion` if it has more to say. A coroutine function runs on the loop of all calls; a
plain one in a thread, and so it may block. No more than the model's `concurrency` run at a time.
"""

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from model_workers.providers.base import Completion
from model_workers.providers.clean import encodable
from modelyard.catalog import Model
from modelyard.entry_point import EntryPointError, load_function
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage
from modelyard.tokens import estimate_tokens

logger = logging.getLogger("modelyard.calls")


class Python:
    """Calls a function. Implements `model_workers.providers.base.Provider`.

    Raises `ProviderError` (permanent) if `entry_point` can't be loaded.
    """

    def __init__(self, model: Model) -> None:
        self._place = model.entry_point or ""
        try:
            self._function = load_function(self._place)
        except EntryPointError as error:
            raise ProviderError(
                FailureKind.PERMANENT, f"model {model.name!r}: entry_point {self._place!r} {error}"
            ) from error
        self._name = model.name
        self._timeout_s = model.timeout_s
        self._is_async = is_async(self._function)
        self._places = asyncio.Semaphore(model.concurrency)
        self._open = True

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        """Call the function. Tokens are estimated if it returns text only.

        Raises its `ProviderError`s as they are; all else that it raises is permanent, and only the
        type's name is passed on, as its words may hold the prompt: the log has them. After the
        model's `timeout_s` the call is given up (retryable). A thread can't be ended: its place
        stays taken until the function returns.
        """
        if not self._open:
            raise self._error(FailureKind.RETRYABLE, "was closed: its worker is stopping")
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                found = await self._called(request)
        except ProviderError:
            raise
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise self._failed("CancelledError") from None  # Not us: something that it awaited.
        except (Exception, SystemExit) as error:
            if isinstance(error, TimeoutError) and limit.expired():
                words = f"timeout: no answer within {self._timeout_s:g} s"
                raise self._error(FailureKind.RETRYABLE, words) from None
            logger.exception("model %s: %s failed", self._name, self._place)
            raise self._failed(type(error).__name__) from error
        return self._completion(found, request)

    async def aclose(self) -> None:
        """Take no more calls; threads end after those they have."""
        self._open = False

    async def _called(self, request: Request) -> object:
        await self._places.acquire()
        if not self._is_async:
            found = await self._in_thread(request)
            # A plain function may hand out what has to be awaited, a partial of another one.
            return await found if inspect.isawaitable(found) else found
        try:
            return await self._function(request)
        finally:
            self._places.release()

    async def _in_thread(self, request: Request) -> Any:
        """Return what the function does; its place is free again when it has returned.

        Not of an executor, whose threads hold up the end of the process if one of them hangs.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def settle(found: Any, error: BaseException | None) -> None:
            self._places.release()
            if not outcome.done():  # It was not given up.
                outcome.set_result((found, error))

        def run() -> None:
            found: Any = None
            failed: BaseException | None = None
            try:
                found = context.run(self._function, request)
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                failed = error
            with contextlib.suppress(RuntimeError):  # The loop has ended, and with it who waited.
                loop.call_soon_threadsafe(settle, found, failed)

        try:
            threading.Thread(target=run, name=f"python-{self._name}", daemon=True).start()
        except RuntimeError:  # No more threads: its place would never be free again.
            self._places.release()
            raise
        found, error = await outcome
        if isinstance(error, KeyboardInterrupt):
            raise RuntimeError("it raised KeyboardInterrupt") from error  # It would end the loop.
        if error is not None:
            raise error
        return found

    def _completion(self, found: object, request: Request) -> Completion:
        if isinstance(found, Completion):
            return replace(found, text=encodable(found.text))
        if not isinstance(found, str):
            what = f"returned neither str nor Completion but a {type(found).__name__}"
            raise self._error(FailureKind.PERMANENT, what)
        text = encodable(found)
        usage = Usage(
            input_tokens=sum(estimate_tokens(message.text) for message in request.messages),
            output_tokens=estimate_tokens(text),
        )
        return Completion(text=text, provider_model=self._place, usage=usage)

    def _failed(self, what: str) -> ProviderError:
        return self._error(FailureKind.PERMANENT, f"failed: {what}")

    def _error(self, kind: FailureKind, words: str) -> ProviderError:
        return ProviderError(kind, f"{self._place}: {words}")


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine: an `async def`, or an object that is called so."""
    called = type(function).__call__  # of an object that is called like a function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
