"""When a worker takes over the claims of others, and when it had better not."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
import redis

from modelyard.claims import Claimed
from modelyard.leases import Leases
from modelyard.ledger import Ledger

LEASE_S = 9.0
ROUND_S = 3.0


class FakeClaims:
    """Claims of which one of somebody else has always run out."""

    owner = "me"

    def __init__(self) -> None:
        self.away = False
        self.run = "first"
        self.taken_over = 0
        self.gone: list[str] = []
        self.clock_s: Callable[[], float] = float
        self.renewed: Callable[[], object] = int

    def renew(self, claims: Iterable[str]) -> list[str]:
        if self.away:
            raise redis.ConnectionError("away")
        self.renewed()
        return self.gone

    def server(self) -> tuple[str, float]:
        return self.run, self.clock_s()

    def settle(self, settlements: Any) -> list[int]:
        return [1 for _ in settlements]

    def release_overdue(self) -> int:
        return 0

    def take_over(self, most: int) -> list[Claimed]:
        self.taken_over += 1
        return [Claimed("me:1", "requests", b"{}")]


class Worker:
    """A worker's leases, and the time, which passes a round after the other."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.claims: Any = FakeClaims()
        self.set_forward_s = 0.0
        self.claims.clock_s = lambda: self.now + 5_000.0 + self.set_forward_s
        self.ledger = Ledger()
        self.leases = Leases(
            cast("Any", self.claims),
            self.ledger,
            LEASE_S,
            clock=lambda: self.now,
            draw=lambda: 1.0,
        )

    def rounds(self, number: int) -> int:
        """Return how many of these rounds took something over."""
        before = self.claims.taken_over
        for _ in range(number):
            self.now += ROUND_S
            self.leases.round()
        return int(self.claims.taken_over - before)


@pytest.fixture
def worker() -> Worker:
    worker = Worker()
    worker.rounds(10)
    return worker


def test_what_nobody_renewed_is_taken_over_in_each_round(worker: Worker) -> None:
    assert worker.rounds(3) == 3


def test_who_was_just_started_takes_nothing_over_for_a_lease() -> None:
    worker = Worker()
    assert worker.rounds(3) == 0
    assert worker.rounds(2) == 2


def test_who_slept_takes_nothing_over_for_a_lease(worker: Worker) -> None:
    worker.now += 3 * LEASE_S
    assert worker.rounds(3) == 0
    assert worker.rounds(2) == 2


def test_who_could_not_reach_redis_takes_nothing_over_for_a_lease(worker: Worker) -> None:
    worker.claims.away = True
    for _ in range(3):
        with pytest.raises(redis.ConnectionError):
            worker.rounds(1)
    worker.claims.away = False
    assert worker.rounds(3) == 0
    assert worker.rounds(2) == 2


def test_who_is_new_at_a_server_takes_nothing_over_for_a_lease(worker: Worker) -> None:
    """After a failover all leases there may have run out, and the first to come would judge."""
    worker.claims.run = "promoted"
    assert worker.rounds(3) == 0
    assert worker.rounds(2) == 2


def test_a_server_whose_clock_is_set_forward_makes_nobody_take_over_for_a_lease(
    worker: Worker,
) -> None:
    worker.set_forward_s = 3600.0
    assert worker.rounds(3) == 0
    assert worker.rounds(3) == 3


def test_who_was_stopped_while_it_renewed_is_not_fresh(worker: Worker) -> None:
    """Its leases run from when Redis renewed them, not from when it read so."""

    def stopped() -> None:
        worker.now += 2 * LEASE_S

    worker.claims.renewed = stopped
    worker.leases.renew()
    assert not worker.leases.fresh
    worker.claims.renewed = int
    worker.leases.renew()
    assert worker.leases.fresh


def test_who_slept_is_fresh_only_when_it_has_let_go_of_what_is_gone(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call is paid for if the ledger is fresh and holds its claim: never both too early."""
    worker.ledger.claimed(["me:1"])
    worker.claims.gone = ["me:1"]
    worker.now += 2 * LEASE_S
    settled, seen = worker.ledger.settled, []

    def watched(claims: Iterable[str]) -> None:
        seen.append(worker.leases.fresh)
        settled(claims)

    monkeypatch.setattr(worker.ledger, "settled", watched)
    worker.leases.renew()
    assert seen == [False]
    assert worker.leases.fresh
    assert not worker.ledger.holds("me:1")
