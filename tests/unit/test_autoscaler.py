"""Which processes are started and ended as the numbers change."""

import threading
from collections.abc import Mapping

import pytest
from waiting import eventually

from modelyard.errors import BrokerUnavailable
from producer.autoscale import Autoscaler, Pool, Reader
from producer.children import ChildSpec
from producer.scale_numbers import Numbers
from producer.scaling import Rule


class Pools:
    """Processes, some of which are about to end."""

    def __init__(self, *names: str) -> None:
        self.running = list(names)
        self.ending: list[str] = []

    def names(self) -> frozenset[str]:
        return frozenset(self.running + self.ending)

    def add(self, spec: ChildSpec) -> None:
        assert spec.name not in self.names()
        self.running.append(spec.name)

    def retire(self, name: str) -> None:
        self.running.remove(name)
        self.ending.append(name)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def spec(number: int) -> ChildSpec:
    return ChildSpec(f"small-{number}", ())


def busy(in_flight: int, queued: int = 0) -> Mapping[str, Numbers]:
    return {"small": Numbers(queued, None, in_flight, 1)}


RULE = Rule(concurrency=10, at_most=4, cooldown_s=30.0)


def test_a_pool_grows_and_the_newest_end_first() -> None:
    pools, clock = Pools("small-1"), Clock()
    scaler = Autoscaler([Pool("small", RULE, spec)], pools, clock=clock)
    scaler.apply(busy(10, queued=150))
    assert pools.running == ["small-1", "small-2", "small-3"]
    clock.now = 60.0
    scaler.apply(busy(12))
    assert pools.running == ["small-1", "small-2"]


def test_a_process_that_still_ends_keeps_its_name() -> None:
    pools, clock = Pools("small-1"), Clock()
    scaler = Autoscaler([Pool("small", RULE, spec)], pools, clock=clock)
    scaler.apply(busy(10, queued=50))
    clock.now = 60.0
    scaler.apply(busy(0))
    assert (pools.running, pools.ending) == (["small-1"], ["small-2"])
    scaler.apply(busy(10, queued=50))
    assert pools.running == ["small-1", "small-3"]
    clock.now = 120.0
    pools.ending.clear()
    scaler.apply(busy(0))
    scaler.apply(busy(10, queued=50))
    assert pools.running == ["small-1", "small-2"]


def test_a_model_without_numbers_stays_as_it_is() -> None:
    pools = Pools("small-1")
    Autoscaler([Pool("small", RULE, spec)], pools, clock=Clock()).apply({})
    assert pools.running == ["small-1"]


def test_each_reading_is_given_once() -> None:
    with Reader(lambda: busy(1), every_s=0.001) as reader:
        assert eventually(reader.take) == busy(1)


def test_a_broker_that_is_away_is_said_once_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, back = 0, threading.Event()

    def read() -> Mapping[str, Numbers]:
        nonlocal asked
        asked += 1
        if back.is_set():
            return busy(1)
        raise BrokerUnavailable("it can't be reached")

    with Reader(read, every_s=0.001) as reader:
        eventually(lambda: asked > 3)
        assert reader.take() is None
        back.set()
        assert eventually(reader.take) == busy(1)
    said = [record.message for record in caplog.records]
    assert said == ["the pools keep their size: it can't be reached"]
