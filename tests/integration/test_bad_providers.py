"""Providers that misbehave: each is a classified attempt with a reason, whichever provider it is.

All over sockets, by the way that a worker calls: catalog, balancer, provider, HTTP.
"""

import asyncio
import contextlib
import ipaddress
import json
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fakes import anthropic_api, bedrock_api, vertex_api
from fakes.anthropic_api import AnthropicApi
from fakes.bedrock_api import BedrockApi
from fakes.server import Canned
from fakes.vertex_api import VertexApi

from model_workers.caller import Answered, Caller
from model_workers.providers import http
from model_workers.providers.http import MAX_ANSWER_BYTES
from modelyard.advance import Die
from modelyard.catalog import Catalog
from modelyard.errors import FailureKind
from modelyard.messages import Attempt, Call, DeadReason, Request
from modelyard.plan import Decision, Plan, Step
from modelyard.testing import FakeProvider

K = FailureKind
KEY = "key-that-nobody-may-read-0123456789"
SAID = "The yard is full."
OTHER_SCHEMA = {"object": "list", "data": [{"id": "small"}], "status": "ok"}
TLS_BEGINS = b"\x16"
ADDRESSES = ("169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200")


@dataclass(frozen=True)
class Kind:
    """A provider: what its endpoints need, and its answers that are well and that refuse."""

    name: str
    well: Callable[[str], dict[str, Any]]
    refusing: tuple[int, Any]
    lost: str
    endpoint: Mapping[str, Any] = field(default_factory=dict)


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return {"model": "m", "choices": [{**choice, "finish_reason": "stop"}]}


def claude(text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
    }


def converse(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": [{"text": text}]}
    return {"output": {"message": message}, "stopReason": "end_turn"}


def gemini(text: str) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text}]}
    return {"candidates": [{"content": content, "finishReason": "STOP"}]}


FILTERED = {"error": {"code": "content_filter", "message": "The response was filtered."}}
REFUSING = {"choices": [{"message": {"role": "assistant", "refusal": "I'd rather not."}}]}
KINDS = {
    kind.name: kind
    for kind in (
        Kind("openai", completion, (200, REFUSING), "no choices[0].message"),
        Kind(
            "azure",
            completion,
            (400, FILTERED),
            "no choices[0].message",
            {"api_version": "2024-10-21"},
        ),
        Kind(
            "anthropic",
            claude,
            (200, {"type": "message", "content": [], "stop_reason": "refusal"}),
            "no content",
        ),
        Kind(
            "bedrock",
            converse,
            (200, {**converse(""), "stopReason": "guardrail_intervened"}),
            "no output.message.content",
            {"region": "eu-west-1"},
        ),
        Kind(
            "vertex",
            gemini,
            (200, {"promptFeedback": {"blockReason": "SAFETY"}}),
            "no candidates",
            {"project": "p", "region": "europe-west4"},
        ),
    )
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


async def called(kind: Kind, base_url: str, key: str = KEY, **more: Any) -> Answered | Attempt:
    """Call once as a worker does; return the answer, or the attempt that failed."""
    stream = more.pop("stream", False)
    endpoint = {"base_url": base_url, "api_key": key, **kind.endpoint, **more}
    model = {
        "name": "small",
        "provider": kind.name,
        "endpoints": [endpoint],
        "retry": {"calls": 1},
        "timeout_s": 60,
        "stream": stream,
    }
    catalog = Catalog.model_validate(
        {"models": [model], "routes": {"default": {"otherwise": ["small"]}}}
    )
    decision = Decision(
        route="default",
        intent="other",
        why="",
        input_tokens=1,
        decided_at=0.0,
        plan=Plan(steps=(Step(model="small"),)),
    )
    call = Call(
        request=Request.of("Is there room in the yard for one more train?"), decision=decision
    )
    caller = Caller()
    try:
        outcome = await caller.call(catalog, "r-1", "", call, call.request)
    finally:
        await caller.aclose()
    if isinstance(outcome, Answered):
        return outcome
    (attempt,) = outcome.attempts
    assert isinstance(outcome.move, Die)
    refused = attempt.kind is K.REFUSED
    assert outcome.move.reason is (DeadReason.REFUSED if refused else DeadReason.EXHAUSTED)
    assert KEY not in attempt.message
    assert len(attempt.message) < 500
    return attempt


async def failed(kind: Kind, base_url: str, **more: Any) -> Attempt:
    outcome = await called(kind, base_url, **more)
    assert isinstance(outcome, Attempt), "it was answered"
    return outcome


async def answered(kind: Kind, base_url: str, **more: Any) -> str:
    outcome = await called(kind, base_url, **more)
    assert isinstance(outcome, Answered), outcome
    return outcome.completion.text


Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Served:
    """A server that reads whole calls. `calls` counts them."""

    base_url: str
    calls: int = 0


@contextlib.asynccontextmanager
async def serving(write: Write, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Let `write` answer each call, and close the connection after it."""
    served = Served("")
    handling: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who gives up in the middle, of a handshake or an answer, is what is tested here.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if (first := await reader.readexactly(1)) == TLS_BEGINS:
                writer.write(head(400))  # as servers do whose port is no https port
            else:
                asked = (first + await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(asked.partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                served.calls += 1
                await write(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(handle(reader, writer))
        handling.add(task)
        task.add_done_callback(handling.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        served.base_url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        yield served
        if handling:
            await asyncio.wait_for(asyncio.gather(*handling), 10)


def head(status: int, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"content-type: {kind}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(
    body: bytes, status: int = 200, *headers: str, sent: int | None = None, **more: str
) -> Write:
    """Answer with `body`, or with its first bytes only."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, f"content-length: {len(body)}", *headers, **more) + body[:sent])
        await writer.drain()

    return write


def plain(said: Any) -> bytes:
    return json.dumps(said).encode()


class TestKeysAndNames:
    """The fakes are as strict as their originals, whose words these are."""

    @pytest.fixture
    def open_api(self) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
        def fake() -> FakeProvider:
            return FakeProvider(models=["other"], api_key=KEY)

        return {
            "openai": fake,
            "azure": fake,
            "anthropic": lambda: AnthropicApi(KEY),
            "bedrock": lambda: BedrockApi(KEY),
            "vertex": lambda: VertexApi(KEY),
        }

    def address(self, kind: Kind, api: Any) -> str:
        return str(api.azure_url if kind.name == "azure" else api.base_url)

    async def test_a_wrong_key_is_denied(
        self, kind: Kind, open_api: dict[str, Callable[[], AbstractContextManager[Any]]]
    ) -> None:
        with open_api[kind.name]() as api:
            attempt = await failed(kind, self.address(kind, api), key="wrong-key-0123456789")
        assert attempt.kind is K.DENIED
        assert attempt.status == (403 if kind.name == "bedrock" else 401)
        assert "wrong-key" not in attempt.message

    async def test_an_unknown_model_or_deployment_is_denied(
        self, kind: Kind, open_api: dict[str, Callable[[], AbstractContextManager[Any]]]
    ) -> None:
        unknown = {
            "anthropic": Canned(404, anthropic_api.error("not_found_error", "model: small")),
            "bedrock": bedrock_api.failed(
                400, "ValidationException", "The provided model identifier is invalid."
            ),
            "vertex": Canned(404, vertex_api.error(404, "NOT_FOUND", "Publisher Model small")),
        }
        words = {
            "openai": "model_not_found",
            "azure": "DeploymentNotFound",
            "anthropic": "not_found_error: model: small",
            "bedrock": "model identifier is invalid",
            "vertex": "NOT_FOUND: Publisher Model small",
        }
        with open_api[kind.name]() as api:
            if kind.name in unknown:
                api.script(unknown[kind.name])
            attempt = await failed(kind, self.address(kind, api))
        assert attempt.kind is K.DENIED
        assert attempt.status == (400 if kind.name == "bedrock" else 404)
        assert words[kind.name] in attempt.message


class TestBrokenAnswers:
    async def test_an_answer_that_is_well_is_one(self, kind: Kind) -> None:
        """What the others of this class differ from."""
        async with serving(whole(plain(kind.well(SAID)))) as server:
            assert await answered(kind, server.base_url) == SAID

    async def test_a_connection_that_is_closed_in_the_middle(self, kind: Kind) -> None:
        body = plain(kind.well(SAID))
        async with serving(whole(body, sent=len(body) // 2)) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, None)
        assert "lost in the middle of the answer" in attempt.message

    async def test_chunks_that_end_in_the_middle(self, kind: Kind) -> None:
        body = plain(kind.well(SAID))

        async def write(writer: asyncio.StreamWriter) -> None:
            writer.write(head(200, "transfer-encoding: chunked"))
            writer.write(b"%x\r\n%s\r\n" % (len(body), body))  # all of it, but not its end

        async with serving(write) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, None)
        assert "lost in the middle of the answer" in attempt.message

    async def test_a_connection_that_is_closed_before_an_answer(self, kind: Kind) -> None:
        async def write(writer: asyncio.StreamWriter) -> None:
            """Say nothing."""

        async with serving(write) as server:
            attempt = await failed(kind, server.base_url)
        assert attempt.kind is K.RETRYABLE
        assert "closed the connection without an answer" in attempt.message

    async def test_a_whole_answer_of_half_a_json(self, kind: Kind) -> None:
        body = plain(kind.well(SAID))
        async with serving(whole(body[: len(body) // 2])) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, 200)
        assert "the answer is not JSON" in attempt.message

    async def test_an_answer_of_another_schema(self, kind: Kind) -> None:
        async with serving(whole(plain(OTHER_SCHEMA))) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, 200)
        assert kind.lost in attempt.message

    @pytest.mark.parametrize("body", [b"[]", b'"fine"', b"null", b"<html>Welcome</html>", b""])
    async def test_an_answer_that_is_no_object(self, kind: Kind, body: bytes) -> None:
        async with serving(whole(body)) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, 200)
        assert "the answer is " in attempt.message

    async def test_the_answer_of_every_other_provider(self, kind: Kind) -> None:
        for other in KINDS.values():
            if other.well is kind.well:
                continue
            async with serving(whole(plain(other.well(SAID)))) as server:
                attempt = await failed(kind, server.base_url)
            assert (attempt.kind, attempt.status) == (K.RETRYABLE, 200), other.name

    async def test_a_refusal(self, kind: Kind) -> None:
        status, body = kind.refusing
        async with serving(whole(plain(body), status)) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.REFUSED, status)

    async def test_what_is_no_http(self, kind: Kind) -> None:
        async def write(writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")

        async with serving(write) as server:
            attempt = await failed(kind, server.base_url)
        assert attempt.kind is K.RETRYABLE
        assert "the answer is not HTTP" in attempt.message

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_a_redirect_is_not_followed(self, kind: Kind, status: int) -> None:
        async with serving(whole(plain(kind.well(SAID)))) as target:
            location = f"location: {target.base_url}/there?token=secret"
            async with serving(whole(b"", status, location)) as server:
                attempt = await failed(kind, server.base_url)
            assert target.calls == 0, "the key and the prompt would have gone there"
        assert (attempt.kind, attempt.status) == (K.DENIED, status)
        assert f"redirects to {target.base_url}/there;" in attempt.message
        assert "secret" not in attempt.message


class Endless:
    """Sends `piece` again and again, up to `most` bytes; `sent` says how many there were."""

    def __init__(
        self, begin: bytes, piece: bytes, most: int, *headers: str, kind: str = "application/json"
    ) -> None:
        self.sent = 0
        self._begin = head(200, *headers, kind=kind) + begin
        self._piece = piece
        self._most = most

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._begin)
        while self.sent < self._most:
            writer.write(self._piece)
            await writer.drain()
            self.sent += len(self._piece)


class TestLongAnswers:
    MB = 1024 * 1024

    async def test_thirty_megabytes_are_an_answer(self, kind: Kind) -> None:
        text = "room " * (6 * self.MB)
        async with serving(whole(plain(kind.well(text)))) as server:
            assert await answered(kind, server.base_url) == text

    async def test_forty_megabytes_are_refused_before_they_are_read(self, kind: Kind) -> None:
        source = Endless(b"{", b" " * 65_536, 40 * self.MB, f"content-length: {40 * self.MB + 1}")
        async with serving(source) as server:
            tracemalloc.start()
            try:
                attempt = await failed(kind, server.base_url)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert (attempt.kind, attempt.status) == (K.PERMANENT, 200)
        assert f"answer too large: more than {MAX_ANSWER_BYTES} bytes" in attempt.message
        assert peak < 8 * self.MB
        assert source.sent < 20 * self.MB, "what the sockets hold, and no more"

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    async def test_an_answer_without_an_end_is_refused_while_it_is_read(
        self, kind: Kind, stream: bool
    ) -> None:
        begin = b'{"text": "'
        content, piece = "application/json", b"room " * 13_000
        if stream:
            begin, content, piece = b"", "text/event-stream", b": nothing yet\n\n" * 4_000
        source = Endless(begin, piece, 400 * self.MB, kind=content)
        async with serving(source) as server:
            tracemalloc.start()
            try:
                attempt = await failed(kind, server.base_url, stream=stream)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert (attempt.kind, attempt.status) == (K.PERMANENT, 200)
        assert "answer too large" in attempt.message
        assert peak < MAX_ANSWER_BYTES + 8 * self.MB
        assert source.sent < MAX_ANSWER_BYTES + 20 * self.MB

    async def test_an_error_page_of_megabytes_is_told_in_short(self, kind: Kind) -> None:
        async with serving(whole(b"<p>Sorry</p>" * self.MB, 502, kind="text/html")) as server:
            attempt = await failed(kind, server.base_url)
        assert (attempt.kind, attempt.status) == (K.RETRYABLE, 502)
        assert "Sorry" in attempt.message


class Authority:
    """Signs certificates for servers on 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "yard test")])
        builder = self._builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / "authority.pem"
        signed = builder.sign(self._key, hashes.SHA256())
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self,
        name: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        ends_in_days: int = 7,
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=ends_in_days))
        )

    def server(self, what: str) -> ssl.SSLContext:
        """Return how a server with a certificate that is `what` speaks TLS."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "small")])
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        if what == "of another host":
            alternative = x509.DNSName("models.example")
        key = ec.generate_private_key(ec.SECP256R1())
        by_itself = what == "self-signed"
        signed = (
            self._builder(
                name, name if by_itself else self._name, key, -1 if what == "expired" else 7
            )
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(key if by_itself else self._key, hashes.SHA256())
        )
        file = self._folder / f"{what}.pem"
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + signed.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


class TestCertificates:
    @pytest.fixture(autouse=True)
    def trusted(self, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

    async def test_one_of_a_trusted_authority_is_accepted(
        self, kind: Kind, authority: Authority
    ) -> None:
        """So that the others are not refused for some other reason."""
        async with serving(whole(plain(kind.well(SAID))), authority.server("well")) as server:
            assert await answered(kind, server.base_url) == SAID

    @pytest.mark.parametrize(
        ("what", "words"),
        [
            ("expired", "certificate has expired"),
            ("self-signed", "self-signed certificate"),
            ("of another host", "IP address mismatch"),
        ],
    )
    async def test_others_are_refused_and_nothing_is_sent(
        self, kind: Kind, authority: Authority, what: str, words: str
    ) -> None:
        async with serving(whole(plain(kind.well(SAID))), authority.server(what)) as server:
            attempt = await failed(kind, server.base_url)
            assert server.calls == 0, "the key and the prompt were sent"
        assert (attempt.kind, attempt.status) == (K.DENIED, None)
        assert "the TLS certificate is not accepted: " in attempt.message
        assert words in attempt.message

    async def test_one_of_an_unknown_authority_is_refused(
        self, kind: Kind, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        async with serving(whole(plain(kind.well(SAID))), authority.server("well")) as server:
            attempt = await failed(kind, server.base_url)
            assert server.calls == 0
        assert attempt.kind is K.DENIED
        assert "unable to get local issuer certificate" in attempt.message

    async def test_a_server_that_speaks_no_tls(self, kind: Kind) -> None:
        async with serving(whole(plain(kind.well(SAID)))) as server:
            attempt = await failed(kind, server.base_url.replace("http:", "https:"))
            assert server.calls == 0
        assert attempt.kind is K.RETRYABLE
        assert "no connection: " in attempt.message


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
