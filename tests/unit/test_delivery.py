"""Deliveries: each submission is accepted once, in order, through outages and full queues."""

import random
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.claims import DONE, NO_ROOM, New
from modelyard.errors import BrokerError, BrokerFull, BrokerUnavailable, QueueFull
from modelyard.outbox import AT_ONCE, AT_ONCE_CHARS, Bounds, Delivery, Outbox, chunks
from modelyard.submission import Submission


class FakeOutbox:
    """A broker with room for so many, which fails when it is told to."""

    def __init__(
        self, room: int = 10**9, fails: Sequence[BrokerError | None] = (), patience_s: float = 10.0
    ) -> None:
        self.bounds = Bounds(1, 1)
        self.patience_s = patience_s
        self.room = room
        self.fails = list(fails)
        self.marks: dict[str, str] = {}
        self.accepted: list[str] = []

    def put(self, some: Sequence[Submission], left_s: float) -> list[int | str]:
        error = self.fails.pop(0) if self.fails else None
        if isinstance(error, BrokerFull):
            raise error
        said = [self._put(each.new) for each in some]
        if error is not None:
            raise error  # the reply is lost
        return said

    def _put(self, new: New) -> int | str:
        if new.mark in self.marks:
            return self.marks[new.mark]
        if self.room == 0:
            return NO_ROOM
        self.room -= 1
        self.marks[new.mark] = new.id
        self.accepted.append(new.id)
        return DONE


class Clock:
    """Time that passes only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def deliver(
    outbox: FakeOutbox, every: Sequence[Submission], wait_s: float | None = 0.0, more: int = 0
) -> Delivery:
    """Carry it out; each pause makes room for `more`."""
    clock = Clock()
    delivery = Delivery(cast("Outbox", outbox), every, wait_s, clock=clock, rng=random.Random(1))
    while (pause_s := delivery.step()) is not None:
        assert pause_s > 0
        clock.now += pause_s
        outbox.room += more
    return delivery


def submissions(count: int, queue: str = "requests") -> list[Submission]:
    return [Submission(queue, New(f"id-{at}", "m", f"mark-{at}", 60)) for at in range(count)]


@given(
    st.integers(0, 700),
    st.integers(0, 300),
    st.integers(1, 300),
    st.lists(st.booleans(), max_size=5),
)
def test_each_is_accepted_once_and_in_order(
    count: int, room: int, more: int, lost: list[bool]
) -> None:
    fails = [BrokerUnavailable("gone") if each else None for each in lost]
    outbox = FakeOutbox(room, fails)
    delivery = deliver(outbox, submissions(count), None, more)
    assert outbox.accepted == [f"id-{at}" for at in range(count)]
    assert [first for _, first, _ in delivery.accepted_as()] == outbox.accepted


def test_the_first_with_a_mark_lends_its_id() -> None:
    every = [Submission("requests", New(id, "m", "same", 60)) for id in ("one", "two")]
    delivery = deliver(FakeOutbox(), every)
    assert list(delivery.accepted_as()) == [("one", "one", False), ("two", "one", True)]


def test_an_outage_is_waited_for_with_patience() -> None:
    fails = [BrokerUnavailable("gone")] * 3
    assert deliver(FakeOutbox(fails=fails), submissions(1)).step() is None
    with pytest.raises(BrokerUnavailable, match="gone"):
        deliver(FakeOutbox(fails=fails, patience_s=0.5), submissions(1))


def test_patience_begins_anew_with_each_success() -> None:
    gone = BrokerUnavailable("gone")
    fails = [gone, gone, None] * 5
    outbox = FakeOutbox(fails=fails, patience_s=0.5)
    deliver(outbox, submissions(5 * AT_ONCE))
    assert len(outbox.accepted) == 5 * AT_ONCE


def test_an_error_says_how_many_were_accepted() -> None:
    outbox = FakeOutbox(fails=[None, BrokerFull("no memory")])
    with pytest.raises(BrokerFull, match="no memory; 200 of 300 requests were accepted"):
        deliver(outbox, submissions(300))


@given(st.floats(0.01, 100))
def test_room_is_waited_for_no_longer_than_asked(wait_s: float) -> None:
    clock = Clock()
    delivery = Delivery(cast("Outbox", FakeOutbox(room=1)), submissions(2), wait_s, clock=clock)
    with pytest.raises(QueueFull, match="1 of 2 requests were accepted within"):
        while (pause_s := delivery.step()) is not None:
            clock.now += pause_s
    assert clock.now == pytest.approx(wait_s)


@given(
    st.lists(
        st.tuples(st.sampled_from(["requests", "batch.requests"]), st.integers(1, 5)), max_size=900
    )
)
def test_chunks_hold_each_once_and_no_more_than_one_call_may(
    shapes: list[tuple[str, int]],
) -> None:
    megabytes = {size: "m" * (size * AT_ONCE_CHARS // 400) for size in range(6)}
    every = [
        Submission(queue, New(str(at), megabytes[size])) for at, (queue, size) in enumerate(shapes)
    ]
    parts = chunks(every)

    assert all(0 < len(part) <= AT_ONCE for part in parts if every)
    assert all(sum(len(each.new.message) for _, each in part) <= AT_ONCE_CHARS for part in parts)
    assert all(len({each.queue for _, each in part}) == 1 for part in parts)
    for queue in ("requests", "batch.requests"):
        positions = [at for part in parts for at, each in part if each.queue == queue]
        assert positions == [at for at, (of, _) in enumerate(shapes) if of == queue]
    queues = [part[0][1].queue for part in parts]
    assert queues == sorted(queues, reverse=True)


def test_one_message_is_sent_however_large() -> None:
    large = Submission("requests", New("a", "m" * (AT_ONCE_CHARS + 1)))
    assert [len(part) for part in chunks([large, large])] == [1, 1]
