"""Which endpoint comes first, by each way to balance."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from model_workers.endpoints.order import View, order
from modelyard.catalog import Balance, Endpoint


def endpoint(name: str, weight: float = 1.0, region: str | None = None) -> Endpoint:
    return Endpoint(base_url=f"http://{name}.test/v1", weight=weight, region=region)


A, B, C = endpoint("a"), endpoint("b"), endpoint("c")
SOME = [View(A), View(B), View(C)]


def first(
    views: list[View], how: Balance, *, sticky: str = "", region: str = "", seed: int = 0
) -> int:
    chance = random.Random(seed)
    draws = [chance.random() for _ in views]
    return order(views, how, sticky=sticky, region=region, draws=draws)[0]


def test_weighted_is_in_proportion_to_the_weights() -> None:
    views = [View(endpoint("a", 3.0)), View(endpoint("b", 1.0))]
    counts = Counter(first(views, "weighted", seed=seed) for seed in range(4000))
    assert 0.72 < counts[0] / 4000 < 0.78


def test_least_in_flight_counts_by_weight() -> None:
    views = [View(endpoint("a", 4.0), in_flight=7), View(B, in_flight=2)]
    assert first(views, "least_in_flight") == 0


def test_lowest_latency_counts_what_is_in_flight() -> None:
    assert first([View(A, latency_s=0.2), View(B, latency_s=0.5)], "lowest_latency") == 0
    views = [View(A, latency_s=0.2, in_flight=9), View(B, latency_s=0.5)]
    assert first(views, "lowest_latency") == 1


def test_a_slow_endpoint_is_tried_again_in_time() -> None:
    views = [View(A, latency_s=0.1), View(B, latency_s=5.0, latency_age_s=200)]
    assert first(views, "lowest_latency") == 1


def test_lowest_used() -> None:
    assert first([View(A, used=0.5), View(B, used=0.4)], "lowest_used") == 1


def test_a_session_stays_where_it_is_and_others_do_not_move_when_one_endpoint_goes() -> None:
    sessions = [f"session {number}" for number in range(300)]
    before = {each: first(SOME, "sticky", sticky=each, seed=1) for each in sessions}
    assert before == {each: first(SOME, "sticky", sticky=each, seed=2) for each in sessions}
    assert min(Counter(before.values()).values()) > 60
    without = SOME[:2]
    for each, was in before.items():
        if was != 2:
            assert first(without, "sticky", sticky=each) == was


def test_endpoints_of_this_region_come_first() -> None:
    views = [View(endpoint("a", region="us")), View(endpoint("b", region="eu")), View(C)]
    for seed in range(50):
        assert first(views, "weighted", region="eu", seed=seed) in {1, 2}
        assert first(views, "weighted", region="mars", seed=seed) == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.floats(0, 100), st.floats(0, 1e4), st.floats(0, 1)),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(
        ["weighted", "least_in_flight", "lowest_latency", "lowest_used", "sticky"],
    ),
    st.text(max_size=5),
)
def test_every_endpoint_is_in_the_order_once(
    some: list[tuple[int, float, float, float]], how: Balance, sticky: str
) -> None:
    views = [View(endpoint(f"e{at}"), n, s, age) for at, (n, s, age, _) in enumerate(some)]
    found = order(views, how, sticky=sticky, region="", draws=[draw for *_, draw in some])
    assert sorted(found) == list(range(len(views)))
