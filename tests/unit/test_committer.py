"""Group commit: what is settled together, and what happens while Redis is away or a queue full."""

import threading
from collections.abc import Iterator, Sequence

import pytest
import redis
from waiting import eventually

from model_workers.committer import Committer, Pending
from modelyard.claims import DONE, LOST, Ack, Settlement


class Store:
    """Stands for Redis: says `DONE`, or what it was told to say or raise."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.says: list[list[int] | Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def settle(self, settlements: Sequence[Settlement]) -> list[int]:
        self.gate.wait(10)
        self.batches.append([each.claim for each in settlements])
        said = self.says.pop(0) if self.says else [DONE] * len(settlements)
        if isinstance(said, Exception):
            raise said
        return said


class Told:
    """What came of each claim."""

    def __init__(self) -> None:
        self.results: dict[str, int | None] = {}

    def pending(self, claim: str) -> Pending:
        return Pending(Ack(claim), lambda result: self.results.__setitem__(claim, result))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def committer(store: Store) -> Iterator[Committer]:
    committer = Committer(store.settle)
    committer.start()
    yield committer
    committer.close(2.0)


def test_what_ends_meanwhile_goes_together(committer: Committer, store: Store, told: Told) -> None:
    store.gate.clear()
    for number in range(10):
        committer.add(told.pending(str(number)))
    store.gate.set()

    eventually(lambda: len(told.results) == 10)
    assert sorted(claim for batch in store.batches for claim in batch) == sorted(told.results)
    assert len(store.batches) <= 3


def test_it_tries_again_until_redis_is_there(
    committer: Committer, store: Store, told: Told
) -> None:
    store.says = [redis.ConnectionError("away"), redis.ResponseError("READONLY replica"), [DONE]]
    committer.add(told.pending("a"))

    eventually(lambda: told.results == {"a": DONE})
    assert store.batches == [["a"]] * 3


def test_a_lost_claim_is_told(committer: Committer, store: Store, told: Told) -> None:
    store.says = [[LOST]]
    committer.add(told.pending("a"))
    eventually(lambda: told.results == {"a": LOST})


def test_what_redis_will_never_take_is_given_up_and_the_rest_goes_on(
    committer: Committer, store: Store, told: Told
) -> None:
    store.says = [redis.ResponseError("ERR a bug in the script")]
    committer.add(told.pending("a"))
    eventually(lambda: told.results == {"a": None})
    committer.add(told.pending("b"))
    eventually(lambda: told.results.get("b") == DONE)


def test_a_callback_that_fails_does_not_end_it(committer: Committer, told: Told) -> None:
    def fails(result: int | None) -> None:
        raise ZeroDivisionError

    committer.add(Pending(Ack("a"), fails))
    committer.add(told.pending("b"))
    eventually(lambda: told.results == {"b": DONE})


def test_closing_settles_what_there_is(store: Store, told: Told) -> None:
    committer = Committer(store.settle)
    committer.start()
    store.gate.clear()
    for number in range(5):
        committer.add(told.pending(str(number)))
    store.gate.set()
    committer.close(5.0)
    assert set(told.results.values()) == {DONE}


def test_closing_while_redis_is_away_gives_up(store: Store, told: Told) -> None:
    committer = Committer(store.settle)
    committer.start()
    store.says = [redis.ConnectionError("away")] * 1000
    committer.add(told.pending("a"))
    eventually(lambda: store.batches)
    committer.close(0.2)
    assert told.results == {"a": None}
