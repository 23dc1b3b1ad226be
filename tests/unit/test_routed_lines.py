"""What a router logs of the requests that it routed: a line a second, and nothing left out."""

import logging
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.catalog import Catalog, Model
from modelyard.holdings import ledger
from modelyard.messages import Request
from modelyard.routes import Route
from modelyard.settings import Settings
from router_worker.basis import Basis
from router_worker.batch import TELL_EVERY_S, Batch

CATALOG = Catalog(
    models=(Model(name="small", provider="extractive"),),
    routes={"default": Route(otherwise=("small",))},
)


class Timer:
    """Celery's, as far as it is needed."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_after(self, seconds: float, act: Callable[[], None]) -> None:
        assert seconds == TELL_EVERY_S
        self.due.append(act)

    def pass_a_second(self) -> None:
        due, self.due = self.due, []
        for act in due:
            act()


def message(id: str, channel: Any) -> Any:
    ledger.claimed([id])
    return SimpleNamespace(
        headers={"id": id},
        properties={},
        delivery_tag=id,
        payload=([Request.of("hello").encode()], {}, {}),
        channel=channel,
        ack=lambda: None,
    )


def test_requests_are_counted_in_a_line_a_second_and_the_last_of_a_burst_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "modelyard.router")
    timer = Timer()
    state = SimpleNamespace(revoked=set(), total_count=Counter[str](), maybe_shutdown=int)
    consumer = SimpleNamespace(
        controller=SimpleNamespace(state=state), event_dispatcher=None, timer=timer
    )
    claims = SimpleNamespace(settle=lambda all: [1] * len(all))
    channel = SimpleNamespace(claims=claims, handover=SimpleNamespace(after=[]))
    basis = Basis(CATALOG, Settings(), "redis://127.0.0.1:1/0")
    batch = Batch("route", lambda: basis, 60, consumer)

    def route(*ids: str) -> None:
        for id in ids:
            batch.take(message(id, channel))
        batch.flush()

    def lines() -> list[str]:
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return said

    route("a")
    route("b", "c")
    assert lines() == []
    timer.pass_a_second()
    assert lines() == ["routed 3 requests"]
    timer.pass_a_second()
    assert lines() == []
    route("d")
    timer.pass_a_second()
    assert lines() == ["routed 1 requests"]
