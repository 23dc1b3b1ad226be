"""The client under all providers: what bounds it, and which proxy it takes."""

import httpx
import pytest

from model_workers.providers.http import environment_proxy, make_client
from modelyard.catalog import Endpoint
from modelyard.errors import SettingsError


class TestClient:
    async def test_connecting_is_bounded_apart_from_answering(self) -> None:
        endpoint = Endpoint(base_url="https://models.example/v1")
        async with make_client(endpoint, timeout_s=120.0, concurrency=5) as client:
            assert client.timeout == httpx.Timeout(120.0, connect=10.0)

    async def test_a_short_timeout_is_the_connect_timeout_too(self) -> None:
        endpoint = Endpoint(base_url="http://127.0.0.1:1/v1")
        async with make_client(endpoint, timeout_s=2.0, concurrency=5) as client:
            assert client.timeout.connect == 2.0

    @pytest.fixture(autouse=True)
    def no_proxies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    @pytest.mark.parametrize(
        ("url", "proxy"),
        [
            ("https://models.example/v1", "http://proxy.example:3128"),
            ("http://models.example/v1", None),
            ("https://inside.example/v1", None),
            ("https://localhost/v1", None),
            ("https://127.0.0.1/v1", None),
            ("https://[::1]/v1", None),
        ],
    )
    def test_the_environments_proxy_is_for_others_than_loopback(
        self, monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
        monkeypatch.setenv("NO_PROXY", "inside.example")
        found = environment_proxy(httpx.URL(url))
        assert (str(found.url) if found else None) == proxy

    def test_a_proxy_that_aiohttp_cannot_use_is_named_without_its_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@proxy.example:1080")
        with pytest.raises(SettingsError, match="socks5") as caught:
            environment_proxy(httpx.URL("https://models.example/v1"))
        assert "secret" not in str(caught.value)
