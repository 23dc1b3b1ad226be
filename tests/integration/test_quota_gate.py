"""Quota taken on a real Redis: what all workers together may do, and what each does alone."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.desk import Place
from model_workers.endpoints.gate import (
    TAKE,
    Answer,
    Ask,
    Gate,
    Granted,
    Refused,
    answers,
    script,
)
from model_workers.providers.base import Completion
from modelyard.catalog import Catalog, Quota
from modelyard.circuit import Circuit, Hold, Reason
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage
from modelyard.names import ENDPOINTS_KEY_PREFIX, QUOTA_KEY_PREFIX, QUOTA_PROCESSES_KEY
from modelyard.quota import Meter, Scope, admit

NOW = 1_800_000_000.0


def scope(key: str, share: float = 0.1, **limits: float) -> Scope:
    return Scope.of(key, Quota.model_validate({"interactive_share": share, **limits}))


def take(
    store: redis.Redis, *asks: Ask, now: float = NOW, process: str = "p", flights: int = 0
) -> list[Answer]:
    counts = {each.key: flights for ask in asks for some in ask.candidates for each in some}
    return answers(TAKE(store, *script(process, asks, [], [], counts, now)))


@pytest.fixture
def store(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 400)), min_size=1, max_size=40),
    st.sampled_from([(30.0, None), (None, 3000.0), (60.0, 5000.0)]),
)
def test_the_script_does_what_the_pure_meters_do(
    store: redis.Redis, calls: list[tuple[float, int]], limits: tuple[float | None, float | None]
) -> None:
    store.flushall()
    requests, tokens = limits
    limited = Scope.of("x", Quota(requests_per_min=requests, tokens_per_min=tokens))
    arrivals, now = [0.0, 0.0], NOW
    for gap, amount in calls:
        now = round(now + gap, 3)
        wanted: list[tuple[int, float, float]] = []
        for at, (meter, n) in enumerate(((limited.requests, 1), (limited.tokens, amount))):
            if meter is not None:
                wanted.append((at, *admit(arrivals[at], meter, n, now)))
        delay = max(each[1] for each in wanted)
        (answer,) = take(store, Ask(amount, False, 2.0, [[limited]]), now=now)
        if abs(delay - 2.0) < 0.002:
            return  # the script rounds: it may say either
        if delay > 2.0:
            assert isinstance(answer, Refused)
            assert answer.wait_s == pytest.approx(max(0.05, delay), abs=0.005)
        else:
            assert isinstance(answer, Granted)
            assert answer.delay_s == pytest.approx(delay, abs=0.005)
            for at, _, arrival in wanted:
                arrivals[at] = arrival


def test_the_first_endpoint_with_room_is_taken_and_the_least_wait_if_none_has(
    store: redis.Redis,
) -> None:
    few, many = scope("few", requests_per_min=6), scope("many", requests_per_min=600)
    ask = Ask(0, False, 1.0, [[few], [many]])
    said = take(store, *[ask] * 20)
    assert [each.candidate for each in said[:2] if isinstance(each, Granted)] == [0, 1]
    assert all(isinstance(each, Granted) and each.candidate == 1 for each in said[1:])
    assert max(each.delay_s for each in said if isinstance(each, Granted)) <= 1.0


def test_calls_in_flight_are_those_of_all_processes_that_live(store: redis.Redis) -> None:
    limited = scope("x", concurrency=3, share=0.0)
    ask = Ask(0, False, 1.0, [[limited]])
    assert len([each for each in take(store, ask, ask, process="a") if granted(each)]) == 2
    assert [granted(each) for each in take(store, ask, ask, process="b")] == [True, False]
    # `a` says nothing any more: it was killed, and its calls with it.
    later = NOW + 60
    said = take(store, ask, ask, ask, process="b", now=later, flights=1)
    assert [granted(each) for each in said] == [True, True, False]


def granted(answer: Answer) -> bool:
    return isinstance(answer, Granted)


def test_the_batch_lane_leaves_a_share_to_the_interactive_one(store: redis.Redis) -> None:
    limited = scope("x", requests_per_min=600, share=0.5)
    batch = Ask(0, True, 10.0, [[limited]])
    count = len([each for each in take(store, *[batch] * 300) if granted(each)])
    assert 40 <= count <= 70  # half of 600 a minute, for ten seconds and what may come at once
    (answer,) = take(store, Ask(0, False, 6.0, [[limited]]))
    assert isinstance(answer, Granted)


def test_an_unlimited_time_is_never_kept(store: redis.Redis) -> None:
    take(store, Ask(0, False, 1.0, [[scope("x", requests_per_min=6)]]))
    assert 0 < store.ttl(QUOTA_KEY_PREFIX + "x") <= 3600


def gate(url: str, process: str = "p") -> Gate:
    return Gate(partial(redis.Redis.from_url, url, socket_timeout=2), process)


async def test_two_workers_share_one_quota(redis_url: str) -> None:
    limited = scope("shared", requests_per_min=600, share=0.0)
    ask = Ask(0, False, 0.5, [[limited]])
    gates = [gate(redis_url, "a"), gate(redis_url, "b")]
    said = await asyncio.gather(*(each.take(ask) for _ in range(40) for each in gates))
    count = sum(map(granted, said))
    assert 14 <= count <= 20  # ten a second: 12 at once, 5 in half a second, and the test's time
    for each in gates:
        await each.aclose()


async def test_what_a_call_did_not_take_is_given_back(redis_url: str) -> None:
    limited = scope("tokens", tokens_per_min=6000, share=0.0)
    one = gate(redis_url)
    ask = Ask(3000, False, 0.5, [[limited]])
    first = await one.take(ask)
    assert granted(first)
    assert isinstance(await one.take(ask), Refused)
    one.give([limited], -2990, batch=False)
    assert granted(await one.take(ask))
    await one.aclose()


async def test_a_call_that_ended_makes_room(redis_url: str) -> None:
    limited = scope("calls", concurrency=1, share=0.0)
    one, other = gate(redis_url, "a"), gate(redis_url, "b")
    ask = Ask(0, False, 0.5, [[limited]])
    assert granted(await one.take(ask))
    assert isinstance(await other.take(ask), Refused)
    one.give([limited], 0, batch=False)
    for _ in range(200):
        if granted(await other.take(ask)):
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the room of a call that ended was never free again")
    await one.aclose()
    await other.aclose()


async def test_who_gives_up_takes_nothing(redis_url: str) -> None:
    limited = scope("left", concurrency=1, share=0.0)
    one = gate(redis_url)
    ask = Ask(0, False, 0.5, [[limited]])
    waiting = asyncio.ensure_future(one.take(ask))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for _ in range(200):
        if granted(await one.take(ask)):
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("a call that was given up holds its room")
    await one.aclose()


def flights(store: redis.Redis, key: str, process: str) -> int:
    return int(store.hget(f"{QUOTA_KEY_PREFIX}{key}:calls", process) or 0)


async def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"never so: {what}")


async def test_others_do_not_count_what_was_given_up_while_redis_was_asked(
    redis_url: str, store: redis.Redis
) -> None:
    limited = scope("left", concurrency=2, tokens_per_min=60_000, share=0.0)
    one = gate(redis_url)
    ask = Ask(600, False, 0.1, [[limited]])
    waiting = asyncio.ensure_future(one.take(ask))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the script is on its way
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: store.hexists(f"{QUOTA_KEY_PREFIX}left:calls", "p"), "it was counted")
    await until(lambda: flights(store, "left", "p") == 0, "it is counted no more")
    # And its tokens are there again: two such calls come at once.
    assert [granted(await one.take(ask)) for _ in range(2)] == [True, True]
    await one.aclose()


async def test_a_call_that_takes_long_counts_as_long_as_it_takes(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process asks for nothing else meanwhile, and is not taken to be gone."""
    monkeypatch.setattr("model_workers.endpoints.gate.BEAT_S", 0.02)
    limited = scope("long", concurrency=1, share=0.0)
    one = gate(redis_url)
    assert granted(await one.take(Ask(0, False, 0.5, [[limited]])))
    before = store.zscore(QUOTA_PROCESSES_KEY, "p")
    await until(lambda: store.zscore(QUOTA_PROCESSES_KEY, "p") != before, "it was heard of again")
    # Somebody took it to be gone, as this process was stopped: it says how it is again.
    store.delete(f"{QUOTA_KEY_PREFIX}long:calls")
    await until(lambda: flights(store, "long", "p") == 1, "its call is counted again")
    one.give([limited], 0, batch=False)
    await until(lambda: flights(store, "long", "p") == 0, "it has ended")
    assert one._beat is None or not one._held
    await one.aclose()


async def test_calls_that_began_while_redis_was_away_are_counted_once_it_is_there(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_workers.endpoints.gate.BEAT_S", 0.02)
    limited = scope("away", concurrency=4, share=0.0)
    one = gate(redis_url)
    one._is_away("a test")
    assert granted(await one.take(Ask(0, False, 0.5, [[limited]])))
    await until(lambda: flights(store, "away", "p") == 1, "it is counted")
    await one.aclose()


async def test_a_lost_reply_gives_nothing_back_twice(redis_url: str, store: redis.Redis) -> None:
    limited = scope("twice", tokens_per_min=6000, share=0.0)
    one = gate(redis_url)
    ask = Ask(6000, False, 0.5, [[limited]])
    assert granted(await one.take(ask))
    assert one._redis is not None
    run = one._redis.run

    async def lose(act: Callable[[redis.Redis], Any]) -> Any:
        await run(act)
        raise redis.ConnectionError("the reply was lost")

    one._redis.run = lose  # type: ignore[method-assign]
    taken = float(store.hget(QUOTA_KEY_PREFIX + "twice", "t") or 0)
    one.give([limited], -3000, batch=False)
    await until(lambda: one._away_until > 0, "the reply was lost")
    one._redis.run = run  # type: ignore[method-assign]
    one._away_until = 0.0
    await one.take(Ask(1, False, 0.0, [[limited]]))
    half = taken - 3000 * Meter.per_minute(6000).interval_s
    kept = float(store.hget(QUOTA_KEY_PREFIX + "twice", "t") or 0)
    assert kept == pytest.approx(half, abs=0.1)
    await one.aclose()


def test_a_refusal_says_which_limit_it_is(store: redis.Redis) -> None:
    few, many = scope("few", requests_per_min=6), scope("many", requests_per_min=600)
    full = scope("full", concurrency=1, share=0.0)
    take(store, Ask(0, False, 1.0, [[few, full]]))
    (answer,) = take(store, Ask(0, False, 1.0, [[many, few]]))
    assert isinstance(answer, Refused) and answer.scope == 1
    (answer,) = take(store, Ask(0, False, 1.0, [[many, full]]), process="q")
    assert isinstance(answer, Refused) and answer.scope == 1


def test_a_gate_that_was_closed_can_be_used_on_another_loop(redis_url: str) -> None:
    one = gate(redis_url)
    ask = Ask(0, False, 0.5, [[scope("again", concurrency=1, share=0.0)]])

    async def use() -> None:
        assert granted(await one.take(ask))
        one.give(ask.candidates[0], 0, batch=False)
        await one.aclose()
        assert one._away_until == 0.0

    for _ in range(3):
        asyncio.run(use())


async def test_while_redis_hangs_each_worker_keeps_to_its_part(redis_url: str) -> None:
    limited = scope("alone", requests_per_min=600, share=0.0)
    one = gate(redis_url)
    one.alone.workers = 2
    ask = Ask(0, False, 0.5, [[limited]])
    assert granted(await one.take(ask))
    with redis.Redis.from_url(redis_url) as store:
        store.execute_command("CLIENT", "PAUSE", 3000, "ALL")
    said = [await one.take(ask) for _ in range(30)]
    count = sum(map(granted, said))
    assert 6 <= count <= 12  # half of 12 at once and of 5 a second
    await one.aclose()


async def test_without_a_redis_calls_go_on() -> None:
    one = gate("redis://127.0.0.1:1/0")
    ask = Ask(0, False, 0.5, [[scope("x", requests_per_min=60)]])
    assert granted(await one.take(ask))
    await one.aclose()


def test_meters_of_a_quota() -> None:
    limited = scope("x", requests_per_min=100)
    assert limited.requests == Meter.per_minute(100)
    assert (limited.tokens, limited.concurrency) == (None, None)


# -- what the workers tell each other


def two(url: str) -> tuple[Catalog, list[Balancer]]:
    one = {
        "name": "m",
        "provider": "openai",
        "endpoints": [{"base_url": "http://a.test/v1"}],
        "breaker": {"failures": 2, "cooldown_s": 0.2, "longest_s": 0.2},
    }
    catalog = Catalog.model_validate({"models": [one], "routes": {"default": {"otherwise": ["m"]}}})
    connect = partial(redis.Redis.from_url, url, socket_timeout=2)
    return catalog, [Balancer(connect, process=name) for name in ("a", "b")]


async def placed(balancer: Balancer, catalog: Catalog) -> Place | Hold:
    return await balancer.place(catalog, catalog.model("m"), Request.of("hello"))


def circuit(balancer: Balancer) -> Circuit:
    desk = balancer._desks.get("m")
    assert desk is not None
    return desk.posts[0].circuit


FAILED = ProviderError(FailureKind.RETRYABLE, "no")
ANSWERED = Completion(text="yes", usage=Usage(), provider_model="m")


async def test_what_one_worker_leaves_alone_the_others_do_too_though_they_are_busy(
    redis_url: str,
) -> None:
    catalog, (one, other) = two(redis_url)
    places = [await placed(each, catalog) for each in (one, one, other, other)]
    assert all(isinstance(each, Place) for each in places)
    for place in places[:2]:
        assert isinstance(place, Place)
        one.ended(place, None, FAILED)
    for place in places[2:3]:
        assert isinstance(place, Place)
        other.ended(place, None, FAILED)  # one is not enough
    await until(lambda: not circuit(other).is_closed, "the other heard of it")
    (late,) = places[3:]
    assert isinstance(late, Place)
    other.ended(late, ANSWERED, None)
    assert not circuit(other).is_closed  # that call was under way before

    # One probe is answered: it is well for both, and nobody says otherwise again.
    await until(lambda: not circuit(one).is_open(one.now()), "it may be probed")
    probe = await placed(one, catalog)
    assert isinstance(probe, Place) and probe.probing
    one.ended(probe, ANSWERED, None)
    assert circuit(one).is_closed
    await until(lambda: circuit(other).is_closed, "the other heard of that, too")
    store = redis.Redis.from_url(redis_url)
    for _ in range(6):
        for each in (one, other):
            each._sharing.tell()
        await asyncio.sleep(0.1)
        assert circuit(one).is_closed and circuit(other).is_closed
        assert all(field[:1] == b"@" for field in store.hkeys(ENDPOINTS_KEY_PREFIX + "m"))
    for each in (one, other):
        await each.aclose()


async def test_a_worker_s_first_call_knows_what_the_others_know(redis_url: str) -> None:
    catalog, (one, other) = two(redis_url)
    place = await placed(one, catalog)
    assert isinstance(place, Place)
    one.ended(place, None, ProviderError(FailureKind.LIMITED, "no", retry_after_s=60.0))
    store = redis.Redis.from_url(redis_url)
    await until(lambda: store.hlen(ENDPOINTS_KEY_PREFIX + "m") == 2, "it was told")
    assert isinstance(await placed(other, catalog), Hold)
    for each in (one, other):
        await each.aclose()


async def test_a_denial_is_not_believed_of_another_worker(redis_url: str) -> None:
    """It may be of another key: this worker was started with a new one, say."""
    catalog, (one, other) = two(redis_url)
    place = await placed(one, catalog)
    assert isinstance(place, Place)
    one.ended(place, None, ProviderError(FailureKind.DENIED, "no"))
    store = redis.Redis.from_url(redis_url)
    await until(lambda: store.hlen(ENDPOINTS_KEY_PREFIX + "m") == 2, "it was told")
    for _ in range(3):
        assert isinstance(await placed(other, catalog), Place)
        other._sharing.tell()
        await asyncio.sleep(0.1)
    assert circuit(one).why is Reason.DENIED and not circuit(one).is_closed
    for each in (one, other):
        await each.aclose()


async def test_closing_right_after_news_does_not_wait_for_more(redis_url: str) -> None:
    """A cancellation that came together with news was lost: a worker took a minute to stop."""
    for pauses in range(8):
        catalog, (one, _) = two(redis_url)
        place = await placed(one, catalog)
        assert isinstance(place, Place)
        one.ended(place, ANSWERED, None)
        await asyncio.sleep(0.1)
        one._sharing.tell()
        for _ in range(pauses):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await one.aclose()
