"""How calls of Bedrock are signed."""

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from fakes.bedrock_api import signature_problem
from fakes.bedrock_words import BASE, ROUTER, dialect
from fakes.server import Asked

from model_workers.providers.sigv4 import SigV4, region_of
from modelyard.catalog import Endpoint
from modelyard.errors import FailureKind, ProviderError


class TestRegion:
    @pytest.mark.parametrize(
        ("address", "given", "region"),
        [
            ("https://bedrock-runtime.eu-west-1.amazonaws.com", None, "eu-west-1"),
            ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", None, "us-gov-west-1"),
            ("https://v-1.bedrock-runtime.us-east-1.vpce.amazonaws.com", None, "us-east-1"),
            ("https://bedrock-runtime.eu-west-1.amazonaws.com", "us-west-2", "us-west-2"),
            ("https://proxy.example", None, ""),
        ],
    )
    def test_is_given_or_follows_from_the_host(
        self, address: str, given: str | None, region: str
    ) -> None:
        assert region_of(Endpoint(base_url=address, region=given)) == region


CONTENT = b'{"messages":[]}'


def call() -> httpx.Request:
    url = dialect(ROUTER).address(BASE)
    return httpx.Request("POST", url, content=CONTENT, headers={"content-type": "application/json"})


class Keys:
    """Credentials that run out when a test says so."""

    def __init__(self) -> None:
        self.is_old = False
        self.renewed = 0
        self.problem: Exception | None = None

    def refresh_needed(self) -> bool:
        return self.is_old

    def get_frozen_credentials(self) -> Any:
        if self.problem is not None:
            raise self.problem
        if self.is_old:
            # Asking AWS takes its time, and the loop has other calls to see to.
            assert threading.current_thread() is not threading.main_thread()
            self.renewed += 1
        self.is_old = False
        return SimpleNamespace(access_key=f"AKID{self.renewed}")


class StandIn:
    """As much of botocore as the signer calls, by its documented names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: Keys | None) -> None:
        self.searches = 0
        self.signed: list[Any] = []

        def get_session() -> Any:
            self.searches += 1
            return SimpleNamespace(get_credentials=lambda: keys)

        def sigv4_auth(frozen: Any, service: str, region: str) -> Any:
            def add_auth(request: Any) -> None:
                self.signed.append(request)
                request.headers["Authorization"] = f"{frozen.access_key}/{region}/{service}"
                request.headers["X-Amz-Date"] = "20260101T000000Z"

            return SimpleNamespace(add_auth=add_auth)

        parts: dict[str, dict[str, Any]] = {
            "": {},
            ".session": {"get_session": get_session},
            ".auth": {"SigV4Auth": sigv4_auth},
            ".awsrequest": {"AWSRequest": SimpleNamespace},
        }
        for name, members in parts.items():
            module = ModuleType(f"botocore{name}")
            vars(module).update(members)
            monkeypatch.setitem(sys.modules, f"botocore{name}", module)


class TestSignature:
    async def test_is_over_the_call_as_it_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        botocore = StandIn(monkeypatch, Keys())
        message = call()
        await SigV4("us-east-1").sign(message, CONTENT)
        assert message.headers["authorization"] == "AKID0/us-east-1/bedrock"
        assert message.headers["x-amz-date"] == "20260101T000000Z"
        (signed,) = botocore.signed
        assert (signed.method, signed.url, signed.data) == ("POST", str(message.url), CONTENT)

    async def test_credentials_are_looked_for_once_and_renewed_when_due(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = Keys()
        botocore = StandIn(monkeypatch, keys)
        signer = SigV4("us-east-1")
        seen = []
        for is_old in (False, False, True, False):
            keys.is_old = is_old
            message = call()
            await signer.sign(message, b"a" * 300_000)
            seen.append(message.headers["authorization"].split("/")[0])
        assert seen == ["AKID0", "AKID0", "AKID1", "AKID1"]
        assert botocore.searches == 1

    async def test_without_credentials_says_where_to_put_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        StandIn(monkeypatch, None)
        with pytest.raises(ProviderError, match="AWS_ACCESS_KEY_ID") as caught:
            await SigV4("us-east-1").sign(call(), CONTENT)
        assert caught.value.kind == FailureKind.DENIED

    async def test_without_a_region_asks_for_one(self) -> None:
        with pytest.raises(ProviderError, match="region") as caught:
            await SigV4("").sign(call(), CONTENT)
        assert caught.value.kind == FailureKind.DENIED

    @pytest.mark.parametrize(
        ("problem", "kind"),
        [
            (type("MetadataRetrievalError", (Exception,), {})("secret"), FailureKind.RETRYABLE),
            (type("UnauthorizedSSOTokenError", (Exception,), {})("secret"), FailureKind.DENIED),
        ],
    )
    async def test_what_keeps_credentials_away_is_named_and_no_more(
        self, monkeypatch: pytest.MonkeyPatch, problem: Exception, kind: FailureKind
    ) -> None:
        keys = Keys()
        keys.problem = problem
        StandIn(monkeypatch, keys)
        with pytest.raises(ProviderError, match=type(problem).__name__) as caught:
            await SigV4("us-east-1").sign(call(), CONTENT)
        assert caught.value.kind == kind
        assert "secret" not in str(caught.value)

    async def test_without_botocore_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "botocore", None)
        monkeypatch.setitem(sys.modules, "botocore.session", None)
        with pytest.raises(ProviderError, match=r"pip install modelyard\[bedrock\]") as caught:
            await SigV4("us-east-1").sign(call(), CONTENT)
        assert caught.value.kind == FailureKind.DENIED

    async def test_of_botocore_itself_is_what_aws_would_calculate(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "IQoJtoken")
        message = call()
        await SigV4("us-east-1").sign(message, CONTENT)
        headers = {name.lower(): value for name, value in message.headers.items()}
        asked = Asked(message.url.raw_path.decode(), headers, CONTENT)
        wrong = signature_problem(asked, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "us-east-1")
        assert wrong is None
        assert "x-amz-security-token" in headers["authorization"]
