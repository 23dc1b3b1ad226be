"""Which endpoint a call goes to, and that its place is free again however it ends."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from model_workers.caller import Caller, Failed
from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.board import Heard
from model_workers.endpoints.desk import Place
from model_workers.endpoints.sharing import take_in
from model_workers.providers.base import Completion
from modelyard.advance import Die, Later
from modelyard.catalog import Catalog
from modelyard.circuit import Hold, Reason
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Call, DeadReason, Request, Usage
from modelyard.plan import Decision, Plan, Step


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def catalog(*endpoints: dict[str, Any], quotas: Any = None, **model: Any) -> Catalog:
    places = [
        {"base_url": f"http://e{number}.test/v1", **each} for number, each in enumerate(endpoints)
    ]
    breaker = {"failures": 1, "cooldown_s": 10, **model.pop("breaker", {})}
    one = {"name": "m", "provider": "openai", "endpoints": places, "breaker": breaker, **model}
    routes = {"default": {"otherwise": ["m"]}}
    return Catalog.model_validate({"models": [one], "routes": routes, "quotas": quotas or {}})


class Yard:
    """A balancer over the endpoints of one model."""

    def __init__(self, catalog: Catalog) -> None:
        self.clock = Clock()
        self.catalog = catalog
        self.model = catalog.model("m")
        self.balancer = Balancer(clock=self.clock, draw=random.Random(1).random)

    async def place(
        self, request: Request | None = None, avoid: Sequence[str] = ()
    ) -> Place | Hold:
        request = request or Request.of("hello")
        return await self.balancer.place(self.catalog, self.model, request, avoid=avoid)

    async def placed(self, request: Request | None = None, avoid: Sequence[str] = ()) -> Place:
        place = await self.place(request, avoid)
        assert isinstance(place, Place), place
        return place

    async def held(self, request: Request | None = None) -> Hold:
        hold = await self.place(request)
        assert isinstance(hold, Hold), hold
        return hold

    def fail(self, place: Place, kind: FailureKind, retry_after_s: float | None = None) -> None:
        error = ProviderError(kind, "no", retry_after_s=retry_after_s)
        self.balancer.ended(place, None, error)

    def answer(self, place: Place) -> None:
        self.balancer.ended(place, ANSWER, None)


ANSWER = Completion(text="yes", usage=Usage(input_tokens=1, output_tokens=1), provider_model="m")


def label(place: Place) -> str:
    return place.post.line.label


async def test_the_other_endpoint_takes_the_call_of_one_that_is_left_alone() -> None:
    yard = Yard(catalog({"name": "a"}, {"name": "b"}))
    first = await yard.placed()
    yard.fail(first, FailureKind.RETRYABLE)
    for _ in range(20):
        assert label(await yard.placed()) != label(first)


async def test_who_failed_a_request_is_the_last_to_get_it_again() -> None:
    yard = Yard(catalog({"name": "a", "weight": 1000}, {"name": "b"}))
    assert [label(await yard.placed(avoid=["a"])) for _ in range(5)] == ["b"] * 5


async def test_a_request_that_failed_goes_where_it_did_not_and_is_no_probe() -> None:
    yard = Yard(catalog({"name": "a"}, {"name": "b"}, {"name": "c"}))
    a = await yard.placed(avoid=["b", "c"])
    assert label(a) == "a"
    assert {label(await yard.placed(avoid=["a", "b"])) for _ in range(20)} == {"c"}
    assert label(await yard.placed(avoid=["a", "b", "c", "b"])) in {"a", "c"}
    assert yard.balancer.elsewhere(yard.catalog, yard.model, Request.of("hello"), ["b", "c"])
    assert not yard.balancer.elsewhere(yard.catalog, yard.model, Request.of("x"), ["a", "b", "c"])
    yard.fail(a, FailureKind.RETRYABLE)
    yard.clock.now += 60.0
    # `a` may be probed by now: by a new request, and by none that could be used up by it.
    assert label(await yard.placed(avoid=["b"])) == "c"
    assert label(await yard.placed()) == "a"


async def test_one_probe_at_a_time_tries_an_endpoint_that_failed() -> None:
    yard = Yard(catalog({}))
    yard.fail(await yard.placed(), FailureKind.RETRYABLE)
    assert (await yard.held()).why is Reason.FAILING
    yard.clock.now += 20
    probe = await yard.placed()
    assert (await yard.held()).why is Reason.FAILING
    yard.answer(probe)
    await yard.placed()
    await yard.placed()


async def test_a_machines_clock_that_is_set_back_leaves_nothing_alone_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = catalog({}, breaker={"cooldown_s": 0.2, "longest_s": 0.2})
    balancer, request = Balancer(), Request.of("hello")
    place = await balancer.place(known, known.model("m"), request)
    assert isinstance(place, Place)
    balancer.ended(place, None, ProviderError(FailureKind.RETRYABLE, "no"))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600.0)
    async with asyncio.timeout(20):
        while True:
            found = await balancer.place(known, known.model("m"), request)
            if isinstance(found, Place):
                break
            await asyncio.sleep(found.wait_s)
    balancer.given_up(found)
    await balancer.aclose()


async def test_what_another_clock_opened_is_closed_once_the_servers_time_is_known() -> None:
    yard = Yard(catalog({}))
    place = await yard.placed()
    yard.fail(place, FailureKind.RETRYABLE)
    nothing = Heard({}, [])
    take_in(place.post, nothing, yard.clock.now - 1.0)
    assert not place.post.circuit.is_closed
    yard.clock.now -= 3600.0
    take_in(place.post, nothing, yard.clock.now)
    await yard.placed()


async def test_a_probe_that_is_given_up_lets_another_one_through() -> None:
    yard = Yard(catalog({}))
    yard.fail(await yard.placed(), FailureKind.RETRYABLE)
    yard.clock.now += 20
    for _ in range(3):
        probe = await yard.placed()
        yard.balancer.given_up(probe)
        yard.balancer.given_up(probe)  # once is enough
    assert probe.post.probes == 0
    await yard.placed()
    assert isinstance(await yard.place(), Hold)


async def test_after_a_limit_more_calls_are_let_through_from_second_to_second() -> None:
    yard = Yard(catalog({}))
    yard.fail(await yard.placed(), FailureKind.LIMITED, 5.0)
    yard.clock.now += 5.3
    passed = 0
    while isinstance(await yard.place(), Place):
        passed += 1
    assert 1 <= passed <= 4
    yard.clock.now += 1.0
    more = 0
    while isinstance(await yard.place(), Place):
        more += 1
    assert 8 <= more <= 12


async def test_a_hold_says_how_long_and_why() -> None:
    yard = Yard(catalog({"name": "a"}, {"name": "b"}))
    a = await yard.placed(avoid=["b"])
    yard.fail(a, FailureKind.DENIED)
    b = await yard.placed()
    yard.fail(b, FailureKind.LIMITED, 7.0)
    hold = await yard.held()
    assert hold.why is Reason.LIMITED
    assert 7.0 <= hold.wait_s <= 7.3
    assert not hold.own


async def test_all_denied_is_said_so_but_not_while_one_is_probed() -> None:
    yard = Yard(catalog({}, breaker={"denied_s": 100}))
    yard.fail(await yard.placed(), FailureKind.DENIED)
    assert (await yard.held()).why is Reason.DENIED
    yard.clock.now += 200
    await yard.placed()
    assert (await yard.held()).why is Reason.FAILING


async def test_a_region_that_is_down_holds_up_its_own_requests_only() -> None:
    yard = Yard(catalog({"name": "eu", "region": "eu"}, {"name": "us", "region": "us"}))
    here = Request.of("hello", limits={"region": "eu"})
    yard.fail(await yard.placed(here), FailureKind.RETRYABLE)
    assert (await yard.held(here)).own
    assert label(await yard.placed()) == "us"
    nowhere = await yard.held(Request.of("hello", limits={"region": "mars"}))
    assert nowhere.why is Reason.DENIED


async def test_a_request_goes_only_where_the_provider_has_a_word_for_all_of_it() -> None:
    claude = {"name": "claude", "provider": "anthropic", "weight": 1000}
    yard = Yard(catalog(claude, {"name": "gpt"}))
    seeded = Request.of("hello", params={"seed": 1})
    assert label(await yard.placed()) == "claude"
    assert {label(await yard.placed(seeded)) for _ in range(20)} == {"gpt"}
    assert {label(await yard.placed(seeded, avoid=["gpt"])) for _ in range(5)} == {"gpt"}
    assert not yard.balancer.elsewhere(yard.catalog, yard.model, seeded, ["gpt"])
    assert yard.balancer.elsewhere(yard.catalog, yard.model, Request.of("hello"), ["gpt"])
    yard.fail(await yard.placed(seeded), FailureKind.RETRYABLE)
    hold = await yard.held(seeded)
    assert hold.why is Reason.FAILING and hold.own
    await yard.placed()


async def test_what_no_endpoint_has_a_word_for_is_refused_by_the_call() -> None:
    yard = Yard(catalog({"name": "claude", "provider": "anthropic"}, {"provider": "bedrock"}))
    await yard.placed(Request.of("hello", params={"seed": 1}))


async def test_a_tenant_at_its_limit_holds_up_nobody_else() -> None:
    quotas = {"tenants": {"acme": {"requests_per_min": 1, "interactive_share": 0}}}
    yard = Yard(catalog({"quota": {"requests_per_min": 6000}}, quotas=quotas))
    acme = Request.of("hello", metadata={"tenant": "acme"})
    await yard.placed(acme)
    hold = await yard.held(acme)
    assert hold.own and hold.everywhere and hold.why is None
    assert hold.wait_s > 30
    await yard.placed(Request.of("hello", metadata={"tenant": "other"}))


async def test_a_model_at_its_limit_holds_up_all() -> None:
    quotas = {"tenants": {"acme": {"requests_per_min": 1000}}}
    yard = Yard(catalog({}, quotas=quotas, quota={"requests_per_min": 1}))
    acme = Request.of("hello", metadata={"tenant": "acme"})
    await yard.placed(acme)
    hold = await yard.held(acme)
    assert not hold.own and hold.why is None


async def test_without_redis_a_worker_keeps_to_the_quota_by_itself() -> None:
    yard = Yard(catalog({"quota": {"concurrency": 2, "interactive_share": 0}}))
    first = await yard.placed()
    await yard.placed()
    assert isinstance(await yard.place(), Hold)
    yard.answer(first)
    await yard.placed()


async def test_a_call_that_waits_for_its_turn_does_not_go_where_calls_fail_meanwhile() -> None:
    yard = Yard(catalog({"quota": {"requests_per_min": 600, "interactive_share": 0}}))
    burst = [await yard.placed() for _ in range(12)]
    waiting = asyncio.ensure_future(yard.place())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert burst[0].post.in_flight == 13
    yard.fail(burst[0], FailureKind.LIMITED, 60.0)
    hold = await waiting
    assert isinstance(hold, Hold) and hold.why is Reason.LIMITED
    assert burst[0].post.in_flight == 11


async def test_a_call_does_not_wait_for_a_turn_beyond_its_deadline() -> None:
    yard = Yard(catalog({"quota": {"requests_per_min": 60, "interactive_share": 0}}))
    await yard.placed()
    hold = await yard.held(Request.of("hello", deadline=yard.clock.now + 0.1))
    assert hold.wait_s > 0.1


async def test_whatever_happens_to_calls_their_places_are_free_again() -> None:
    quota = {"requests_per_min": 60000, "concurrency": 40}
    yard = Yard(catalog({"quota": quota}, {}, {"quota": quota}, breaker={"failures": 3}))
    chance = random.Random(7)
    kinds = [*FailureKind]
    seen = set()

    async def one() -> None:
        soon = Request.of("hello", deadline=yard.clock.now + 0.02)
        place = await yard.place(soon)
        if not isinstance(place, Place):
            return
        seen.add(place.post.line.label)
        try:
            await asyncio.sleep(chance.random() / 100)
            if chance.random() < 0.5:
                yard.answer(place)
            else:
                yard.fail(place, chance.choice(kinds), chance.choice([None, 0.01]))
            assert place.over
        finally:
            yard.balancer.given_up(place)

    for _ in range(30):
        calls = [asyncio.ensure_future(one()) for _ in range(20)]
        await asyncio.sleep(0)
        for call in calls:
            if chance.random() < 0.3:
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        yard.clock.now += 30
    (desk,) = yard.balancer._desks
    assert [(post.in_flight, post.probes) for post in desk.posts] == [(0, 0)] * 3
    assert not yard.balancer._gate._in_flight
    assert len(seen) == 3


async def test_two_keys_at_one_address_are_two_endpoints() -> None:
    address = {"base_url": "https://api.test/v1"}
    yard = Yard(catalog({**address, "api_key": "one"}, {**address, "api_key": "two"}))
    first = await yard.placed()
    yard.fail(first, FailureKind.DENIED)
    second = await yard.placed()
    assert label(second) != label(first)
    sessions = [Request.of("hello", metadata={"session": str(number)}) for number in range(40)]
    both = Yard(
        catalog({**address, "api_key": "one"}, {**address, "api_key": "two"}, balance="sticky")
    )
    counts = Counter([label(await both.placed(each)) for each in sessions])
    assert len(counts) == 2


async def test_calls_that_go_back_to_the_head_of_their_queue_leave_newest_first() -> None:
    """Each is put before what is there: so the oldest is the next to be taken."""
    yard = Yard(catalog({"quota": {"requests_per_min": 1, "interactive_share": 0}}))
    await yard.placed()
    caller, left = Caller(yard.balancer), []

    async def one(number: int) -> None:
        request = Request.of("hello")
        called = await caller.call(yard.catalog, "id", "", call_of(request), request)
        assert isinstance(called, Failed) and isinstance(called.move, Later)
        assert called.attempts == ()
        left.append(number)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert left == list(range(20))[::-1]


async def test_a_call_whose_deadline_passes_while_it_waits_is_not_made() -> None:
    yard = Yard(catalog({"quota": {"requests_per_min": 600, "interactive_share": 0}}))
    burst = [await yard.placed() for _ in range(12)]
    request = Request.of("hello", deadline=time.time() + 0.05)
    called = await Caller(yard.balancer).call(yard.catalog, "id", "", call_of(request), request)
    assert isinstance(called, Failed) and isinstance(called.move, Die)
    assert called.move.reason is DeadReason.EXPIRED
    assert called.attempts[:-1] == ()
    assert all(each.endpoint == "none" for each in called.attempts)
    assert burst[0].post.in_flight == 12


async def test_what_stays_waits_here_until_it_may_call() -> None:
    """And a lost claim or a deadline is found before the call, not after it."""
    yard = Yard(catalog({"quota": {"concurrency": 1, "interactive_share": 0}}))
    place = await yard.placed()
    request = Request.of("hello")
    caller = Caller(yard.balancer)
    staying = asyncio.ensure_future(
        caller.call(yard.catalog, "id", "", call_of(request), request, stays=True)
    )
    await asyncio.sleep(0.01)
    assert not staying.done()
    staying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staying
    assert place.post.in_flight == 1


async def test_who_asks_whether_a_call_is_wanted_has_no_place_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    yard = Yard(catalog({}, breaker={"failures": 100}, retry={"base_s": 0.01, "cap_s": 0.02}))
    place = await yard.placed()
    yard.balancer.given_up(place)

    async def fail(*_: Any, **__: Any) -> Completion:
        raise ProviderError(FailureKind.RETRYABLE, "no")

    monkeypatch.setattr(type(place.line.provider), "complete", fail)
    in_flight: list[int] = []

    async def unwanted() -> bool:
        in_flight.append(place.post.in_flight)
        return True

    request, caller = Request.of("hello"), Caller(yard.balancer)
    called = await caller.call(yard.catalog, "id", "", call_of(request), request, unwanted=unwanted)
    assert isinstance(called, Failed) and isinstance(called.move, Die)
    assert len(called.attempts) == 1 and in_flight == [0]


def call_of(request: Request) -> Call:
    plan = Plan(steps=(Step(model="m"),))
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=0.0, plan=plan
    )
    return Call(request=request, decision=decision)


def test_a_balancer_that_was_closed_can_be_used_on_another_loop() -> None:
    yard = Yard(catalog({"quota": {"requests_per_min": 6000, "concurrency": 5}}))

    async def use() -> None:
        yard.answer(await yard.placed())
        await yard.balancer.aclose()

    for _ in range(3):
        asyncio.run(use())


@pytest.mark.parametrize("error", [asyncio.CancelledError()])
async def test_a_call_cancelled_while_it_waits_for_its_turn_holds_nothing(
    error: asyncio.CancelledError,
) -> None:
    yard = Yard(catalog({"quota": {"requests_per_min": 60, "interactive_share": 0}}))
    first = await yard.placed()
    waiting = asyncio.ensure_future(yard.place())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert first.post.in_flight == 2
    waiting.cancel()
    with pytest.raises(type(error)):
        await waiting
    assert first.post.in_flight == 1
