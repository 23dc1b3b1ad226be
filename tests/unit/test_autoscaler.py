"""Which processes are started and ended as the numbers change."""

import io
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from waiting import eventually

from modelyard.errors import BrokerUnavailable
from producer.autoscale import Autoscaler, Pool, Reader
from producer.children import ChildSpec
from producer.scale_numbers import Numbers
from producer.scaling import Rule
from producer.yard_log import logged_to


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


def test_a_pool_that_has_another_size_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "modelyard.yard")
    told: list[str] = []
    clock = Clock()
    scaler = Autoscaler(
        [Pool("small", RULE, spec)], Pools("small-1"), notice=told.append, clock=clock
    )
    scaler.apply(busy(10, queued=150))
    scaler.apply(busy(10, queued=150))
    assert told == ["small: 3 processes, 1 before: 150 wait, 10 in flight"]
    for clock.now in (60.0, 120.0):
        scaler.apply(busy(0))
    assert told[-1] == "small: 1 process, 3 before: 0 wait, 0 in flight"
    assert [record.getMessage() for record in caplog.records] == told


def test_a_terminal_hears_of_warnings_only_and_the_yard_s_log_of_all(tmp_path: Path) -> None:
    terminal = io.StringIO()
    handler, log = logging.StreamHandler(terminal), logging.getLogger("modelyard.yard")
    logging.getLogger().addHandler(handler)
    before = log.level
    try:
        with logged_to(tmp_path / "yard.log"):
            log.info("grown")
            log.warning("died")
    finally:
        logging.getLogger().removeHandler(handler)
    text = (tmp_path / "yard.log").read_text()
    assert "INFO modelyard.yard: grown" in text
    assert "WARNING modelyard.yard: died" in text
    assert terminal.getvalue() == "died\n"
    assert (log.level, handler.level) == (before, logging.NOTSET)
