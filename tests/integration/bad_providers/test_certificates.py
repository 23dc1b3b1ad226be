"""Certificates that are not accepted: nothing is sent."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from provider_calls import SAID, Kind, answered, failed
from raw_http import plain, serving, whole

from modelyard.errors import FailureKind

K = FailureKind


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
