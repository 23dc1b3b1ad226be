"""Names that resolve to link-local addresses: denied, whatever a later lookup says."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
from provider_calls import SAID, Kind, answered, failed
from raw_http import Served, plain, serving, whole

from model_workers.providers import http
from modelyard.errors import FailureKind

K = FailureKind
ADDRESSES = ("169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200")


class Names:
    """What `models.example` resolves to: one list of addresses after the other, then the last."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.lookups = 0
        self._answers = answers
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host != "models.example":
            return self._real(host, port, *args, **more)
        found = self._answers[min(self.lookups, len(self._answers) - 1)]
        self.lookups += 1
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0))
            if ":" in each
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]


class TestLinkLocalAddresses:
    @pytest.fixture(autouse=True)
    def no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_PROXY", "*")  # a proxy would look up the names

    @pytest.fixture
    def resolve(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Names]:
        def use(*answers: tuple[str, ...]) -> Names:
            names = Names(*answers)
            monkeypatch.setattr(socket, "getaddrinfo", names)
            return names

        return use

    def named(self, server: Served) -> str:
        return server.base_url.replace("127.0.0.1", "models.example")

    @pytest.mark.parametrize("address", ADDRESSES)
    async def test_a_name_that_resolves_to_one_is_denied(
        self, kind: Kind, address: str, resolve: Callable[..., Names]
    ) -> None:
        resolve((address,))
        attempt = await failed(kind, "http://models.example")
        assert (attempt.kind, attempt.status) == (K.DENIED, None)
        assert f"'models.example' resolves to {address}, which is a link-" in attempt.message
        assert "allow_link_local" in attempt.message

    async def test_of_several_addresses_only_the_others_are_called(
        self, kind: Kind, resolve: Callable[..., Names]
    ) -> None:
        async with serving(whole(plain(kind.well(SAID)))) as server:
            resolve((*ADDRESSES, "127.0.0.1"))
            assert await answered(kind, self.named(server)) == SAID

    async def test_what_was_judged_is_what_is_called(
        self, kind: Kind, resolve: Callable[..., Names]
    ) -> None:
        """A name that changes its mind after it was looked up is not looked up again."""
        async with serving(whole(plain(kind.well(SAID)))) as server:
            names = resolve(("127.0.0.1",), ("169.254.169.254",))
            assert await answered(kind, self.named(server)) == SAID
            assert names.lookups == 1
            attempt = await failed(kind, self.named(server))
            assert (attempt.kind, server.calls) == (K.DENIED, 1)

    async def test_an_endpoint_may_allow_them(
        self, kind: Kind, resolve: Callable[..., Names], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # No test can serve at a link-local address: loopback stands for one.
        monkeypatch.setattr(http, "is_link_local", lambda host: host == "127.0.0.1")
        async with serving(whole(plain(kind.well(SAID)))) as server:
            resolve(("127.0.0.1",))
            assert (await failed(kind, self.named(server))).kind is K.DENIED
            assert server.calls == 0
            assert await answered(kind, self.named(server), allow_link_local=True) == SAID

    async def test_loopback_and_private_networks_are_called(
        self, kind: Kind, resolve: Callable[..., Names]
    ) -> None:
        async with serving(whole(plain(kind.well(SAID)))) as server:
            resolve(("127.0.0.1",))
            assert await answered(kind, self.named(server)) == SAID
            assert await answered(kind, server.base_url) == SAID
