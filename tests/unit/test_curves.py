"""Cost-quality curves of two models and of many, by laws and by small examples."""

from random import Random
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router_worker.learned.curves import (
    Floats,
    difference,
    length_score,
    oracle_score,
    pair_curve,
    pair_measures,
)
from router_worker.learned.sweep import savings, sweep

Pair: TypeAlias = tuple[Floats, Floats, Floats]

ROW = st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 1))


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Return scores (with many ties), weak and strong, where strong is better on the whole."""
    rows = draw(st.lists(ROW, min_size=1, max_size=30))
    score, weak, strong = np.array(rows, float).T
    assume(strong.sum() > weak.sum())
    return score, weak, strong


def test_small_example_by_hand() -> None:
    # The first call recovers the whole gap, the second gains nothing, the third loses, the last
    # wins back: PGR is 0, 1, 1, 0, 1 at shares 0, 1/4, 2/4, 3/4, 1.
    curve = pair_curve([4, 3, 2, 1], [0, 1, 1, 0], [1, 1, 0, 1])
    assert curve.recovered.tolist() == [0, 1, 1, 0, 1]
    assert curve.apgr == pytest.approx((0.5 + 1 + 0.5 + 0.5) / 4)
    assert curve.cpt(0.5) == pytest.approx(1 / 8)
    assert curve.cpt(0.8) == pytest.approx(1 / 5)
    assert (curve.cpt(0), curve.cpt(1)) == (0, 1 / 4)


@given(pairs())
def test_no_order_beats_the_oracle(rows: Pair) -> None:
    score, weak, strong = rows
    best = pair_curve(oracle_score(weak, strong), weak, strong).apgr
    assert pair_curve(score, weak, strong).apgr <= best + 1e-12


@given(pairs(), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(rows: Pair, random: Random) -> None:
    score, weak, strong = rows
    order = list(range(len(score)))
    random.shuffle(order)
    curve, shuffled = pair_curve(*rows), pair_curve(score[order], weak[order], strong[order])
    assert np.allclose(curve.shares, shuffled.shares)
    assert np.allclose(curve.recovered, shuffled.recovered)


@given(pairs())
def test_rising_transform_of_the_score_changes_nothing(rows: Pair) -> None:
    score, weak, strong = rows
    assert pair_curve(np.exp(score) - 7, weak, strong).apgr == pair_curve(*rows).apgr


@given(pairs())
def test_reversed_score_is_as_bad_as_the_score_is_good(rows: Pair) -> None:
    score, weak, strong = rows
    both = pair_curve(score, weak, strong).apgr + pair_curve(-score, weak, strong).apgr
    assert both == pytest.approx(1)


@given(pairs())
def test_constant_score_is_a_straight_line(rows: Pair) -> None:
    _, weak, strong = rows
    curve = pair_curve(np.ones(len(weak)), weak, strong)
    assert curve.apgr == 0.5
    assert curve.cpt(0.8) == pytest.approx(0.8)


@given(pairs())
def test_tie_is_worth_the_mean_of_its_orders(rows: Pair) -> None:
    score, weak, strong = rows
    rng = np.random.default_rng(0)
    orders = [score + rng.uniform(0, 0.5, len(score)) for _ in range(2)]
    # Each order and its reverse within the ties: their mean is exactly what the tie is worth.
    turned = [score + 0.5 - (order - score) for order in orders]
    values = [pair_curve(each, weak, strong).apgr for each in orders + turned]
    assert np.mean(values) == pytest.approx(pair_curve(score, weak, strong).apgr)


@given(pairs(), st.floats(0, 1))
def test_threshold_is_the_first_point_that_recovers_so_much(rows: Pair, wanted: float) -> None:
    curve = pair_curve(*rows)
    share = curve.cpt(wanted)
    assert np.interp(share, curve.shares, curve.recovered) == pytest.approx(wanted, abs=1e-9)
    before = np.linspace(0, share, 50)[:-1]
    assert (np.interp(before, curve.shares, curve.recovered) <= wanted + 1e-9).all()


def test_random_order_is_worth_one_half_on_average() -> None:
    rng = np.random.default_rng(1)
    weak, strong = rng.integers(0, 2, 50), np.ones(50)
    values = [pair_curve(rng.random(50), weak, strong).apgr for _ in range(2_000)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.01)


def test_intervals_hold_the_value_and_are_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(2)
    weak = rng.integers(0, 2, 400)
    strong = np.maximum(weak, rng.integers(0, 2, 400))
    score = strong - weak + rng.normal(0, 1, 400)
    one, two = (pair_measures(score, weak, strong, np.random.default_rng(3)) for _ in range(2))
    assert one == two
    assert one.apgr.value == pair_curve(score, weak, strong).apgr
    for each in (one.apgr, one.cpt_50, one.cpt_80):
        assert each.low < each.value < each.high
    more = difference(score, np.zeros(400), weak, strong, np.random.default_rng(3))
    assert more.value == pytest.approx(one.apgr.value - 0.5)
    assert 0 < more.low < more.high


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(100):
        score = rng.random(200)
        weak = rng.integers(0, 2, 200)
        found = pair_measures(score, weak, np.ones(200), rng, resamples=100).apgr
        covered += found.low <= 0.5 <= found.high
    assert covered >= 85


@pytest.mark.parametrize(
    ("score", "weak", "strong", "what"),
    [
        ([1, 2], [0], [1], "lengths differ"),
        ([1, float("nan")], [0, 0], [1, 1], "not a finite number"),
        ([1, 2], [1, 1], [1, 0], "not better than the weak one"),
        ([], [], [], "not better than the weak one"),
    ],
)
def test_refuses_what_has_no_curve(
    score: list[float], weak: list[int], strong: list[int], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        pair_curve(score, weak, strong)
    with pytest.raises(ValueError, match="not from 0 to 1"):
        pair_curve([1], [0], [1]).cpt(1.5)


def test_direction_of_length_comes_from_the_training_rows() -> None:
    prompts = ["a", "bb", "ccc"]
    rising = length_score(prompts, [1, 1, 0], [1, 1, 1], ["x", "yy"])
    falling = length_score(prompts, [0, 1, 1], [1, 1, 1], ["x", "yy"])
    assert rising.tolist() == [1, 2]
    assert falling.tolist() == [-1, -2]


def test_sweep_goes_from_quality_at_any_price_to_the_cheapest() -> None:
    predicted = [[0.2, 0.9], [0.8, 0.9], [0.9, 0.1]]
    swept = sweep(predicted, predicted, [1, 10])
    assert swept.taken[0].tolist() == [1, 1, 0]
    assert swept.taken[-1].tolist() == [0, 0, 0]
    assert (np.diff(swept.cost.mean(axis=1)) <= 0).all()
    # Somewhere between, only the row where it gains much goes to the dear model.
    assert [1, 0, 0] in swept.taken.tolist()


@given(st.integers(0, 2**32 - 1))
def test_perfect_prediction_saves_and_gains(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 2, (40, 3)).astype(float)
    found = savings(scores, scores, [1, 2, 4], rng, resamples=5)
    assert found.gained.value >= 0
    # The oracle gets at least the best model's quality from cheaper ones where they are right.
    means = scores.mean(axis=0)
    assert means[found.best] == means.max()
    assert found.saved.value >= 0
    if found.best == 2:  # the dearest: each row's cheapest right model costs no more than it
        assert found.gained.value == pytest.approx(scores.max(axis=1).mean() - means.max())


def test_prediction_of_nothing_gains_nothing() -> None:
    scores = np.array([[0.0, 1.0], [1.0, 1.0]] * 20)
    found = savings(np.full((40, 2), 0.5), scores, [1, 2], np.random.default_rng(0), resamples=50)
    assert (found.best, found.saved.value, found.gained.value) == (1, 0, 0)


def test_savings_by_hand() -> None:
    # Half of the rows need the dear model, and that is known.
    scores = np.array([[0.0, 1.0], [1.0, 1.0]] * 20)
    found = savings(scores, scores, [1, 4], np.random.default_rng(0), resamples=200)
    assert found.saved.value == pytest.approx(1 - 2.5 / 4)
    assert found.saved.low < found.saved.value < found.saved.high
    assert found.gained.value == 0


@pytest.mark.parametrize(
    ("predicted", "scores", "costs", "what"),
    [
        ([[1, 1]], [[1]], [1, 1], "not N x M"),
        ([[1, 1]], [[1, 1]], [1], "costs are"),
        ([[1, 1]], [[1, 1]], [1, -1], "negative"),
        ([[1, 1]], [[1, 1]], [0, 0], "nothing to save"),
    ],
)
def test_savings_refuse_what_does_not_fit(
    predicted: list[list[float]], scores: list[list[float]], costs: list[float], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        savings(predicted, scores, costs, np.random.default_rng(0))
