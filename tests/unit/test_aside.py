"""What runs aside of the loop: its result, its error, and what takes too long."""

import sys
import threading

import pytest

from model_workers.aside import aside


async def test_a_function_runs_in_a_thread_of_its_own_that_holds_nothing_up() -> None:
    thread = await aside(30, threading.current_thread)
    assert thread is not threading.current_thread()
    assert thread.daemon


async def test_what_a_function_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(30, lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="SystemExit"):
        await aside(30, sys.exit, 3)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await aside(30, next, iter(()))


async def test_what_takes_too_long_is_not_waited_for() -> None:
    ended = threading.Event()
    with pytest.raises(TimeoutError):
        await aside(0.05, ended.wait)
    ended.set()  # it says so to nobody, and that is no error
    assert await aside(30, lambda: "the next one") == "the next one"
