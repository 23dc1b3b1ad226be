"""What holds for lines and loads, however the catalog changes under calls."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.desk import Place
from model_workers.endpoints.desks import Desks
from model_workers.providers.base import Completion
from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage

ANSWER = Completion(text="yes", usage=Usage(input_tokens=1, output_tokens=1), provider_model="m")
REQUEST = Request.of("hello")


class Silent:
    """A provider that is only made and closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        raise NotImplementedError

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


ENDPOINT = st.fixed_dictionaries(
    {
        "name": st.sampled_from("ab"),
        "base_url": st.sampled_from(["http://1.test", "http://2.test"]),
        "weight": st.sampled_from([1, 2]),
        "quota": st.sampled_from([{}, {"concurrency": 3}, {"requests_per_min": 60000}]),
    }
)
MODEL = st.none() | st.fixed_dictionaries(
    {
        "endpoints": st.lists(ENDPOINT, min_size=1, max_size=3),
        "timeout_s": st.sampled_from([1, 2]),
        "quota": st.sampled_from([{}, {"concurrency": 4}]),
    }
)
STEP = (
    st.tuples(st.just("change"), MODEL)
    | st.tuples(st.just("call"), st.integers(0, 3))
    | st.tuples(st.sampled_from(["answer", "fail", "limit", "give up"]), st.integers(0, 9))
)


def catalog(model: dict[str, Any] | None) -> Catalog:
    models: list[dict[str, Any]] = [{"name": "rest", "provider": "extractive", "model": "lead"}]
    if model is not None:
        models.append({"name": "m", "provider": "openai", **model})
    return Catalog.model_validate({"models": models, "routes": {"r": {"otherwise": ["rest"]}}})


async def run(first: Any, steps: list[tuple[str, Any]], every: list[Silent]) -> None:
    now, balancer = catalog(first), Balancer()
    known = [now]
    places: list[Place] = []
    for what, which in steps:
        if what == "change":
            now = catalog(which)
            known.append(now)
            balancer.elsewhere(now, now.model("rest"), REQUEST, "")
        elif what == "call":
            # One that was begun some catalogs ago, and still goes on by it.
            begun = known[max(0, len(known) - 1 - which)]
            if any(model.name == "m" for model in begun.models):
                found = await balancer.place(begun, begun.model("m"), REQUEST)
                if isinstance(found, Place):
                    assert not found.line.closed
                    places.append(found)
        elif places:
            place = places.pop(which % len(places))
            if what == "answer":
                balancer.ended(place, ANSWER, None)
            elif what == "give up":
                balancer.given_up(place)
            else:
                kind = FailureKind.RETRYABLE if what == "fail" else FailureKind.LIMITED
                balancer.ended(place, None, ProviderError(kind, "no", retry_after_s=0.01))
            balancer.given_up(place)
        await settled()
        check(balancer, places, every)
    for place in places:
        balancer.given_up(place)
    await settled()
    check(balancer, [], every)
    assert not balancer._gate._in_flight
    await balancer.aclose()
    assert [provider.closed for provider in every] == [1] * len(every)


def check(balancer: Balancer, places: list[Place], every: list[Silent]) -> None:
    posts = [post for desk in balancer._desks for post in desk.posts]
    used = {place.line for place in places}
    for line in {post.line for post in posts} | used:
        assert line.calls == sum(place.line is line for place in places)
        assert not line.closed
    for post in {*posts, *(place.post for place in places)}:
        assert post.in_flight == sum(place.post is post for place in places)
    # What is open is on a desk, or some call goes through it.
    needed = {id(line.provider) for line in used} | {id(post.line.provider) for post in posts}
    assert {id(provider) for provider in every if not provider.closed} == needed


async def settled() -> None:
    """Let what was begun on this loop come to its end."""
    for _ in range(5):
        await asyncio.sleep(0)


@settings(max_examples=200, deadline=None)
@given(first=MODEL.filter(bool), steps=st.lists(STEP, max_size=40))
def test_no_line_is_closed_under_a_call_and_none_is_left_open(
    first: Any, steps: list[tuple[str, Any]]
) -> None:
    every: list[Silent] = []

    def make(label: str, model: Model, endpoint: Endpoint | None) -> Silent:
        every.append(Silent())
        return every[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model_workers.lines.made", make)
        asyncio.run(run(first, steps, every))


async def test_a_call_that_waited_does_not_bring_an_older_catalog_back() -> None:
    first, unseen, newest = (
        catalog({"endpoints": [{"name": name, "base_url": f"http://{name}.test"}]})
        for name in "abc"
    )
    current = [first]
    desks = Desks(lambda: current[0])

    def endpoint(given: Catalog) -> str:
        return desks.of(given, given.model("m"), 0.0).posts[0].line.label

    assert endpoint(first) == "a"
    current[0] = newest
    # `unseen` was in force for a moment, in which a call was begun that comes here only now.
    assert [endpoint(given) for given in (newest, unseen, newest)] == ["c", "c", "c"]
    await desks.aclose()
