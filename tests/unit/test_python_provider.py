"""A function of one's own as a model: what it may return, and what becomes of its failures."""

import asyncio
import contextvars
import functools
import logging
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from model_workers.providers.base import Completion
from model_workers.providers.python import Python
from modelyard.catalog import Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage

HERE = __name__
SECRET = Request.of("My secret is 42.")
tenant = contextvars.ContextVar("tenant", default="nobody")


def shout(request: Request) -> str:
    return request.text.upper()


async def shout_later(request: Request) -> str:
    await asyncio.sleep(0)
    return request.text.upper()


class Shouting:
    async def __call__(self, request: Request) -> str:
        return await shout_later(request)


shouting = Shouting()
partly = functools.partial(shout_later)
number = 7


def handed_out(request: Request) -> Coroutine[Any, Any, str]:
    return shout_later(request)


def whole(request: Request) -> Completion:
    return Completion("Ave", "own-2", Usage(input_tokens=3, output_tokens=1), confidence=0.5)


def where(request: Request) -> str:
    return f"{threading.current_thread() is threading.main_thread()} {tenant.get()}"


def half_a_character(request: Request) -> str:
    return "a\ud800b"


def wrong(request: Request) -> int:
    return 7


def fail(request: Request) -> str:
    raise KeyError(request.text)


async def fail_later(request: Request) -> str:
    raise KeyError(request.text)


def leave(request: Request) -> str:
    raise SystemExit(1)


async def leave_later(request: Request) -> str:
    raise SystemExit(1)


def stop_iterating(request: Request) -> str:
    return next(iter(()))


def interrupt(request: Request) -> str:
    raise KeyboardInterrupt


async def cancel(request: Request) -> str:
    raise asyncio.CancelledError


def own_timeout(request: Request) -> str:
    raise TimeoutError("mine")


def limited(request: Request) -> str:
    raise ProviderError(FailureKind.LIMITED, "slow down", status=429, retry_after_s=2.0)


async def for_ever(request: Request) -> str:
    await asyncio.Event().wait()
    return ""


def provider(function: str, **fields: Any) -> Python:
    return Python(Model(name="own", provider="python", entry_point=f"{HERE}:{function}", **fields))


async def failure(function: str, **fields: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider(function, **fields).complete(SECRET)
    return caught.value


@pytest.mark.parametrize("function", ["shout", "shout_later", "shouting", "partly", "handed_out"])
async def test_text_is_an_answer_whose_tokens_are_estimated(function: str) -> None:
    assert await provider(function).complete(Request.of("Ave")) == Completion(
        text="AVE",
        provider_model=f"{HERE}:{function}",
        usage=Usage(input_tokens=1, output_tokens=1),
    )


async def test_a_completion_is_taken_as_it_is() -> None:
    assert await provider("whole").complete(SECRET) == whole(SECRET)


async def test_a_plain_function_runs_in_a_thread_that_knows_the_caller_s_context() -> None:
    tenant.set("acme")
    assert (await provider("where").complete(SECRET)).text == "False acme"


async def test_text_that_can_t_travel_is_repaired() -> None:
    assert (await provider("half_a_character").complete(SECRET)).text == "a\ufffdb"


@pytest.mark.parametrize(
    ("function", "named"),
    [
        ("fail", "KeyError"),
        ("fail_later", "KeyError"),
        ("leave", "SystemExit"),
        ("leave_later", "SystemExit"),
        ("stop_iterating", "RuntimeError"),
        ("interrupt", "RuntimeError"),
        ("cancel", "CancelledError"),
        ("own_timeout", "TimeoutError"),
        ("wrong", "a int"),
    ],
)
async def test_a_failure_is_told_by_its_type_only(function: str, named: str) -> None:
    error = await failure(function)
    assert error.kind is FailureKind.PERMANENT
    assert str(error).startswith(f"{HERE}:{function}: ")
    assert named in str(error)
    assert "secret" not in str(error)


async def test_the_log_has_where_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "modelyard.calls"):
        await failure("fail")
    assert "in fail" in caplog.text
    assert "KeyError" in caplog.text


async def test_its_own_provider_error_passes_as_it_is() -> None:
    error = await failure("limited")
    assert (error.kind, error.status, error.retry_after_s) == (FailureKind.LIMITED, 429, 2.0)


async def test_it_has_so_much_time() -> None:
    error = await failure("for_ever", timeout_s=0.01)
    assert (error.kind, "within 0.01 s" in str(error)) == (FailureKind.RETRYABLE, True)


async def test_a_call_can_be_given_up() -> None:
    call = asyncio.create_task(provider("for_ever").complete(SECRET))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


class Turnstile:
    """Holds calls of `pass_through` until it is opened, and counts those inside."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, request: Request) -> str:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.release()
        assert self.open.wait(10)
        with self.lock:
            self.inside -= 1
        return "through"

    async def has_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=10)


@pytest.fixture
def turnstile(monkeypatch: pytest.MonkeyPatch) -> Turnstile:
    made = Turnstile()
    monkeypatch.setitem(globals(), "pass_through", made)
    return made


async def test_no_more_than_concurrency_run_at_a_time(turnstile: Turnstile) -> None:
    own = provider("pass_through", concurrency=2)
    waiting = [asyncio.create_task(own.complete(SECRET)) for _ in range(5)]
    await turnstile.has_entered()
    await turnstile.has_entered()
    turnstile.open.set()
    assert {(await call).text for call in waiting} == {"through"}
    assert turnstile.most == 2


async def test_a_thread_that_was_given_up_keeps_its_place_until_it_ends(
    turnstile: Turnstile,
) -> None:
    own = provider("pass_through", concurrency=1)
    first = asyncio.create_task(own.complete(SECRET))
    await turnstile.has_entered()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(own.complete(SECRET))
    await asyncio.sleep(0)
    assert turnstile.inside == 1
    turnstile.open.set()
    assert (await second).text == "through"
    assert turnstile.most == 1


async def test_a_closed_one_takes_no_calls() -> None:
    own = provider("shout")
    await own.aclose()
    with pytest.raises(ProviderError, match="its worker is stopping") as caught:
        await own.complete(SECRET)
    assert caught.value.kind is FailureKind.RETRYABLE


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("nothing", "can't be imported: AttributeError"),
        ("number", "is no function but a int"),
    ],
)
def test_an_entry_point_that_is_none_is_told_with_its_model(function: str, why: str) -> None:
    with pytest.raises(ProviderError, match=f"model 'own': entry_point '{HERE}:{function}' {why}"):
        provider(function)
