"""The sequential test: seldom wrong however often one looks, and soon right."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router_worker.experiments.sequential import Evidence, Running, mean_interval, share_interval

RUNS, STEPS, ALPHA = 2_000, 2_000, 0.05
Draw = Callable[[np.random.Generator], NDArray[np.float64]]


def bernoulli(share: float) -> Draw:
    return lambda rng: (rng.random(RUNS) < share).astype(float)


def seconds(mean: float, spread: float) -> Draw:
    """Lognormal, as latencies are: half of them far below the mean, some far over it."""
    return lambda rng: mean * rng.lognormal(-(spread**2) / 2, spread, RUNS)


def first_alarms(draw: Draw, bound: float, steps: int = STEPS) -> NDArray[np.float64]:
    """At which observation each run says that the mean is over the bound; inf if at none."""
    rng = np.random.default_rng(20261123)
    evidence, when = Evidence(bound, (RUNS,)), np.full(RUNS, np.inf)
    for step in range(1, steps + 1):
        evidence.add(draw(rng))
        when[evidence.is_over(ALPHA) & np.isinf(when)] = step
    return when


@pytest.mark.parametrize(
    ("draw", "bound"),
    [
        pytest.param(bernoulli(0.05), 0.05, id="errors of 5 %"),
        pytest.param(bernoulli(0.005), 0.005, id="errors of 0.5 %"),
        pytest.param(bernoulli(0.5), 0.5, id="errors of 50 %"),
        pytest.param(seconds(1.0, 1.0), 1.0, id="latencies"),
        pytest.param(seconds(1.0, 2.0), 1.0, id="latencies with a heavy tail"),
        pytest.param(lambda rng: 1.0 - rng.beta(7, 3, RUNS), 0.3, id="scores"),
        pytest.param(lambda rng: np.ones(RUNS), 1.0, id="always the bound"),
    ],
)
def test_of_treatments_at_their_bound_few_are_ever_taken_back(draw: Draw, bound: float) -> None:
    """With a look after each of 2,000 observations: at most alpha, plus what chance may add."""
    wrong = np.isfinite(first_alarms(draw, bound)).mean()
    assert wrong <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)


@pytest.mark.parametrize(
    ("draw", "bound", "within"),
    [
        pytest.param(bernoulli(1.0), 0.05, 5, id="everything fails"),
        pytest.param(bernoulli(0.5), 0.05, 20, id="half fails"),
        pytest.param(bernoulli(0.10), 0.05, 500, id="twice the errors"),
        pytest.param(seconds(2.0, 1.0), 1.0, 100, id="twice as slow"),
        pytest.param(seconds(1.2, 1.0), 1.0, 1_500, id="a fifth slower"),
        pytest.param(lambda rng: 1.0 - rng.beta(6, 4, RUNS), 0.3, 60, id="a score of 0.6 for 0.7"),
    ],
)
def test_of_treatments_beyond_it_nearly_all_are_soon(draw: Draw, bound: float, within: int) -> None:
    assert np.isfinite(first_alarms(draw, bound, within)).mean() >= 0.9


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.randoms())
def test_evidence_does_not_depend_on_the_order(observed: list[float], random: object) -> None:
    one, two = Evidence(0.3), Evidence(0.3)
    for value in observed:
        one.add(value)
    for value in sorted(observed):
        two.add(value)
    assert float(one.log_capital()) == pytest.approx(float(two.log_capital()), abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.01, 1))
def test_observations_within_the_bound_are_never_evidence(
    shares: list[float], bound: float
) -> None:
    evidence = Evidence(bound)
    for share in shares:
        evidence.add(share * bound)
    assert float(evidence.log_capital()) <= 1e-9
    assert not evidence.is_over(0.49)


def test_many_runs_are_as_each_alone() -> None:
    rng = np.random.default_rng(7)
    seen = rng.exponential(1.5, (50, 3))
    together, alone = Evidence(1.0, (3,)), [Evidence(1.0) for _ in range(3)]
    for row in seen:
        together.add(row)
        for evidence, value in zip(alone, row, strict=True):
            evidence.add(float(value))
    assert list(together.log_capital()) == pytest.approx([float(e.log_capital()) for e in alone])


def test_a_bound_of_0_is_broken_by_the_first_that_is_more() -> None:
    evidence = Evidence(0.0)
    evidence.add(0.0)
    assert not evidence.is_over(0.05)
    evidence.add(1.0)
    evidence.add(0.0)
    assert evidence.is_over(0.05)


def test_a_bound_of_everything_is_never_broken() -> None:
    evidence = Evidence(1.0)
    for _ in range(1_000):
        evidence.add(1.0)
    assert not evidence.is_over(0.05)


def test_a_bound_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Evidence(-0.1)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_running_figures_are_those_of_all_at_once(values: list[float]) -> None:
    running = Running()
    for value in values:
        running.add(value)
    assert running.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert running.variance == pytest.approx(np.var(values, ddof=1), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_the_interval_of_a_share_holds_at_all_times(share: float) -> None:
    rng = np.random.default_rng(11)
    runs, steps, missed = 300, 300, 0
    for _ in range(runs):
        total, held = 0.0, True
        for count, value in enumerate(rng.random(steps) < share, 1):
            total += value
            low, high = share_interval(count, total, ALPHA)
            held = held and low <= share <= high
        missed += not held
    assert missed / runs <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_interval_of_a_share_has_what_was_seen(count: int, share: float) -> None:
    low, high = share_interval(count, count * share, ALPHA)
    assert 0.0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1.0


def test_nothing_is_known_of_a_share_that_nobody_has_seen() -> None:
    assert share_interval(0, 0.0, ALPHA) == (0.0, 1.0)


def test_the_interval_of_a_mean_holds_once_there_are_some() -> None:
    rng = np.random.default_rng(13)
    runs, steps, missed = 300, 600, 0
    for _ in range(runs):
        running, held = Running(), True
        for count, value in enumerate(rng.exponential(2.0, steps), 1):
            running.add(value)
            bounds = mean_interval(running, ALPHA)
            if count >= 50 and bounds is not None:
                held = held and bounds[0] <= 2.0 <= bounds[1]
        missed += not held
    assert missed / runs <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


def test_there_is_no_interval_before_there_is_a_spread() -> None:
    running = Running()
    running.add(1.0)
    assert mean_interval(running, ALPHA) is None
    running.add(1.0)
    assert mean_interval(running, ALPHA) is None
