"""Endpoints that are asked whether they live, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import redis
from aiohttp import web

from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.desk import Place
from model_workers.providers.base import Completion
from modelyard.catalog import Catalog
from modelyard.circuit import Hold, Reason
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage

REQUEST = Request.of("hello")


class Server:
    """A server that is told what to answer to a probe."""

    def __init__(self) -> None:
        self.status = 200
        self.probes: list[tuple[str, str | None]] = []
        self.port = 0
        self.asked = asyncio.Condition()

    async def models(self, request: web.Request) -> web.Response:
        async with self.asked:
            self.probes.append((request.path, request.headers.get("authorization")))
            self.asked.notify_all()
        return web.json_response({"data": []}, status=self.status)

    async def was_asked(self, times: int) -> None:
        """Wait until it was asked so often."""
        async with asyncio.timeout(20), self.asked:
            await self.asked.wait_for(lambda: len(self.probes) >= times)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


def catalog(port: int, **fields: Any) -> Catalog:
    endpoint = {"base_url": f"http://127.0.0.1:{port}/v1", "api_key": "sk-1"}
    fields = fields or {"probe": {"every_s": 1.0}}
    model = {"name": "m", "provider": "openai", "endpoints": [endpoint], **fields}
    return Catalog.model_validate({"models": [model], "routes": {"default": {"otherwise": ["m"]}}})


async def until_held(balancer: Balancer, catalog: Catalog, *, held: bool) -> Place | Hold:
    async with asyncio.timeout(20):
        while True:
            found = await balancer.place(catalog, catalog.models[0], REQUEST)
            if isinstance(found, Place):
                balancer.given_up(found)
            if isinstance(found, Hold) == held:
                return found
            await asyncio.sleep(0.02)


async def test_one_that_is_silent_is_left_alone_and_called_again_once_it_answers(
    server: Server,
) -> None:
    known, balancer = catalog(server.port), Balancer(draw=lambda: 0.0)
    await until_held(balancer, known, held=False)
    server.status = 503
    hold = await until_held(balancer, known, held=True)
    assert isinstance(hold, Hold)
    assert hold.why is Reason.FAILING
    assert server.probes[0] == ("/v1/models", "Bearer sk-1")
    server.status = 200
    await until_held(balancer, known, held=False)
    await balancer.aclose()


async def test_a_refused_key_is_a_denial(server: Server) -> None:
    known, balancer = catalog(server.port), Balancer(draw=lambda: 0.0)
    server.status = 401
    hold = await until_held(balancer, known, held=True)
    assert isinstance(hold, Hold)
    assert hold.why is Reason.DENIED
    await balancer.aclose()


# -- knocking: without a probe in the catalog


PATIENT: dict[str, Any] = {"failures": 1, "failure_rate": 0.1, "cooldown_s": 600, "longest_s": 600}


async def fail_once(balancer: Balancer, known: Catalog) -> None:
    """Have a call fail, after which nobody calls the endpoint for minutes."""
    place = await balancer.place(known, known.models[0], REQUEST)
    assert isinstance(place, Place)
    balancer.ended(place, None, ProviderError(FailureKind.RETRYABLE, "down"))
    held = await balancer.place(known, known.models[0], REQUEST)
    assert isinstance(held, Hold) and held.wait_s > 300


async def test_one_that_was_gone_and_is_there_again_is_tried_before_its_cooldown_ends(
    server: Server,
) -> None:
    known, balancer = catalog(server.port, breaker=PATIENT), Balancer(draw=lambda: 0.0)
    server.status = 503
    await fail_once(balancer, known)
    await server.was_asked(2)
    held = await balancer.place(known, known.models[0], REQUEST)
    assert isinstance(held, Hold)
    server.status = 200
    await until_held(balancer, known, held=False)
    # One call may try it, and that one decides.
    probe = await balancer.place(known, known.models[0], REQUEST)
    assert isinstance(probe, Place) and probe.probing
    assert isinstance(await balancer.place(known, known.models[0], REQUEST), Hold)
    balancer.ended(probe, None, ProviderError(FailureKind.RETRYABLE, "down again"))
    held = await balancer.place(known, known.models[0], REQUEST)
    assert isinstance(held, Hold) and held.wait_s > 300
    await balancer.aclose()


async def test_one_that_answers_knocks_while_its_calls_fail_waits_for_its_cooldown(
    server: Server,
) -> None:
    known, balancer = catalog(server.port, breaker=PATIENT), Balancer(draw=lambda: 0.0)
    await fail_once(balancer, known)
    await server.was_asked(1)
    # Nobody knocks again for this failure, and nobody calls.
    for _ in range(100):
        assert isinstance(await balancer.place(known, known.models[0], REQUEST), Hold)
        await asyncio.sleep(0.02)
    assert len(server.probes) == 1
    await balancer.aclose()


async def test_who_denies_or_is_at_a_limit_is_not_knocked_at(server: Server) -> None:
    known = catalog(server.port, breaker={**PATIENT, "denied_s": 600})
    for kind in (FailureKind.DENIED, FailureKind.LIMITED):
        balancer = Balancer(draw=lambda: 0.0)
        place = await balancer.place(known, known.models[0], REQUEST)
        assert isinstance(place, Place)
        balancer.ended(place, None, ProviderError(kind, "no", retry_after_s=600))
        for _ in range(60):
            assert isinstance(await balancer.place(known, known.models[0], REQUEST), Hold)
            await asyncio.sleep(0.02)
        assert server.probes == []
        await balancer.aclose()


async def test_the_other_workers_hear_of_one_that_is_there_again(
    server: Server, redis_url: str
) -> None:
    known = catalog(server.port, breaker=PATIENT)
    one, other = (
        Balancer(partial(redis.Redis.from_url, redis_url), process=name, draw=lambda: 0.0)
        for name in ("one", "other")
    )
    for each in (one, other):
        place = await each.place(known, known.models[0], REQUEST)
        assert isinstance(place, Place)
        each.given_up(place)
    server.status = 503
    await fail_once(one, known)
    await until_held(other, known, held=True)
    await server.was_asked(4)
    server.status = 200
    await until_held(one, known, held=False)
    place = await one.place(known, known.models[0], REQUEST)
    assert isinstance(place, Place)
    one.ended(place, Completion("yes", "m", Usage()), None)
    await until_held(other, known, held=False)
    for each in (one, other):
        await each.aclose()
