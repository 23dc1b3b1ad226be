"""Driving units through a client: all of them, each once, never too many at a time."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.client import Client
from modelyard.errors import BrokerFull, BrokerUnavailable, InvalidRequest, RequestFailed
from modelyard.messages import Answer, Request
from modelyard.outcome import Outcome
from modelyard.plan import Decision, Plan, Step
from producer.job import Job
from producer.run import PartRequest, Run

DECISION = Decision(
    route="default",
    intent="other",
    why="",
    input_tokens=1,
    decided_at=0.0,
    plan=Plan(steps=(Step(model="small"),)),
)


def answer(id: str, text: str) -> Answer:
    return Answer(id=id, text=text, model="small", provider_model="small", decision=DECISION)


class FakeHandle:
    def __init__(self, id: str, outcome: Outcome) -> None:
        self.id = id
        self._outcome = outcome

    def result(self, timeout_s: float) -> Answer:
        if isinstance(self._outcome, Answer):
            return self._outcome
        raise self._outcome


class FakeClient:
    """Answers with the text it got, in any order, when the run next looks."""

    def __init__(self, rng: random.Random | None = None, capacity: int | None = None) -> None:
        self.rng = rng or random.Random(0)
        self.capacity = capacity
        self.ids: list[str] = []
        self.most_in_flight = 0
        self._waiting: list[tuple[FakeHandle, Callable[[FakeHandle], object]]] = []

    def submit_many(
        self, requests: Iterable[Request], *, ids: Sequence[str], once_s: int, wait_s: float
    ) -> list[FakeHandle]:
        texts = [request.text for request in requests]
        if "invalid" in texts:
            raise InvalidRequest("not like this")
        if self.capacity is not None and len(self._waiting) + len(texts) > self.capacity:
            raise BrokerFull("full")
        self.ids += ids
        return [
            FakeHandle(
                id, RequestFailed("no", id, "refused") if text == "fail" else answer(id, text)
            )
            for id, text in zip(ids, texts, strict=True)
        ]

    def when_done(
        self, handles: Iterable[FakeHandle], callback: Callable[[FakeHandle], object]
    ) -> None:
        self._waiting += [(handle, callback) for handle in handles]
        self.most_in_flight = max(self.most_in_flight, len(self._waiting))

    def some_answers(self) -> None:
        self.rng.shuffle(self._waiting)
        for _ in range(self.rng.randint(1, 3)):
            if self._waiting:
                handle, callback = self._waiting.pop()
                callback(handle)


class TextUnit:
    """Asks its texts one after the other, or all at once."""

    def __init__(self, key: str, texts: Sequence[str], *, at_once: bool = False) -> None:
        self.key = key
        self.heard_of: list[Outcome] = []
        self._rest = [
            PartRequest(str(at), Request.model_validate({"text": text}))
            for at, text in enumerate(texts)
        ]
        self._count = len(texts)
        self._at_once = at_once

    @property
    def ended(self) -> bool:
        return len(self.heard_of) == self._count

    def begin(self) -> Sequence[PartRequest]:
        return self._next()

    def heard(self, part: str, id: str, outcome: Outcome) -> Sequence[PartRequest]:
        self.heard_of.append(outcome)
        return self._next()

    def _next(self) -> Sequence[PartRequest]:
        count = len(self._rest) if self._at_once else 1
        now, self._rest = self._rest[:count], self._rest[count:]
        return now


def work(
    client: FakeClient,
    units: Iterable[TextUnit],
    *,
    job: Job | None = None,
    window: int = 10,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[bool, list[TextUnit]]:
    written: list[TextUnit] = []

    def drive(job: Job) -> bool:
        run: Run[TextUnit] = Run(
            job,
            lambda: cast("Client", client),
            written.append,
            once_s=60,
            window=window,
            stopping=stopping,
            tick=client.some_answers,
            poll_s=0.0,
        )
        return run.work(iter(units))

    if job is not None:
        return drive(job), written
    with Job(None, "test") as temporary:
        return drive(temporary), written


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12),
    st.integers(1, 8),
    st.integers(0, 1000),
)
def test_each_unit_is_written_once_and_the_window_is_never_exceeded(
    shapes: list[tuple[int, bool]], window: int, seed: int
) -> None:
    client = FakeClient(random.Random(seed))
    units = [
        TextUnit(str(at), [f"{at}.{n}" for n in range(count)], at_once=at_once)
        for at, (count, at_once) in enumerate(shapes)
    ]

    finished, written = work(client, units, window=window)

    assert finished
    assert sorted(unit.key for unit in written) == sorted(unit.key for unit in units)
    assert all(unit.ended for unit in written)
    assert client.most_in_flight <= window
    assert len(set(client.ids)) == len(client.ids) == sum(count for count, _ in shapes)


def test_units_are_taken_only_when_there_is_room() -> None:
    client = FakeClient()
    taken = 0

    def units() -> Iterator[TextUnit]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield TextUnit(str(number), ["text"])

    def stopping() -> bool:
        return client.most_in_flight > 0

    finished, _ = work(client, units(), window=5, stopping=stopping)

    assert not finished
    assert taken == 5


def test_an_invalid_request_fails_alone() -> None:
    units = [TextUnit("a", ["fine"]), TextUnit("b", ["invalid"]), TextUnit("c", ["fine"])]

    finished, written = work(FakeClient(), units)

    assert finished
    failed = {unit.key: unit.heard_of[0] for unit in written if unit.key == "b"}
    assert isinstance(failed["b"], RequestFailed)
    assert failed["b"].reason == "invalid"
    assert all(isinstance(unit.heard_of[0], Answer) for unit in written if unit.key != "b")


def test_a_dead_letter_is_an_outcome() -> None:
    finished, written = work(FakeClient(), [TextUnit("a", ["fail"])])

    assert finished
    assert [str(unit.heard_of[0]) for unit in written] == ["no"]


def test_a_full_broker_is_waited_for_while_answers_come() -> None:
    client = FakeClient(capacity=3)
    units = [TextUnit(str(number), ["text"]) for number in range(3)]
    more = [TextUnit(f"more {number}", ["text", "text"]) for number in range(6)]

    finished, written = work(client, [*units, *more], window=3)

    assert finished
    assert len(written) == 9


def test_a_broker_that_is_full_without_us_is_an_error() -> None:
    with pytest.raises(BrokerFull):
        work(FakeClient(capacity=0), [TextUnit("a", ["text"])])


def test_a_lost_broker_ends_the_run() -> None:
    class LostClient(FakeClient):
        def submit_many(self, requests: Iterable[Request], **_: Any) -> list[FakeHandle]:
            return [FakeHandle(id, BrokerUnavailable("gone")) for id in _["ids"]]

    with pytest.raises(BrokerUnavailable):
        work(LostClient(), [TextUnit("a", ["text"])])


def test_nothing_is_connected_when_nothing_is_asked() -> None:
    def connect() -> Client:
        raise AssertionError("no request was made")

    written: list[TextUnit] = []
    with Job(None, "test") as job:
        run: Run[TextUnit] = Run(job, connect, written.append, once_s=60)
        assert run.work(iter([TextUnit("a", [])]))
    assert len(written) == 1


def test_a_run_that_was_stopped_submits_the_same_ids_again(tmp_path: Path) -> None:
    first, second = FakeClient(), FakeClient()
    with Job(tmp_path / "out.jsonl", "test") as job:
        finished, written = work(
            first,
            [TextUnit(str(number), ["text"]) for number in range(9)],
            job=job,
            window=4,
            stopping=lambda: len(first.ids) > 5,
        )
        assert not finished
        done = {unit.key for unit in written}
    with Job(tmp_path / "out.jsonl", "test") as job:
        rest = [TextUnit(str(number), ["text"]) for number in range(9) if str(number) not in done]
        finished, _ = work(second, rest, job=job)
    assert finished
    assert len({*first.ids, *second.ids}) == 9
