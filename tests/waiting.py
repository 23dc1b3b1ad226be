"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T],
    *,
    timeout_s: float = 20.0,
    interval_s: float = 0.02,
    message: str = "",
) -> T:
    """Return the first truthy value of `condition`; fail the test if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            what = message or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last value: {value!r})")
        time.sleep(interval_s)
