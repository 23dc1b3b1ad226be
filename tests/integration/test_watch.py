"""What routers learn from the ledger in a real Redis, and how they take experiments back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from ledger_entries import arm, entry, failed, put
from waiting import eventually

from modelyard.catalog import Catalog, Model
from modelyard.decision_ledger import last_id
from modelyard.names import COUNTERS_KEY, DECISIONS_KEY, EXPERIMENTS_KEY
from modelyard.routes import Experiment, Route
from modelyard.settings import Settings
from modelyard.standings import Standing, read_standings, stand, standings
from router_worker.basis import Basis
from router_worker.experiments.watch import Progress, Watch, asks, is_needed
from router_worker.observed import FRESH_S

TREATED = (arm("try", treated=True),)
BROKEN = failed("large", arms=TREATED)
NOW = 1_795_000_000.0


def catalog(*experiments: Experiment, choose: str = "given") -> Catalog:
    route = Route.model_validate(
        {"otherwise": {"models": ["small", "large"], "choose": choose}, "experiments": experiments}
    )
    models = tuple(Model(name=name, provider="extractive") for name in ("small", "large"))
    return Catalog(models=models, routes={"default": route})


def canary(**rollback: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "try",
            "of": "small",
            "to": "large",
            "percent": 10,
            "rollback": {"max_error_rate": 0.2, "min_requests": 10, **rollback},
        }
    )


@contextmanager
def watching(catalog: Catalog, url: str) -> Iterator[Watch]:
    watch = Watch(catalog, lambda: redis.Redis.from_url(url))
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


def stood(store: redis.Redis) -> dict[str, Standing]:
    return read_standings(standings(store))


def all_read(progress: Progress) -> Progress:
    while progress.read(NOW):
        pass
    return progress


def test_a_treatment_that_fails_is_taken_back_everywhere(
    redis_url: str, store: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        watching(catalog(canary()), redis_url) as one,
        watching(catalog(canary()), redis_url) as two,
    ):
        put(store, *[BROKEN] * 10)
        for watch in (one, two):
            eventually(lambda: watch.seen.taken_back == {"try"})  # noqa: B023 - it is called now

    standing = stood(store)["try"]
    assert (standing.state, standing.by) == ("taken back", "test")
    assert "100 % of its calls failed in 10 requests" in standing.why
    assert standing.statistics["treatment"]["requests"] == 10
    # Two routers found it, and one was first.
    assert store.hget(COUNTERS_KEY, "experiments_taken_back") == b"1"
    assert caplog.text.count("experiment try is taken back: 100 % of its calls failed") == 1


def test_a_treatment_that_works_stays(redis_url: str, store: redis.Redis) -> None:
    put(store, *[entry(model="large", arms=TREATED)] * 200)
    progress = all_read(Progress(catalog(canary()), store))

    assert progress.broken() == {}
    assert progress.seen().taken_back == frozenset()
    assert progress.trials["try"].arms["treatment"].requests == 200


def test_an_experiment_in_force_again_begins_anew(store: redis.Redis) -> None:
    progress = Progress(catalog(canary()), store)
    put(store, *[BROKEN] * 10)
    all_read(progress)
    assert progress.take_back("try", progress.broken()["try"], NOW)
    all_read(progress)
    assert progress.seen().taken_back == {"try"}

    again = Standing(state="in force", at=NOW, by="hand", after=last_id(store))
    assert stand(store, "try", again, standings(store)["try"])
    put(store, *[BROKEN] * 3)
    late = Progress(catalog(canary()), store)
    for each in (progress, late):
        all_read(each)
        assert each.seen().taken_back == frozenset()
        assert each.trials["try"].arms["treatment"].requests == 3
        assert each.broken() == {}

    put(store, *[BROKEN] * 7)
    assert "try" in all_read(progress).broken()


def test_what_was_read_before_it_was_put_in_force_again_is_read_once_more(
    store: redis.Redis,
) -> None:
    progress = Progress(catalog(canary()), store)
    put(store, *[BROKEN] * 5)
    after = last_id(store)
    put(store, *[BROKEN] * 4)
    all_read(progress)
    assert progress.trials["try"].arms["treatment"].requests == 9

    assert stand(store, "try", Standing(state="in force", at=NOW, by="hand", after=after), None)
    put(store, *[BROKEN] * 2)
    all_read(progress)

    assert progress.trials["try"].arms["treatment"].requests == 4 + 2


def test_who_decides_by_what_is_no_longer_so_changes_nothing(store: redis.Redis) -> None:
    progress = Progress(catalog(canary()), store)
    put(store, *[BROKEN] * 10)
    all_read(progress)
    by_hand = Standing(state="taken back", at=NOW, by="hand", why="I don't like it")
    assert stand(store, "try", by_hand, None)

    assert not progress.take_back("try", "late", NOW)
    assert stood(store)["try"].why == "I don't like it"


def test_a_standing_that_can_t_be_read_is_a_reason_for_care(store: redis.Redis) -> None:
    store.hset(EXPERIMENTS_KEY, "try", "{")
    assert all_read(Progress(catalog(canary()), store)).seen().taken_back == {"try"}


def test_what_is_no_entry_does_not_stop_it(
    redis_url: str, store: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    store.xadd(DECISIONS_KEY, {"e": "{"})
    put(store, *[BROKEN] * 10)
    with watching(catalog(canary()), redis_url) as watch:
        eventually(lambda: watch.seen.taken_back == {"try"})
    assert "1 entries of the decision ledger can't be read" in caplog.text


def test_models_are_observed_where_something_is_chosen_by_it(
    redis_url: str, store: redis.Redis
) -> None:
    put(store, *[entry()] * 20)
    with watching(catalog(choose="cheapest"), redis_url) as watch:
        eventually(lambda: "small" in watch.seen.observed.latency_s)
    assert watch.seen.observed.latency_s["small"] == pytest.approx(0.2)
    assert watch.seen.observed.output_tokens["small", "other"] == pytest.approx(50)


def test_a_model_that_nobody_calls_has_the_catalog_s_figure_again(
    redis_url: str, store: redis.Redis
) -> None:
    put(store, *[entry()] * 20)
    now = [time.time()]
    connect: Callable[[], redis.Redis] = lambda: redis.Redis.from_url(redis_url)  # noqa: E731
    watch = Watch(catalog(choose="cheapest"), connect, clock=lambda: now[0])
    watch.start()
    try:
        eventually(lambda: "small" in watch.seen.observed.latency_s)
        now[0] += FRESH_S + 60
        eventually(lambda: "small" not in watch.seen.observed.latency_s)
    finally:
        watch.stop()


def test_where_nothing_is_learned_nothing_is_read() -> None:
    def never() -> redis.Redis:
        raise AssertionError("it asks for Redis")

    assert not is_needed(catalog())
    dear = Route.model_validate({"otherwise": {"models": ["small"], "max_cost_usd": 0.1}})
    assert is_needed(catalog().model_copy(update={"routes": {"default": dear}}))
    watch = Watch(catalog(), never)
    watch.start()
    watch.stop()


@pytest.mark.parametrize(
    ("payload", "expires", "needed"),
    [
        ({"text": "hello"}, None, False),
        ({"text": "hello", "limits": {"quality_floor": 0.5, "max_cost_usd": None}}, None, False),
        ({"text": "hello", "limits": {"max_cost_usd": 0.1}}, None, True),
        ({"text": "hello", "limits": {"max_latency_s": 1}}, None, True),
        ({"text": "hello", "deadline": NOW}, None, True),
        ({"text": "hello"}, NOW, True),
        ({"text": "hello", "limits": [1]}, None, False),
        ("no request", NOW, False),
    ],
)
def test_a_request_may_ask_for_what_is_learned(
    payload: Any, expires: float | None, needed: bool
) -> None:
    assert asks(payload, expires) is needed


def test_from_the_first_request_that_asks_on_the_ledger_is_followed_by_each_catalog(
    redis_url: str, store: redis.Redis
) -> None:
    put(store, *[entry()] * 20)
    basis = Basis(catalog(), Settings(), redis_url)
    basis.start()
    basis.heed({"text": "hello"}, None)
    assert "small" not in basis.knowledge().latency_s

    basis.heed({"text": "hello", "limits": {"max_latency_s": 1}}, None)
    eventually(lambda: "small" in basis.knowledge().latency_s)

    changed = basis.followed_by(catalog())
    try:
        put(store, *[entry(model="large")] * 20)
        eventually(lambda: "large" in changed.knowledge().latency_s)
    finally:
        changed.stop()


def test_redis_that_is_away_only_makes_it_wait(
    redis_url: str, store: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    away = [True]

    class Moody(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            if away[0]:
                raise redis.ConnectionError("nobody there")
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    put(store, *[BROKEN] * 10)
    connect: Callable[[], redis.Redis] = lambda: Moody.from_url(redis_url)  # noqa: E731
    watch = Watch(catalog(canary()), connect, clock=time.time)
    watch.start()
    try:
        eventually(lambda: "the ledger can't be read, trying again" in caplog.text)
        assert watch.seen.taken_back == frozenset()
        away[0] = False
        eventually(lambda: watch.seen.taken_back == {"try"})
    finally:
        watch.stop()
