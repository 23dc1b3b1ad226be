"""Endpoints that are asked whether they live, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.circuit import Hold, Reason
from model_workers.endpoints.desk import Place
from modelyard.catalog import Catalog
from modelyard.messages import Request

REQUEST = Request.of("hello")


class Server:
    """A server that is told what to answer to a probe."""

    def __init__(self) -> None:
        self.status = 200
        self.probes: list[tuple[str, str | None]] = []
        self.port = 0

    async def models(self, request: web.Request) -> web.Response:
        self.probes.append((request.path, request.headers.get("authorization")))
        return web.json_response({"data": []}, status=self.status)


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


def catalog(port: int) -> Catalog:
    endpoint = {"base_url": f"http://127.0.0.1:{port}/v1", "api_key": "sk-1"}
    probe = {"every_s": 1.0}
    model = {"name": "m", "provider": "openai", "endpoints": [endpoint], "probe": probe}
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
