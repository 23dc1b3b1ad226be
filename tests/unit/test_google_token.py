"""How calls without a key get a token of Google's."""

import asyncio
import sys
import threading
from types import ModuleType
from typing import Any

import httpx
import pytest
from fakes.vertex_api import answer
from fakes.vertex_words import FLASH, HELLO, VERTEX, endpoint

from model_workers.providers.base import Completion
from model_workers.providers.google_token import GoogleToken
from model_workers.providers.vertex import Vertex
from modelyard.catalog import Model
from modelyard.errors import FailureKind, ProviderError


class Google:
    """Stands for google-auth's credentials: each refresh gives the next token."""

    quota_project_id: str | None = None

    def __init__(self, *failures: Exception) -> None:
        self.token: str | None = None
        self.valid = False
        self.refreshed = 0
        self.gate = threading.Event()
        self.gate.set()
        self._failures = list(failures)

    def refresh(self, request: Any) -> None:
        assert self.gate.wait(10)
        self.refreshed += 1
        if self._failures:
            raise self._failures.pop(0)
        self.token, self.valid = f"ya29.{self.refreshed}", True


async def signed(token: GoogleToken) -> httpx.Headers:
    message = httpx.Request("POST", VERTEX)
    await token.sign(message, b"")
    return message.headers


class TestGoogleToken:
    async def test_is_renewed_when_it_is_about_to_run_out_and_not_before(self) -> None:
        google = Google()
        token = GoogleToken(lambda: (google, None))
        seen = [(await signed(token))["authorization"] for _ in range(2)]
        google.valid = False
        seen.append((await signed(token))["authorization"])
        assert seen == ["Bearer ya29.1", "Bearer ya29.1", "Bearer ya29.2"]

    async def test_many_calls_wait_for_one_renewal_and_giving_one_up_ends_none(self) -> None:
        google = Google()
        google.gate.clear()
        token = GoogleToken(lambda: (google, None))
        waiting = [asyncio.create_task(signed(token)) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        google.gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert {str(headers) for headers in found[1:]} == {str(await signed(token))}
        assert google.refreshed == 1

    async def test_says_which_project_is_billed(self) -> None:
        google = Google()
        google.quota_project_id = "p-9"
        headers = await signed(GoogleToken(lambda: (google, None)))
        assert headers["x-goog-user-project"] == "p-9"

    async def test_a_renewal_that_failed_is_tried_again_by_the_next_call(self) -> None:
        auth = google_auth(None)
        google = Google(auth["TransportError"]("no route"), auth["RefreshError"]("bad grant"))
        token = GoogleToken(lambda: (google, None))
        kinds = []
        for _ in range(2):
            with pytest.raises(ProviderError, match="no Google access token") as caught:
                await signed(token)
            kinds.append(caught.value.kind)
        assert kinds == [FailureKind.RETRYABLE, FailureKind.DENIED]
        assert (await signed(token))["authorization"] == "Bearer ya29.3"


def google_auth(credentials: Google | None) -> dict[str, Any]:
    """Return stand-ins of google-auth's modules, and of its errors."""
    base = type("GoogleAuthError", (Exception,), {"retryable": False})
    errors = {
        name: type(name, (base,), {})
        for name in ("TransportError", "RefreshError", "DefaultCredentialsError")
    }
    auth = ModuleType("google.auth")
    transport = ModuleType("google.auth.transport.requests")
    transport.Request = object  # type: ignore[attr-defined]

    def default(scopes: list[str]) -> tuple[Google, str]:
        assert scopes == ["https://www.googleapis.com/auth/cloud-platform"]
        if credentials is None:
            raise errors["DefaultCredentialsError"]("Your default credentials were not found.")
        return credentials, "p-1"

    auth.default = default  # type: ignore[attr-defined]
    modules = {
        "google": ModuleType("google"),
        "google.auth": auth,
        "google.auth.transport": ModuleType("google.auth.transport"),
        "google.auth.transport.requests": transport,
    }
    return {"modules": modules, **errors}


async def complete(**fields: Any) -> Completion:
    """Call Vertex AI without a key; the answer says which token came."""

    def handle(call: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answer(call.headers["authorization"]))

    at = endpoint(project="p-1", region="europe-west4", **fields)
    model = Model(name="gemini", provider="vertex", model=FLASH, endpoints=(at,))
    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return await Vertex(model, at, client).complete(HELLO)


class TestWithoutAKey:
    async def test_the_default_credentials_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, module in google_auth(Google())["modules"].items():
            monkeypatch.setitem(sys.modules, name, module)
        assert (await complete()).text == "Bearer ya29.1"
        assert (await complete(api_key="ya29.own")).text == "Bearer ya29.own"

    async def test_there_may_be_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, module in google_auth(None)["modules"].items():
            monkeypatch.setitem(sys.modules, name, module)
        with pytest.raises(ProviderError, match="default credentials were not found") as caught:
            await complete()
        assert caught.value.kind is FailureKind.DENIED

    async def test_google_auth_may_be_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "google.auth", None)
        with pytest.raises(ProviderError, match=r"pip install modelyard\[vertex\]") as caught:
            await complete()
        assert caught.value.kind is FailureKind.DENIED
