"""A claim whose reply is read late: by then the message may be another worker's."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from modelyard import transport
from modelyard.claims import Claimed
from modelyard.holdings import ledger
from modelyard.shares import Shares
from modelyard.transport import Channel

LEASE_S = 1.0
CLAIM = "late-claims:1"


def claim(took_s: float) -> None:
    """Have a channel claim a message, which takes so long."""

    def claimed(*_: Any) -> tuple[list[Claimed], int]:
        time.sleep(took_s)
        return [Claimed(CLAIM, "requests", b"{}")], 0

    channel: Any = SimpleNamespace(
        claims=SimpleNamespace(claim=claimed),
        connection_errors=(redis.ConnectionError,),
        lease_s=LEASE_S,
        _shares=Shares({"requests": 1.0}),
    )
    channel._confirm = lambda some: Channel._confirm(channel, some)
    Channel._claim(channel, ["requests"], 1)


@pytest.fixture
def confirmed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the claim was known each time when the leases were renewed."""
    seen: list[bool] = []

    def confirm() -> None:
        seen.append(ledger.holds(CLAIM))
        ledger.settled([CLAIM])  # it is somebody else's

    monkeypatch.setattr(transport, "confirm", confirm)
    return seen


def test_a_claim_that_came_late_is_confirmed_before_it_is_worked_on(confirmed: list[bool]) -> None:
    claim(took_s=0.6 * LEASE_S)
    assert confirmed == [True]
    assert not ledger.holds(CLAIM)


def test_a_claim_that_came_at_once_is_ours(confirmed: list[bool]) -> None:
    claim(took_s=0)
    assert confirmed == []
    assert ledger.holds(CLAIM)
    ledger.settled([CLAIM])


def test_a_late_claim_that_can_t_be_confirmed_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def confirm() -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(transport, "confirm", confirm)
    claim(took_s=0.6 * LEASE_S)
    assert not ledger.holds(CLAIM)
