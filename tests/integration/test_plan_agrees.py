"""What a plan's simulation says of a load, and what a real yard made of it.

Calls are compared, which no slow machine changes, and times only from below: no call is faster than
its provider.
"""

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from workers import Workers, own_yard

from modelyard.catalog import Model
from modelyard.catalog_file import load_catalog
from modelyard.testing import Reply
from producer.plan_endpoints import Weather
from producer.plan_figures import Figures
from producer.plan_latency import Observed
from producer.plan_simulation import Simulation
from producer.plan_station import Station, Traffic

CATALOG = """
models:
  - name: small
    provider: openai
    endpoints: [{base_url: "${FAKE_URL}", api_key: "${FAKE_KEY}"}]
    concurrency: 20
    retry: {calls: 2, base_s: 0.01, cap_s: 0.05}
    breaker: {failures: 1000}
  - name: down
    provider: openai
    endpoints: [{base_url: "${FAKE_URL}", api_key: "${FAKE_KEY}"}]
    concurrency: 20
    retry: {calls: 2, base_s: 0.01, cap_s: 0.05, patience_s: 2}
    breaker: {failures: 3, window_s: 9000, cooldown_s: 900, longest_s: 900}
  - name: limited
    provider: openai
    endpoints: [{base_url: "${FAKE_URL}", api_key: "${FAKE_KEY}"}]
    retry: {calls: 2, base_s: 0.01, cap_s: 0.05, patience_s: 2}
  - name: narrow
    provider: openai
    endpoints: [{base_url: "${FAKE_URL}", api_key: "${FAKE_KEY}"}]
    concurrency: 2
  - name: large
    provider: openai
    endpoints: [{base_url: "${FAKE_URL}", api_key: "${FAKE_KEY}"}]
    concurrency: 20
routes:
  default: {otherwise: [narrow]}
  both:
    otherwise: {models: [small, large], strategy: cascade, accept: {expression: "len(text) > 9"}}
"""
FAILS, ESCALATES = 0.3, 0.4


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with own_yard(tmp_path_factory.mktemp("plan"), catalog=CATALOG) as yard:
        yard.start_router()
        for model in ("small", "down", "limited", "narrow", "large"):
            yard.start_pool(model)
        yield yard


def model(yard: Workers, name: str) -> Model:
    return load_catalog(yard.folder / "catalog.yaml", yard.env).model(name)


def station(model: Model, latency_s: float, weather: Weather | None = None) -> Station:
    return Station(
        model.name,
        model.concurrency,
        Observed([latency_s]),
        model.retry,
        weather=[weather] if weather else [],
        breaker=model.breaker,
    )


def simulated(*stations: Station, rate: float, requests: int) -> Figures:
    return Simulation(
        stations, [1] * len(stations), Traffic(rate), requests=requests, warm_up=0
    ).run()


def calls(yard: Workers) -> Counter[str]:
    return Counter(call.model for call in yard.fake.calls)


def test_calls_of_a_cascade_whose_calls_fail(yard: Workers) -> None:
    requests, rng = 400, Random(7)
    yard.fake.reset()
    replies = [
        Reply(status=500)
        if rng.random() < FAILS
        # An answer of nine letters or fewer is not accepted.
        else Reply(text="short" if rng.random() < ESCALATES else "long enough")
        for _ in range(4 * requests)
    ]
    yard.fake.script("small", replies)
    yard.fake.always("large", Reply(text="it does"))
    with yard.client() as client:
        handles = client.submit_many(["hello"] * requests, route="both")
        assert all(handle.result(90) for handle in handles)
    small, large = (model(yard, name) for name in ("small", "large"))
    first = station(small, 0.02, Weather(FAILS))
    cascade = Station(
        first.name,
        first.concurrency,
        first.latency,
        first.retry,
        weather=first.weather,
        escalates=ESCALATES,
        breaker=first.breaker,
    )
    found = simulated(cascade, station(large, 0.02), rate=50.0, requests=20_000)
    real = calls(yard)
    # Four standard deviations of what chance does to so few requests.
    assert real["small"] / requests == pytest.approx(found.stations[0].calls, abs=0.1)
    assert real["large"] / requests == pytest.approx(found.stations[1].calls, abs=0.1)
    assert found.unanswered == 0.0


def test_a_breaker_opens_after_as_many_calls(yard: Workers) -> None:
    yard.fake.reset()
    yard.fake.always("down", Reply(status=500))
    with yard.client() as client:
        for _ in range(20):
            answer = client.submit("hello", models=["down", "large"]).result(60)
            assert answer.model == "large"
    down, large = (model(yard, name) for name in ("down", "large"))
    found = simulated(
        station(down, 0.001, Weather(1.0)), station(large, 0.001), rate=5.0, requests=20
    )
    assert calls(yard) == {"down": 3, "large": 20}
    assert [20 * each.calls for each in found.stations] == [3.0, 20.0]


def test_a_limit_is_asked_about_as_often(yard: Workers) -> None:
    yard.fake.reset()
    with yard.client() as client:
        yard.fake.always("limited", Reply(status=429, headers={"retry-after": "600"}))
        for _ in range(10):
            assert client.submit("hello", models=["limited", "large"]).result(60).model == "large"
    limited, large = (model(yard, name) for name in ("limited", "large"))
    found = simulated(
        station(limited, 0.001, Weather(limit_per_min=0.0)),
        station(large, 0.001),
        rate=5.0,
        requests=10,
    )
    assert calls(yard) == {"limited": 1, "large": 10}
    assert [10 * each.calls for each in found.stations] == [1.0, 10.0]
    assert found.stations[0].limited == 0.1


def test_what_waits_for_a_place_waits_no_less(yard: Workers) -> None:
    requests, latency_s = 20, 0.3
    yard.fake.reset()
    yard.fake.always("narrow", Reply(text="it does", delay_s=latency_s))
    with yard.client() as client:
        handles = client.submit_many(["hello"] * requests, models=["narrow"])
        for handle in handles:
            handle.result(60)
    first = min(call.started_at for call in yard.fake.calls)
    real = sorted((call.ended_at or 0.0) - first for call in yard.fake.calls)
    narrow = station(model(yard, "narrow"), latency_s)
    found = simulated(narrow, rate=1e6, requests=requests)
    for measured, said in zip(real, found.times_s, strict=True):
        assert measured >= 0.95 * (said - 0.02)
