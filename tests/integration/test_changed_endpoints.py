"""A catalog that is read anew under calls in flight, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from model_workers.caller import Answered, Caller, Failed
from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.desk import Desk, Place
from model_workers.providers.over_http import OverHttp
from modelyard.advance import Later, NextStep
from modelyard.catalog import Catalog
from modelyard.circuit import Hold, Reason
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Call, Request
from modelyard.plan import Decision, Plan, Step
from modelyard.testing import FakeProvider, Gate, Reply

REQUEST = Request.of("hello")
DOWN = ProviderError(FailureKind.RETRYABLE, "no")


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def other() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def balancer() -> AsyncIterator[Balancer]:
    balancer = Balancer()
    yield balancer
    await balancer.aclose()


def catalog(*endpoints: dict[str, Any], quotas: Any = None, **model: Any) -> Catalog:
    breaker = {"failures": 1, "cooldown_s": 60}
    one = {"name": "m", "provider": "openai", "endpoints": endpoints, "breaker": breaker, **model}
    rest = {"name": "rest", "provider": "extractive", "model": "lead"}
    return Catalog.model_validate(
        {
            "models": [one, rest],
            "routes": {"default": {"otherwise": ["m"]}},
            "quotas": quotas or {},
        }
    )


def without_it() -> Catalog:
    rest = {"name": "rest", "provider": "extractive", "model": "lead"}
    return Catalog.model_validate(
        {"models": [rest], "routes": {"default": {"otherwise": ["rest"]}}}
    )


async def called(balancer: Balancer, catalog: Catalog) -> Answered | Failed:
    plan = Plan(steps=(Step(model="m"),))
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=0.0, plan=plan
    )
    call = Call(request=REQUEST, decision=decision)
    return await Caller(balancer).call(catalog, "id", "", call, REQUEST)


async def placed(balancer: Balancer, catalog: Catalog) -> Place:
    found = await balancer.place(catalog, catalog.model("m"), REQUEST)
    assert isinstance(found, Place), found
    return found


def desk(balancer: Balancer) -> Desk:
    found = balancer._desks.get("m")
    assert found is not None
    return found


def is_closed(place: Place) -> bool:
    assert isinstance(place.line.provider, OverHttp)
    return place.line.provider._client.is_closed


async def settled() -> None:
    """Let what was begun on this loop come to its end."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_equal_catalog_keeps_everything(balancer: Balancer, fake: FakeProvider) -> None:
    endpoints = {"name": "a", "base_url": fake.base_url}, {"base_url": "http://b.test/v1"}
    first, again = catalog(*endpoints), catalog(*endpoints)
    one, two = await placed(balancer, first), await placed(balancer, first)
    balancer.ended(one, None, DOWN)
    posts = desk(balancer).posts
    before = [(post, post.line, post.circuit, post.in_flight) for post in posts]
    assert (await placed(balancer, again)).line in {post.line for post in posts}
    assert [(post, post.line, post.circuit) for post in desk(balancer).posts] == [
        each[:3] for each in before
    ]
    assert sum(post.in_flight for post in posts) == 2
    assert not is_closed(two)


async def test_new_weights_and_quotas_count_at_once(balancer: Balancer, fake: FakeProvider) -> None:
    base = {"name": "a", "base_url": fake.base_url, "api_key": "k", "key_name": "KEY"}
    first = catalog({**base, "weight": 1})
    tight = {"requests_per_min": 1, "interactive_share": 0}
    running = await placed(balancer, first)
    for second in (
        catalog({**base, "weight": 5, "quota": tight}),
        catalog({**base, "weight": 5}, quota=tight),
        catalog({**base, "weight": 5}, quotas={"keys": {"KEY": tight}}),
    ):
        place = await placed(balancer, second)
        assert place.line is running.line
        assert place.line.endpoint is not None and place.line.endpoint.weight == 5
        assert isinstance(await balancer.place(second, second.model("m"), REQUEST), Hold)
        balancer.given_up(place)
    third = catalog(base)
    for _ in range(5):
        await placed(balancer, third)  # what is limited no more
    balancer.given_up(running)


async def test_a_concurrency_that_changes_under_calls_is_kept(
    balancer: Balancer, fake: FakeProvider
) -> None:
    def of(concurrency: int) -> Catalog:
        quota = {"concurrency": concurrency, "interactive_share": 0}
        return catalog({"base_url": fake.base_url, "quota": quota})

    places = [await placed(balancer, of(3)) for _ in range(3)]
    fewer = of(1)
    for place in places:
        assert isinstance(await balancer.place(fewer, fewer.model("m"), REQUEST), Hold)
        balancer.given_up(place)
    last = await placed(balancer, fewer)
    assert isinstance(await balancer.place(fewer, fewer.model("m"), REQUEST), Hold)
    balancer.given_up(last)
    assert not balancer._gate._in_flight


async def test_a_call_in_flight_ends_where_it_began_and_its_connection_after_it(
    balancer: Balancer, fake: FakeProvider, other: FakeProvider
) -> None:
    gate = Gate()
    fake.always("m", Reply(text="old", gate=gate))
    other.always("m", Reply(text="new"))
    before = catalog({"name": "a", "base_url": fake.base_url})
    after = catalog({"name": "a", "base_url": other.base_url})
    running = asyncio.ensure_future(called(balancer, before))
    await asyncio.to_thread(fake.wait_until, lambda fake: fake.in_flight == 1)
    (old,) = desk(balancer).posts
    answer = await called(balancer, after)
    assert isinstance(answer, Answered) and answer.completion.text == "new"
    assert old.retired and not old.line.closed
    gate.open()
    answer = await running
    assert isinstance(answer, Answered) and answer.completion.text == "old"
    await settled()
    (new,) = desk(balancer).posts
    assert old.line.closed and not new.line.closed
    assert (old.in_flight, new.in_flight, old.line.calls, new.line.calls) == (0, 0, 0, 0)


async def test_another_timeout_takes_new_connections_and_the_endpoint_stays_known(
    balancer: Balancer, fake: FakeProvider
) -> None:
    endpoints = {"name": "a", "base_url": fake.base_url}, {"name": "b", "base_url": fake.base_url}
    before, after = catalog(*endpoints, timeout_s=30), catalog(*endpoints, timeout_s=0.2)
    ill, well = await placed(balancer, before), await placed(balancer, before)
    while well.post is ill.post:
        balancer.given_up(well)
        well = await placed(balancer, before)
    balancer.ended(ill, None, DOWN)
    fake.always("m", Reply(hang=True))
    failed = await called(balancer, after)
    assert isinstance(failed, Failed)
    assert "0.2 s" in failed.attempts[-1].message
    assert {each.endpoint for each in failed.attempts} <= {well.line.label, "none"}
    assert is_closed(ill) and not is_closed(well)
    balancer.given_up(well)
    await settled()
    assert is_closed(well)
    assert {post.in_flight for post in desk(balancer).posts} == {0}


@pytest.mark.parametrize(
    "changed", [{"model": "right"}, {"api_key": "new"}, {"base_url": "http://127.0.0.2:9/v1"}]
)
async def test_what_was_mended_in_the_catalog_is_called_at_once(
    balancer: Balancer, fake: FakeProvider, changed: dict[str, str]
) -> None:
    base = {"name": "a", "base_url": fake.base_url, "api_key": "old"}
    before = catalog(base, model="wrong")
    balancer.ended(
        await placed(balancer, before), None, ProviderError(FailureKind.DENIED, "who are you?")
    )
    hold = await balancer.place(before, before.model("m"), REQUEST)
    assert isinstance(hold, Hold) and hold.why is Reason.DENIED
    name = changed.pop("model", "wrong")
    await placed(balancer, catalog({**base, **changed}, model=name))


async def test_a_call_that_was_begun_by_the_old_catalog_goes_where_the_new_one_says(
    balancer: Balancer, fake: FakeProvider, other: FakeProvider
) -> None:
    """It holds on to what it was begun by; that is no reason to change everything back."""
    before = catalog({"base_url": fake.base_url})
    after = catalog({"base_url": other.base_url})
    await placed(balancer, before)
    (new,) = (await placed(balancer, after)).desk.posts
    for each in (before, after, before):
        assert (await placed(balancer, each)).post is new
        assert not balancer.elsewhere(each, each.model("m"), REQUEST, new.line.label)


async def test_a_call_that_waits_for_its_turn_goes_to_the_new_endpoint(
    balancer: Balancer, fake: FakeProvider, other: FakeProvider
) -> None:
    quota = {"requests_per_min": 600, "interactive_share": 0}
    before = catalog({"base_url": fake.base_url, "quota": quota})
    after = catalog({"base_url": other.base_url, "quota": quota})
    burst = [await placed(balancer, before) for _ in range(12)]
    waiting = asyncio.ensure_future(balancer.place(before, before.model("m"), REQUEST))
    await settled()
    assert burst[0].post.in_flight == 13
    new = await placed(balancer, after)
    found = await waiting
    assert isinstance(found, Place) and found.post is new.post
    assert burst[0].post.in_flight == 12


async def test_a_model_that_is_gone_is_let_go_after_its_last_call(
    balancer: Balancer, fake: FakeProvider
) -> None:
    gate = Gate()
    fake.always("m", Reply(gate=gate))
    before, after = catalog({"base_url": fake.base_url}), without_it()
    running = asyncio.ensure_future(called(balancer, before))
    await asyncio.to_thread(fake.wait_until, lambda fake: fake.in_flight == 1)
    (post,) = desk(balancer).posts
    rest = await balancer.place(after, after.model("rest"), REQUEST)
    assert isinstance(rest, Place)
    assert desk(balancer).gone and not post.line.closed
    # A request that was routed before is still tried by what it was begun by.
    late = await placed(balancer, before)
    assert late.post is post
    balancer.given_up(rest)
    gate.open()
    assert isinstance(await running, Answered)
    assert desk(balancer).gone and not post.line.closed
    balancer.given_up(late)
    await settled()
    assert post.line.closed and balancer._desks.get("m") is None


async def test_a_model_that_is_gone_and_idle_is_let_go_at_once(
    balancer: Balancer, fake: FakeProvider
) -> None:
    before, after = catalog({"base_url": fake.base_url}), without_it()
    assert isinstance(await called(balancer, before), Answered)
    (post,) = desk(balancer).posts
    await balancer.place(after, after.model("rest"), REQUEST)
    await settled()
    assert post.line.closed and balancer._desks.get("m") is None
    # And one that comes late is answered, and leaves nothing behind.
    assert isinstance(await called(balancer, before), Answered)
    await settled()
    assert balancer._desks.get("m") is None
    # It comes back.
    again = catalog({"base_url": fake.base_url})
    assert isinstance(await called(balancer, again), Answered)
    assert not desk(balancer).gone


async def test_a_model_that_loses_its_key_is_gone(balancer: Balancer, fake: FakeProvider) -> None:
    before = catalog({"base_url": fake.base_url})
    place = await placed(balancer, before)
    after = catalog({"base_url": fake.base_url, "disabled": "KEY"})
    failed = await called(balancer, after)
    assert isinstance(failed, Failed) and not isinstance(failed.move, NextStep | Later)
    balancer.elsewhere(after, after.model("rest"), REQUEST, "")
    assert desk(balancer).gone
    balancer.given_up(place)
    await settled()
    assert place.line.closed and balancer._desks.get("m") is None


async def test_probes_follow_the_catalog(fake: FakeProvider) -> None:
    balancer = Balancer(draw=lambda: 0.0)
    before = catalog({"base_url": fake.base_url})
    place = await placed(balancer, before)
    assert place.desk.probing is None
    after = catalog({"base_url": fake.base_url}, probe={"every_s": 1.0})
    balancer.given_up(await placed(balancer, after))
    probing = place.desk.probing
    assert probing is not None and not probing.done()
    none = without_it()
    balancer.elsewhere(none, none.model("rest"), REQUEST, "")
    balancer.given_up(place)
    await asyncio.wait([probing], timeout=10)
    assert probing.done()
    await balancer.aclose()
