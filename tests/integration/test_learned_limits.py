"""Limits that are in no catalog: what one worker learns of them all keep to, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import redis

from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.desk import Place
from model_workers.providers.base import Allowance, Completion
from modelyard.catalog import Catalog
from modelyard.circuit import Hold
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage
from modelyard.names import ENDPOINTS_KEY_PREFIX
from modelyard.quota import Meter
from modelyard.testing import FakeProvider, Reply
from producer.endpoints import endpoint_states

HEADERS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "29",
    "x-ratelimit-reset-requests": "31s",
}
FULL = ProviderError(FailureKind.LIMITED, "too many")
REQUEST = Request.of("hello")
ANSWERED = Completion(text="yes", usage=Usage(), provider_model="m")


def catalog(base_url: str = "http://a.test/v1", **endpoint: Any) -> Catalog:
    model = {
        "name": "m",
        "provider": "openai",
        "endpoints": [{"name": "a", "base_url": base_url, **endpoint}],
    }
    return Catalog.model_validate({"models": [model], "routes": {"default": {"otherwise": ["m"]}}})


@pytest.fixture
async def two(redis_url: str) -> AsyncIterator[list[Balancer]]:
    connect = partial(redis.Redis.from_url, redis_url, socket_timeout=2)
    balancers = [Balancer(connect, process=name) for name in ("a", "b")]
    yield balancers
    for each in balancers:
        await each.aclose()


async def placed(balancer: Balancer, catalog: Catalog) -> Place:
    found = await balancer.place(catalog, catalog.model("m"), REQUEST)
    assert isinstance(found, Place), found
    return found


async def known(store: redis.Redis, *, slowed: bool = False) -> None:
    """Return once something that was learned stands in Redis."""
    async with asyncio.timeout(20):
        while True:
            fields = store.hgetall(ENDPOINTS_KEY_PREFIX + "m")
            if b"~a" in fields and (not slowed or b"slowed" in fields[b"~a"]):
                return
            await asyncio.sleep(0.02)


async def test_a_worker_s_first_call_keeps_to_what_another_was_told(
    two: list[Balancer], redis_url: str
) -> None:
    one, other = two
    with FakeProvider(default=Reply(headers=HEADERS)) as fake:
        there = catalog(fake.base_url)
        place = await placed(one, there)
        assert place.scopes == ()  # nobody knows yet
        completion = await place.line.provider.complete(REQUEST)
        one.ended(place, completion, None)
    store = redis.Redis.from_url(redis_url)
    await known(store)
    first = await placed(other, there)
    (scope,) = first.scopes
    assert scope.key == "learned:m/a"
    assert scope.requests == Meter.per_minute(60)
    # One in about a second, of both together: what can't be made in 5 s is held.
    found = await asyncio.gather(
        *(each.place(there, there.model("m"), REQUEST) for each in two for _ in range(6))
    )
    assert 3 <= sum(isinstance(each, Place) for each in found) <= 6
    held = [each for each in found if isinstance(each, Hold)]
    assert held and all(each.why is None and each.wait_s > 0 for each in held)


async def test_the_refusals_that_one_worker_meets_slow_the_others(
    two: list[Balancer], redis_url: str
) -> None:
    one, other = two
    there = catalog()
    for _ in range(20):
        one.ended(await placed(one, there), ANSWERED, None)
    await meet_refusals(one, there, 3)
    store = redis.Redis.from_url(redis_url)
    await known(store, slowed=True)
    desk = one._desks.get("m")
    assert desk is not None
    (mine,) = desk.posts
    # The 429 is heard of first: for a second nobody calls it.
    assert isinstance(await other.place(there, there.model("m"), REQUEST), Hold)
    their_desk = other._desks.get("m")
    assert their_desk is not None
    (theirs,) = their_desk.posts
    assert theirs.learned.slowed_per_s == pytest.approx(mine.learned.slowed_per_s, rel=1e-3)
    assert theirs.learned.slowed_per_s > 1.0
    states = endpoint_states(store, there)[1]
    assert states[0].learned is not None and states[0].learned.slowed_to_per_min is not None


async def meet_refusals(balancer: Balancer, catalog: Catalog, count: int) -> Place:
    """Have so many calls that are on their way together be one too many."""
    places = [await placed(balancer, catalog) for _ in range(count)]
    for place in places:
        balancer.ended(place, None, FULL)
    return places[0]


async def test_one_refusal_or_two_say_nothing_of_a_pace(two: list[Balancer]) -> None:
    # Ten calls in a minute and a server's bad moment: a pace of nine would hold up the next call.
    one, there = two[0], catalog()
    for _ in range(10):
        one.ended(await placed(one, there), ANSWERED, None)
    place = await meet_refusals(one, there, 2)
    assert place.post.learned.slowed_per_s == 0.0


async def test_a_wait_that_is_asked_for_by_the_minute_is_no_matter_of_pace(
    two: list[Balancer],
) -> None:
    one, there = two[0], catalog()
    for _ in range(20):
        one.ended(await placed(one, there), ANSWERED, None)
    places = [await placed(one, there) for _ in range(5)]
    for place in places:
        one.ended(place, None, ProviderError(FailureKind.LIMITED, "tomorrow", retry_after_s=3600.0))
    assert places[0].post.learned.slowed_per_s == 0.0


async def test_the_catalog_s_quota_is_the_only_one(two: list[Balancer]) -> None:
    one = two[0]
    there = catalog(quota={"requests_per_min": 6000, "tokens_per_min": 600000})
    told = Allowance(60, 30, 30.0, 6000, 3000, 30.0)
    completion = Completion(text="yes", usage=Usage(), provider_model="m", allowance=told)
    one.ended(await placed(one, there), completion, None)
    place = await placed(one, there)
    assert [scope.key for scope in place.scopes] == ["endpoint:m/a"]


async def test_what_was_learned_of_another_endpoint_of_that_name_is_forgotten(
    two: list[Balancer], redis_url: str
) -> None:
    one, other = two
    before, after = catalog(), catalog("http://b.test/v1")
    told = Completion(
        text="yes", usage=Usage(), provider_model="m", allowance=Allowance(60, 59, 1.0)
    )
    one.ended(await placed(one, before), told, None)
    store = redis.Redis.from_url(redis_url)
    await known(store)
    assert (await placed(one, after)).scopes == ()
    async with asyncio.timeout(20):
        while True:
            if b"~a" not in store.hgetall(ENDPOINTS_KEY_PREFIX + "m"):
                break
            await asyncio.sleep(0.02)
    assert (await placed(other, after)).scopes == ()


async def test_what_is_learned_is_shown(two: list[Balancer], redis_url: str) -> None:
    one, there = two[0], catalog()
    told = Completion(
        text="yes", usage=Usage(), provider_model="m", allowance=Allowance(60, 30, 30.0, 9e3, 0, 60)
    )
    one.ended(await placed(one, there), told, None)
    store = redis.Redis.from_url(redis_url)
    await known(store)
    (state,) = endpoint_states(store, there)[1]
    assert state.learned is not None
    assert (state.learned.requests_per_min, state.learned.tokens_per_min) == (60.0, 9000.0)
    (quiet,) = endpoint_states(store, catalog(quota={"requests_per_min": 5}))[1]
    assert quiet.learned is not None and quiet.learned.requests_per_min is None
