"""The simulation behind `modelyard plan`: queueing theory, the real policies, and the least."""

import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_workers.endpoints import balancer
from modelyard import holdings
from modelyard.catalog import Breaker, Quota, Retry
from modelyard.quota import Meter, admit
from producer.output import UsageError
from producer.plan_command import read_times
from producer.plan_endpoints import REFUSED_S, Weather
from producer.plan_figures import Figures, percentile
from producer.plan_latency import Lognormal, Observed
from producer.plan_policies import (
    BATCH_PATIENCE_S,
    LONGEST_PAUSE_S,
    PATIENCE_S,
    Line,
    Quotas,
    Scope,
)
from producer.plan_search import FULL, Slo, least, length, rate_per_s, slo, time_s
from producer.plan_simulation import Simulation
from producer.plan_station import Station, Traffic

NO_RETRY = Retry(calls=1)
PATIENT = Retry(calls=3, base_s=0.0)
DOWN = Weather(1.0)
NEVER = Breaker(failures=1_000_000)
"""A breaker that does not open."""


class Exponential:
    """The latency for which theory has a formula."""

    mean_s = 1.0

    def draw(self, rng: Random) -> float:
        return rng.expovariate(1.0)


def run(station: Station, processes: int, rate: float, requests: int, **traffic: Any) -> Figures:
    return Simulation(
        [station],
        [processes],
        Traffic(rate, yard_s=0.0, **traffic),
        requests=requests,
        warm_up=requests // 10,
    ).run()


def erlang_c(servers: int, load: float) -> float:
    """The share of requests that wait. https://en.wikipedia.org/wiki/Erlang_(unit)"""
    blocked = 1.0
    for server in range(1, servers + 1):
        blocked = load * blocked / (server + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


@settings(max_examples=12, deadline=None)
@given(servers=st.integers(1, 12), busy=st.floats(0.3, 0.8))
def test_the_wait_is_that_of_theory(servers: int, busy: float) -> None:
    load = servers * busy
    station = Station("m", 1, Exponential(), cpu_s=0.0)
    [found] = run(station, servers, load, 40_000).stations
    wanted = erlang_c(servers, load) / (servers - load)
    assert found.waited_mean_s == pytest.approx(wanted, rel=0.25, abs=0.02)
    assert found.uses[0].used == pytest.approx(busy, rel=0.05)


@given(
    limit=st.sampled_from([1.0, 30.0, 600.0]),
    share=st.sampled_from([1.0, 0.9, 0.2]),
    asked=st.lists(st.tuples(st.floats(0.0, 9.0), st.integers(1, 50)), max_size=50),
)
def test_a_quota_lets_through_what_the_workers_meter_does(
    limit: float, share: float, asked: list[tuple[float, int]]
) -> None:
    meter, line = Meter.per_minute(limit), Line(limit, share)
    meter = meter.share(share) if share < 1 else meter
    arrival, now = 0.0, 0.0
    for gap, amount in asked:
        now += gap
        delay, arrival = admit(arrival, meter, amount, now)
        assert max(0.0, line.delay_s(amount, now)) == pytest.approx(delay, rel=1e-9, abs=1e-9)
        line.take(amount, now)


def test_calls_wait_for_quota_as_long_as_in_the_workers() -> None:
    assert PATIENCE_S == balancer.PATIENCE_S
    assert BATCH_PATIENCE_S == balancer.BATCH_PATIENCE_S
    assert LONGEST_PAUSE_S == holdings.LONGEST_PAUSE_S


def test_the_same_input_gives_the_same_output() -> None:
    station = Station("m", 4, Lognormal(1.0), Retry(calls=2), weather=[Weather(0.1)])
    first, again = (run(station, 2, 6.0, 3000) for _ in range(2))
    assert first.times_s == again.times_s
    assert first.stations == again.stations


def test_a_call_that_fails_is_made_again_and_then_goes_to_the_next_model() -> None:
    stations = [
        Station("down", 100, Observed([1.0]), PATIENT, weather=[DOWN], breaker=NEVER),
        Station("up", 100, Observed([2.0]), NO_RETRY),
    ]
    found = Simulation(stations, [1, 1], Traffic(1.0, yard_s=0.0), requests=200, warm_up=0).run()
    down, up = found.stations
    assert (down.calls, down.answers, up.calls, up.answers) == (3.0, 0.0, 1.0, 1.0)
    assert found.percentile(50) == pytest.approx(5.0, abs=0.01)
    assert found.unanswered == 0.0


def test_what_no_model_answers_takes_for_ever() -> None:
    found = run(Station("m", 10, Observed([1.0]), NO_RETRY, weather=[DOWN]), 1, 1.0, 100)
    assert found.unanswered == 1.0
    assert found.percentile(50) == math.inf


def test_a_call_ends_with_its_timeout() -> None:
    station = Station("m", 10, Observed([9.0]), NO_RETRY, timeout_s=2.0, breaker=NEVER)
    found = run(station, 1, 1.0, 100)
    assert found.unanswered == 1.0
    assert found.stations[0].held_s == pytest.approx(2.0, abs=0.01)


def test_the_interactive_lane_waits_less_and_the_other_is_not_starved() -> None:
    station = Station("m", 1, Observed([1.0]), cpu_s=0.0)
    found = run(station, 1, 1.3, 2000, batch=0.5)
    batch = sorted(set(found.times_s) - set(found.interactive_s))
    assert percentile(found.interactive_s, 95) < 10.0 < percentile(batch, 50)
    assert found.judged_s is found.interactive_s


def test_a_process_has_one_interpreter() -> None:
    station = Station("m", 1_000_000, Observed([0.001]))
    found = run(station, 1, 1200.0, 20_000)
    assert found.stations[0].uses[1].used == pytest.approx(0.8, rel=0.05)
    assert found.bottleneck.what == "CPU"
    # Twice what a process can do: the wait grows with every request.
    assert run(station, 1, 3000.0, 20_000).percentile(50) > 1.0


def limited(**quota: Any) -> Station:
    return Station(
        "m",
        1000,
        Observed([1.0]),
        quotas=lambda: Quotas([[Scope("key", Quota(interactive_share=0.0, **quota))]]),
    )


def test_a_quota_bounds_what_any_number_of_processes_do() -> None:
    found = run(limited(requests_per_min=600), 50, 20.0, 4000)
    assert found.percentile(95) > 60.0
    assert found.bottleneck.what == "quota of requests (key)"
    assert found.bottleneck.used > 0.95


def test_a_quota_with_room_changes_nothing() -> None:
    found = run(limited(requests_per_min=6000, tokens_per_min=1e6, concurrency=50), 1, 5.0, 2000)
    assert found.percentile(99) < 1.1
    used = {use.what: use.used for use in found.stations[0].uses}
    assert used["quota of requests (key)"] == pytest.approx(0.05, rel=0.1)
    assert used["quota of calls (key)"] == pytest.approx(0.1, rel=0.1)


def test_calls_beyond_a_quota_of_calls_wait() -> None:
    assert run(limited(concurrency=4), 1, 3.0, 1000).percentile(95) > 1.2
    assert run(limited(concurrency=40), 1, 3.0, 1000).percentile(95) < 1.1


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(0.5, 60.0),
    mean_s=st.floats(0.1, 3.0),
    concurrency=st.integers(1, 20),
    slack=st.floats(1.1, 4.0),
)
def test_the_least_holds_and_one_process_fewer_does_not(
    rate: float, mean_s: float, concurrency: int, slack: float
) -> None:
    station = Station("m", concurrency, Lognormal(mean_s, 0.3))
    wanted = Slo(90.0, slack * mean_s * 1.5)
    found = least([station], Traffic(rate), wanted)
    assert found.ok
    assert wanted.holds(found.figures)
    [processes] = found.processes
    assert rate * mean_s < 1.02 * processes * concurrency
    if processes > 1:
        fewer = Simulation(
            [station], [processes - 1], Traffic(rate), requests=20_000, warm_up=2_000
        ).run()
        load = rate * found.figures.stations[0].held_s / (processes - 1) / concurrency
        assert not wanted.holds(fewer) or load > 0.98 * FULL


def test_a_promise_that_calls_alone_break_is_held_by_no_number_of_processes() -> None:
    assert not least([Station("m", 10, Observed([5.0]))], Traffic(1.0), Slo(95.0, 4.0)).ok


def test_each_model_gets_as_few_as_it_can_do_with() -> None:
    stations = [
        Station("first", 10, Observed([2.0]), NO_RETRY, weather=[Weather(0.2)]),
        Station("second", 10, Observed([2.0]), NO_RETRY),
    ]
    first, second = least(stations, Traffic(20.0), Slo(95.0, 60.0)).processes
    assert first >= 5 > second


def test_what_people_write_is_read() -> None:
    assert slo("p95<60s") == Slo(95.0, 60.0)
    assert slo(" p99.9 < 800ms ") == Slo(99.9, 0.8)
    assert [time_s("2m"), time_s("1.5h")] == [120.0, 5400.0]
    assert [rate_per_s("50/s"), rate_per_s("300/min"), rate_per_s("86400/d")] == [50.0, 5.0, 1.0]


@pytest.mark.parametrize(
    "written", ["p95", "95<60s", "p95<60", "p0<1s", "p95<0s", "p95>1s", f"p95<{'9' * 400}s"]
)
def test_what_is_no_promise_is_refused(written: str) -> None:
    with pytest.raises(UsageError):
        slo(written)


@pytest.mark.parametrize("written", ["50", "0/s", "-1/s", "50/y", "fast", "9" * 400 + "/s"])
def test_what_is_no_rate_is_refused(written: str) -> None:
    with pytest.raises(UsageError):
        rate_per_s(written)


def test_a_load_beyond_all_bounds_has_a_length_all_the_same() -> None:
    requests, warm_up = length([Station("m", 10, Observed([1e200]))], Traffic(1e200))
    assert 0 < warm_up < requests


@pytest.mark.parametrize("line", [b"\xff\xfe", b"inf", b"-1", b"soon"])
def test_a_line_that_is_no_time_is_told(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "times").write_bytes(b"1.5\n" + line)
    with pytest.raises(UsageError, match=r"times:2: .* is no time in seconds"):
        read_times(tmp_path / "times")


def test_a_promise_is_about_the_batch_lane_where_there_is_no_other() -> None:
    only_batch = run(Station("m", 10, Observed([1.0])), 1, 1.0, 100, batch=1.0)
    assert only_batch.interactive_s == []
    assert only_batch.judged_s == only_batch.times_s


def figures(stations: list[Station], processes: list[int], traffic: Traffic, seed: int) -> Any:
    found = Simulation(stations, processes, traffic, requests=3000, warm_up=300, seed=seed).run()
    times = [found.percentile(percent) for percent in (50, 95, 99)]
    return [*times, *(use.used for each in found.stations for use in each.uses)]


def roomy() -> Quotas:
    scopes = [Scope("a", Quota(requests_per_min=6000))], [Scope("b", Quota(concurrency=40))]
    return Quotas(scopes)


def test_without_failures_the_figures_are_those_from_before_there_were_breakers() -> None:
    two = Lognormal(2.0)
    one = figures([Station("m", 10, two)], [3], Traffic(10.0, 1300), 0)
    assert one == pytest.approx([1.665198, 4.489261, 6.573969, 0.652414, 0.002187], abs=1e-6)
    pair = [Station("m", 10, two), Station("n", 10, Lognormal(1.0))]
    found = figures(pair, [3, 1], Traffic(12.0, 1300, 0.4), 5)
    assert found[:5] == pytest.approx([1.681963, 4.510097, 5.901308, 0.804986, 0.002676], abs=1e-6)
    limited = [Station("m", 10, two, quotas=roomy)]
    found = figures(limited, [4], Traffic(10.0, 1300, 0.3), 7)
    assert found[:4] == pytest.approx([1.680085, 4.578616, 6.52997, 0.494741], abs=1e-6)
    # Nor does it matter whether they are watched for failures that do not come.
    limited[0] = Station("m", 10, two, quotas=roomy, weather=[Weather(limit_per_min=1e9)])
    assert figures(limited, [4], Traffic(10.0, 1300, 0.3), 7)[:4] == found[:4]


WEATHER = st.builds(
    Weather,
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([None, None, 30.0, 300.0]),
)


@st.composite
def troubled(draw: st.DrawFn) -> list[Station]:
    """One model or two, with endpoints that fail and have limits, and answers that do not do."""
    return [
        Station(
            name,
            draw(st.integers(1, 10)),
            Lognormal(draw(st.floats(0.1, 2.0)), 0.5),
            Retry(
                calls=draw(st.integers(1, 4)),
                base_s=draw(st.floats(0.0, 1.0)),
                patience_s=draw(st.sampled_from([0.0, 5.0, 60.0])),
            ),
            timeout_s=draw(st.sampled_from([3.0, 60.0])),
            weather=draw(st.lists(WEATHER, max_size=3)),
            escalates=draw(st.sampled_from([0.0, 0.3])),
            breaker=Breaker(failures=draw(st.integers(1, 5)), cooldown_s=draw(st.floats(0.5, 10))),
        )
        for name in draw(st.sampled_from(["m", "mn"]))
    ]


@settings(max_examples=30, deadline=None)
@given(troubled(), st.integers(1, 4), st.floats(0.5, 20.0), st.sampled_from([0.0, 0.5]))
def test_every_request_ends_once_whatever_fails(
    stations: list[Station], processes: int, rate: float, batch: float
) -> None:
    found = Simulation(
        stations,
        [processes] * len(stations),
        Traffic(rate, batch=batch),
        requests=600,
        warm_up=100,
    ).run()
    assert len(found.times_s) == 500
    # Each answer is a draft or the end of a request; a draft may be that, too, at last.
    ended = 1.0 - found.unanswered
    answers = sum(each.answers for each in found.stations)
    drafts = sum(each.drafts for each in found.stations)
    assert answers - drafts <= ended + 1e-9 <= answers + 2e-9
    for each in found.stations:
        assert each.answers + each.limited <= each.calls + 1e-9
        assert all(0.0 <= use.used <= 1.0 + 1e-9 for use in each.uses if use.what != "CPU")


@settings(max_examples=25, deadline=None)
@given(
    failures=st.sampled_from([0.0, 0.05, 0.2]),
    endpoints=st.integers(1, 2),
    rate=st.floats(1.0, 20.0),
    processes=st.integers(1, 6),
    escalates=st.sampled_from([0.0, 0.3]),
)
def test_one_process_more_makes_no_wait_longer_but_for_noise(
    failures: float, endpoints: int, rate: float, processes: int, escalates: float
) -> None:
    stations = [
        Station(
            name,
            5,
            Lognormal(1.0, 0.4),
            weather=[Weather(failures)] * endpoints,
            escalates=escalates,
        )
        for name in "mn"
    ]

    def p95(some: int) -> float:
        run = Simulation(stations, [some, some], Traffic(rate), requests=4000, warm_up=400)
        return run.run().percentile(95)

    assert p95(processes + 1) <= 1.15 * p95(processes) + 0.5


def test_an_endpoint_that_is_down_costs_a_few_calls_and_then_nothing() -> None:
    def both(breaker: Breaker) -> Figures:
        weather = [DOWN, Weather()]
        return run(
            Station("m", 50, Observed([1.0]), weather=weather, breaker=breaker), 1, 5.0, 2000
        )

    watched, unwatched = both(Breaker()), both(NEVER)
    assert watched.unanswered == 0.0
    assert watched.stations[0].calls == pytest.approx(1.0, abs=0.05)
    assert unwatched.stations[0].calls > 1.4
    assert watched.percentile(95) < 1.1 < unwatched.percentile(95)


def test_a_model_that_is_down_is_left_to_the_next_and_called_now_and_then() -> None:
    stations = [
        Station("down", 50, Observed([1.0]), PATIENT, weather=[DOWN]),
        Station("up", 50, Observed([1.0])),
    ]
    found = Simulation(stations, [1, 1], Traffic(5.0, yard_s=0.0), requests=2000, warm_up=0).run()
    down, up = found.stations
    assert 0.0 < down.calls < 0.1
    assert (down.answers, up.answers, found.unanswered) == (0.0, 1.0, 0.0)


def test_what_meets_a_limit_waits_for_the_minutes_end_or_goes_on() -> None:
    def taken(patience_s: float) -> Figures:
        retry = Retry(patience_s=patience_s)
        limited = Station(
            "limited", 50, Observed([0.1]), retry, weather=[Weather(limit_per_min=60.0)]
        )
        stations = [limited, Station("next", 50, Observed([0.1]))]
        return Simulation(
            stations, [1, 1], Traffic(2.0, yard_s=0.0), requests=1200, warm_up=0
        ).run()

    hasty, patient = taken(0.0), taken(120.0)
    # 60 of 120 in a minute; of the others few hear so themselves.
    assert hasty.stations[0].answers == pytest.approx(0.5, abs=0.06)
    assert 0.0 < hasty.stations[0].limited < 0.1
    assert hasty.stations[1].answers == pytest.approx(0.5, abs=0.06)
    assert hasty.percentile(95) < 0.5 + REFUSED_S
    assert patient.stations[0].answers > hasty.stations[0].answers - 0.06
    assert patient.percentile(95) > 5.0


def test_what_is_not_accepted_is_paid_for_twice() -> None:
    stations = [
        Station("cheap", 50, Observed([1.0]), escalates=0.25),
        Station("dear", 50, Observed([2.0]), escalates=0.9),
    ]
    found = Simulation(stations, [1, 1], Traffic(5.0, yard_s=0.0), requests=4000, warm_up=0).run()
    cheap, dear = found.stations
    assert (cheap.answers, dear.drafts) == (1.0, 0.0)  # the last answer stands, whatever it is
    assert cheap.drafts == dear.answers == pytest.approx(0.25, abs=0.03)
    assert found.percentile(50) == pytest.approx(1.0, abs=0.01)
    assert found.percentile(95) == pytest.approx(3.0, abs=0.01)


def test_what_waits_for_ever_for_a_model_that_is_down_is_given_up() -> None:
    found = run(Station("m", 50, Observed([1.0]), weather=[DOWN]), 1, 5.0, 400)
    assert found.hopeless
    assert (found.unanswered, len(found.times_s)) == (1.0, 360)


def test_a_draft_stands_where_the_next_model_does_not_answer() -> None:
    stations = [
        Station("cheap", 50, Observed([1.0]), escalates=1.0),
        Station("down", 50, Observed([2.0]), NO_RETRY, weather=[DOWN], breaker=NEVER),
    ]
    found = Simulation(stations, [1, 1], Traffic(5.0, yard_s=0.0), requests=200, warm_up=0).run()
    assert found.unanswered == 0.0
    assert found.percentile(50) == pytest.approx(3.0, abs=0.01)
