"""How many processes a pool should have, and the laws that hold for every load."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from producer.scaling import (
    STARTS_S,
    Due,
    Load,
    Rule,
    State,
    begun,
    needed,
    resized,
    seen,
    wanted,
)

RULE = Rule(concurrency=10, latency_s=1.0, wait_s=10.0, at_most=8, cooldown_s=30.0)

dues = st.lists(
    st.builds(Due, requests=st.integers(1, 1000), in_s=st.floats(-100.0, 1000.0)), max_size=5
).map(tuple)

loads = st.builds(
    Load,
    queued=st.integers(0, 100_000),
    in_flight=st.integers(0, 500),
    oldest_age_s=st.none() | st.floats(0.0, 1e6),
    due=dues,
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    at_least = draw(st.integers(1, 5))
    return Rule(
        concurrency=draw(st.integers(1, 200)),
        latency_s=draw(st.floats(0.0, 100.0)),
        wait_s=draw(st.floats(0.1, 100.0)),
        at_least=at_least,
        at_most=draw(st.integers(at_least, 50)),
        cooldown_s=draw(st.floats(0.1, 100.0)),
    )


def history(rule: Rule, steps: list[tuple[float, Load]]) -> list[tuple[float, State]]:
    """A pool that is always given what it wants, and its states after each step."""
    now = 0.0
    state = begun(rule, rule.at_least, now)
    states = []
    for gap, load in steps:
        now += gap
        state = seen(state, load, now)
        state = resized(state, wanted(state, now), now)
        states.append((now, state))
    return states


steps = st.lists(st.tuples(st.floats(0.0, 60.0), loads), min_size=1, max_size=30)


@given(rules(), loads, st.integers(0, 60), st.floats(0.0, 1e6))
def test_what_is_wanted_is_within_the_bounds_and_never_nothing(
    rule: Rule, load: Load, processes: int, now: float
) -> None:
    found = wanted(State(rule, processes, load), now)
    assert 1 <= rule.at_least <= found <= rule.at_most


@given(rules(), loads, st.integers(1, 10_000), st.integers(0, 100))
def test_more_to_do_never_needs_less(rule: Rule, load: Load, more: int, calls: int) -> None:
    heavier = replace(load, queued=load.queued + more, in_flight=load.in_flight + calls)
    assert needed(heavier, rule) >= needed(load, rule)


@given(rules(), loads)
def test_spare_room_never_needs_less(rule: Rule, load: Load) -> None:
    assert needed(load, rule, 0.8) >= needed(load, rule)


@given(rules(), steps)
def test_a_pool_does_not_shrink_within_its_cooldown_of_growing(
    rule: Rule, steps: list[tuple[float, Load]]
) -> None:
    grown_at, last = 0.0, rule.at_least
    for now, state in history(rule, steps):
        if state.processes < last:
            assert now - grown_at >= rule.cooldown_s
        elif state.processes > last:
            grown_at = now
        last = state.processes


@given(rules(), steps, loads)
def test_a_load_that_stays_the_same_is_settled_after_one_cooldown(
    rule: Rule, steps: list[tuple[float, Load]], load: Load
) -> None:
    *_, (now, state) = history(rule, steps)
    # Growing is by what is full, which is seen anew at each size: at most at_most times.
    sizes = []
    for _ in range(rule.at_most + 4):
        now += 1.01 * rule.cooldown_s
        state = seen(state, load, now)
        state = resized(state, wanted(state, now), now)
        sizes.append(state.processes)
    assert sizes[-1] == sizes[-2] == sizes[-3]


@given(rules(), steps)
def test_what_is_remembered_is_bounded(rule: Rule, steps: list[tuple[float, Load]]) -> None:
    for _, state in history(rule, steps):
        assert len(state.peaks) <= rule.at_most + 1


def test_a_backlog_grows_a_full_pool_at_once() -> None:
    state = seen(begun(RULE, 1, 0.0), Load(queued=200, in_flight=10), 1.0)
    # 10 calls in flight, and 200 of one second within ten: 20 places more.
    assert wanted(state, 1.0) == 3


def test_what_waited_too_long_gets_a_place_at_once() -> None:
    state = seen(begun(RULE, 1, 0.0), Load(queued=50, in_flight=10, oldest_age_s=10.0), 1.0)
    assert wanted(state, 1.0) == 6


def test_calls_longer_than_the_wait_are_not_waited_behind() -> None:
    slow = replace(RULE, latency_s=20.0)
    assert needed(Load(queued=50, in_flight=10), slow) == 6


def test_short_calls_are_bound_by_the_processor() -> None:
    fast = replace(RULE, concurrency=1000, latency_s=0.001)
    assert needed(Load(queued=60_000, in_flight=100), fast) == 4


def test_a_pool_that_has_room_does_not_grow() -> None:
    """What waits while workers have room waits for a quota, or for an endpoint that is down."""
    held_up = seen(begun(RULE, 2, 0.0), Load(queued=5000, in_flight=3, oldest_age_s=99.0), 1.0)
    assert wanted(held_up, 1.0) == 2


def test_a_pool_shrinks_when_its_cooldown_is_over() -> None:
    state = resized(begun(RULE, 1, 0.0), 5, 0.0)
    state = seen(state, Load(0, 0), 29.0)
    assert wanted(state, 29.0) == 5
    assert wanted(seen(state, Load(0, 0), 31.0), 31.0) == 1


def test_a_pool_does_not_shrink_to_what_would_be_full_again() -> None:
    state = seen(begun(RULE, 4, 0.0), Load(0, 29), 60.0)
    assert needed(state.load, RULE) == 3
    assert wanted(state, 60.0) == 4
    assert wanted(seen(state, Load(0, 23), 120.0), 120.0) == 3


def test_a_short_lull_does_not_shrink_a_pool() -> None:
    state = begun(RULE, 4, 0.0)
    for now in range(0, 200, 10):
        busy = Load(0, 38) if now % 20 == 0 else Load(0, 0)
        state = seen(state, busy, float(now))
        assert wanted(state, float(now)) == 4


@given(rules(), loads, dues)
def test_a_deadline_never_needs_less_and_a_nearer_one_never_needs_less(
    rule: Rule, load: Load, due: tuple[Due, ...]
) -> None:
    found = needed(replace(load, due=due), rule)
    assert found >= needed(replace(load, due=()), rule)
    nearer = tuple(replace(each, in_s=each.in_s / 2) for each in due)
    assert needed(replace(load, due=nearer), rule) >= found


@given(rules(), loads)
def test_what_is_too_late_needs_nobody(rule: Rule, load: Load) -> None:
    late = tuple(replace(each, in_s=min(0.0, each.in_s)) for each in load.due)
    assert needed(replace(load, due=late), rule) == needed(replace(load, due=()), rule)


@given(
    in_flight=st.integers(0, 500),
    requests=st.integers(1, 1000),
    in_s=st.floats(STARTS_S + 0.1, 1000.0),
    latency_s=st.floats(0.1, 100.0),
    concurrency=st.integers(1, 200),
)
def test_what_has_a_deadline_is_called_before_it_by_as_many_as_are_needed(
    in_flight: int, requests: int, in_s: float, latency_s: float, concurrency: int
) -> None:
    rule = Rule(concurrency, latency_s, wait_s=1e9, at_least=0, at_most=10_000)
    load = Load(requests, in_flight, due=(Due(requests, in_s),))
    # What is called now keeps its places; the others come once their processes have started, and
    # each calls one after the other.
    places = needed(load, rule) * concurrency - in_flight
    begins_s = STARTS_S + (math.ceil(requests / places) - 1) * latency_s
    assert begins_s < in_s + 1e-6
