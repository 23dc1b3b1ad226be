"""The pure meters: what a minute holds, whatever comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard import holdings
from modelyard.quota import Meter, admit

LIMITS = st.sampled_from([1.0, 2.0, 3.0, 10.0, 60.0, 500.0])


@given(
    LIMITS,
    st.lists(
        st.tuples(st.floats(0.0, 5.0) | st.just(0.0), st.floats(0.0, 0.5)),
        min_size=1,
        max_size=200,
    ),
)
def test_no_minute_holds_more_than_the_limit_though_some_calls_take_longer_to_get_there(
    limit: float, gaps: list[tuple[float, float]]
) -> None:
    meter = Meter.per_minute(limit)
    arrival, now = 0.0, 1000.0
    times = []
    for gap, late in gaps:
        now += gap
        delay, arrival = admit(arrival, meter, 1, now)
        times.append(now + delay + late)
    times.sort()
    for at, first in enumerate(times):
        inside = [time for time in times[at:] if time < first + 60.0 - 1e-6]
        assert len(inside) <= limit


@given(LIMITS)
def test_who_asks_for_more_gets_nearly_all_of_it(limit: float) -> None:
    meter = Meter.per_minute(limit)
    arrival, count = 0.0, 0
    while arrival < 1000.0 + 600.0:
        _, arrival = admit(arrival, meter, 1, 1000.0)
        count += 1
    assert count >= 0.96 * 10 * limit


def test_an_amount_larger_than_a_burst_comes_when_that_could_and_others_wait_for_it() -> None:
    meter = Meter.per_minute(6000.0)
    delay, arrival = admit(0.0, meter, 1000, 50.0)
    assert delay == 0.0
    later, _ = admit(arrival, meter, 1, 50.0)
    assert later > 8.0


def test_a_share_is_slower_by_so_much() -> None:
    meter = Meter.per_minute(100.0)
    assert meter.share(0.5).interval_s == 2 * meter.interval_s
    assert meter.share(0.01).burst == 1.0


def test_a_pause_is_of_one_lane_and_ends_soon_however_long_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("modelyard.holdings.time.monotonic", lambda: now)
    monkeypatch.setattr(holdings, "_paused", {})
    both = ("model.a", "batch.model.a")
    holdings.pause("batch.model.a", 1.0)
    holdings.pause("batch.model.a", 900.0)
    holdings.pause("batch.model.a", 0.5)
    assert holdings.paused(both) == {"batch.model.a"}
    now += holdings.LONGEST_PAUSE_S - 0.1
    assert holdings.paused(both) == {"batch.model.a"}
    now += 0.2
    assert holdings.paused(both) == set()
