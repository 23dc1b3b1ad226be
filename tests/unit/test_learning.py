"""What an answer teaches of limits, as the next call finds it."""

from collections.abc import AsyncIterator

import pytest

from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.desk import Place
from model_workers.providers.base import Allowance, Completion
from modelyard.catalog import Catalog
from modelyard.messages import Request, Usage

REQUEST = Request.of("hello")


@pytest.fixture
def catalog() -> Catalog:
    endpoints = [{"base_url": "http://a.test"}]
    model = {"name": "m", "provider": "openai", "endpoints": endpoints}
    return Catalog.model_validate({"models": [model], "routes": {"default": {"otherwise": ["m"]}}})


@pytest.fixture
async def balancer() -> AsyncIterator[Balancer]:
    balancer = Balancer(clock=lambda: 1_000.0)
    yield balancer
    await balancer.aclose()


async def after(balancer: Balancer, catalog: Catalog, tokens: int, told: Allowance) -> Place:
    """Return where the next call goes, after one that took so many tokens and was told this."""
    first = await balancer.place(catalog, catalog.model("m"), REQUEST)
    assert isinstance(first, Place)
    usage = Usage(input_tokens=tokens - 1, output_tokens=1)
    balancer.ended(first, Completion("yes", "m", usage, allowance=told), None)
    second = await balancer.place(catalog, catalog.model("m"), REQUEST)
    assert isinstance(second, Place)
    balancer.given_up(second)
    return second


@pytest.mark.parametrize("left", [0.0, 1.0])
async def test_a_limit_that_is_less_than_one_call_took_is_none(
    balancer: Balancer, catalog: Catalog, left: float
) -> None:
    told = Allowance(limit_tokens=40.0, remaining_tokens=left, reset_tokens_s=60.0)
    assert (await after(balancer, catalog, 2_000, told)).scopes == ()


async def test_a_limit_that_calls_fit_into_is_kept_to(balancer: Balancer, catalog: Catalog) -> None:
    told = Allowance(limit_tokens=40_000.0, remaining_tokens=10_000.0, reset_tokens_s=45.0)
    (scope,) = (await after(balancer, catalog, 2_000, told)).scopes
    assert scope.tokens is not None
