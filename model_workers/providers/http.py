"""The HTTP under the providers: one client per endpoint, bounded answers, Retry-After, and what
a broken connection means.

The transport is aiohttp's, below httpx's API and on the shortest way (`providers.direct`): with 50
calls in flight or more, one costs a fraction of the CPU time that it takes over httpx's own
transport (`benchmarks/http_client.py`).
"""

import asyncio
import ipaddress
import logging
import math
import re
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import httpx
from aiohttp.abc import ResolveResult

from model_workers.providers.direct import DirectClient, DirectTransport
from modelyard.catalog import Endpoint
from modelyard.errors import FailureKind, ProviderError, SettingsError
from modelyard.link_local import is_link_local

CONNECT_TIMEOUT_S: Final = 10.0
"""A host that does not take a connection by then is down, however long its answers may take."""

KEEPALIVE_S: Final = 4.0
"""Shorter than the 5 s after which uvicorn (vLLM and many more) and Node close an idle
connection: a POST that meets a closing connection is lost, and can't be repeated unasked."""

MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""A longer answer is given up while it is read."""


def make_client(endpoint: Endpoint, *, timeout_s: float, concurrency: int) -> httpx.AsyncClient:
    """Return the one client through which all calls to `endpoint` go.

    `timeout_s` bounds each silence while an answer is awaited; connecting is bounded by 10 s
    too. `concurrency` calls can be in flight without waiting for a connection. TLS certificates
    are verified; redirects are not followed and cookies are not kept. The proxy is the one that
    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name at this moment; loopback addresses are
    always called directly. Sockets are opened by the first call, in whichever event loop it runs.
    A link-local or metadata address is not called unless the endpoint allows it: neither as it is
    nor as what its name resolves to when a connection is made. A proxy looks up names by itself.
    Raises `SettingsError` for a proxy of another kind than http, and for such an address.
    """
    silence_httpx_log()
    base = httpx.URL(endpoint.base_url)
    if is_link_local(base.host) and not endpoint.allow_link_local:
        raise SettingsError(str(LinkLocal(base.host)))
    proxy = environment_proxy(base)
    tls = httpx.create_ssl_context()

    def open_session() -> aiohttp.ClientSession:
        # The transport's own session would keep cookies. It calls this in the running loop.
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=concurrency,
                keepalive_timeout=KEEPALIVE_S,
                ssl=tls,
                resolver=None if proxy or endpoint.allow_link_local else Resolver(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    return DirectClient(
        DirectTransport(client=open_session, verify=tls, proxy=proxy),
        # aiohttp's pool timeout includes the connecting, so it is not the shorter one.
        timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
        # Answers are a few kilobytes: unpacking costs more than it saves, and a small packed
        # answer could unfold to gigabytes.
        headers={"accept": "application/json", "accept-encoding": "identity"},
    )


class LinkLocal(OSError):
    """A host is at a link-local or metadata address, which the endpoint does not allow."""

    def __init__(self, host: str, address: str = "") -> None:
        what = f"{host!r} resolves to {address}, which" if address else repr(host)
        super().__init__(
            f"{what} is a link-local or metadata address: set the endpoint's allow_link_local if a "
            "model is there"
        )


class Resolver(aiohttp.ThreadedResolver):
    """Looks up names, and leaves link-local and metadata addresses out of what it finds.

    aiohttp connects to these results and looks nothing up again, so a name can't be one thing when
    it is judged and another one when it is called.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses. Raises `LinkLocal` if there are no others, and `OSError`."""
        found = await super().resolve(host, port, family)
        allowed = [each for each in found if not is_link_local(each["host"])]
        if found and not allowed:
            raise LinkLocal(host, found[0]["host"])
        return allowed


def silence_httpx_log() -> None:
    """Keep httpx from writing a line with the whole URL for every call, unless asked to."""
    logger = logging.getLogger("httpx")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def environment_proxy(url: httpx.URL) -> httpx.Proxy | None:
    """Return the proxy that the environment names for `url`; never one for loopback."""
    if is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address:
        return None
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    if scheme not in ("http", "https"):
        raise SettingsError(
            f"{url.scheme.upper()}_PROXY or ALL_PROXY is a {scheme} proxy: only http and https "
            f"proxies work; add {url.host} to NO_PROXY to call it directly"
        )
    return httpx.Proxy(f"{scheme}://{rest}")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, by name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def read_body(
    response: httpx.Response,
    limit: int = MAX_ANSWER_BYTES,
    begun: Callable[[], None] | None = None,
) -> bytes:
    """Return the body of a streamed response, and close it; `begun` is called at its first piece.

    Raises `ProviderError` (permanent) as soon as it is longer than `limit` bytes.
    """
    packed = "content-encoding" in response.headers  # Unasked, but unpacked all the same.
    if isinstance(response.stream, httpx.ByteStream) and not packed:
        # All of it is here: nothing to wait for, nothing to close.
        body = b"".join(response.stream)
        if len(body) > limit:
            raise _too_large(response, limit)
        if begun is not None:
            begun()
        return body
    try:
        return await _read_pieces(response, limit, packed, begun)
    finally:
        await response.aclose()


async def _read_pieces(
    response: httpx.Response, limit: int, packed: bool, begun: Callable[[], None] | None
) -> bytes:
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(response, limit)
    stream: AsyncIterable[bytes] = response.aiter_bytes()
    if isinstance(response.stream, httpx.AsyncByteStream) and not packed:
        stream = response.stream  # The same bytes, without a look at each.
    pieces: list[bytes] = []
    size = 0
    async for piece in stream:
        if begun is not None and not pieces:
            begun()
        size += len(piece)
        if size > limit:
            raise _too_large(response, limit)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(response: httpx.Response, limit: int) -> ProviderError:
    return ProviderError(
        FailureKind.PERMANENT,
        f"answer too large: more than {limit} bytes",
        status=response.status_code,
    )


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return for how many seconds the provider asks to wait, or None if it does not say.

    In this order: `retry-after-ms`, `Retry-After` (seconds or a date, RFC 9110 10.2.3), and of
    the `x-ratelimit-reset-*` those whose `x-ratelimit-remaining-*` is 0. `now` is seconds since
    the epoch. Names in `headers` are lower case, or the mapping does not care.
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after", "").strip()
    seconds = _seconds(asked)
    if seconds is not None:
        return seconds
    if asked:
        try:
            return max(0.0, parsedate_to_datetime(asked).timestamp() - now)
        except (ValueError, OverflowError, OSError):
            pass  # Neither a number nor a date: as if it were not there.
    resets = [
        duration_s(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max((reset for reset in resets if reset is not None), default=None)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float | None:
    """Return the seconds of a Go duration such as `6m0s` or `20ms`, or of plain seconds."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
        return seconds if math.isfinite(seconds) else None
    return _seconds(text)


TRANSPORT_ERRORS: Final = (httpx.HTTPError, aiohttp.ClientError, OSError)
"""What a call can raise below HTTP. `TimeoutError` is an `OSError`; not all of aiohttp's errors
are translated by its httpx transport."""


def explain(error: BaseException) -> tuple[FailureKind, str]:
    """Return what a transport error means, and words for it.

    Looks at aiohttp's own exception first: httpx-aiohttp reports a refused and a lost connection
    both as `ConnectTimeout`.
    """
    cause = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError) else error
    match cause:
        case aiohttp.ClientConnectorCertificateError():
            # No retry mends a certificate, another endpoint may have a good one.
            return FailureKind.DENIED, f"the TLS certificate is not accepted: {_reason(cause)}"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | httpx.UnsupportedProtocol():
            return FailureKind.DENIED, "base_url is not an address that can be called"
        case aiohttp.ClientConnectorError(os_error=LinkLocal() as refused):
            return FailureKind.DENIED, f"not called: {refused}"
        case aiohttp.SocketTimeoutError() | httpx.ReadTimeout() | httpx.WriteTimeout():
            words = "timeout: the provider fell silent"
        case aiohttp.ServerTimeoutError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            words = "timeout: no connection"
        case aiohttp.ServerDisconnectedError() | httpx.RemoteProtocolError():
            words = "the provider closed the connection without an answer"
        case aiohttp.ClientPayloadError() | httpx.ReadError():
            words = "the connection was lost in the middle of the answer"
        case aiohttp.ClientConnectorError() | httpx.ConnectError():
            words = f"no connection: {_reason(cause)}"
        case asyncio.TimeoutError():
            words = "timeout"
        case aiohttp.ClientOSError():
            # Its own words hold the whole URL. Some servers hang up on a body they find too long.
            words = "the connection was lost before an answer"
        case aiohttp.ClientResponseError():
            words = f"the answer is not HTTP: {cause.message}"
        case _:
            words = f"{type(cause).__name__}: {cause}"
    return FailureKind.RETRYABLE, words


def _reason(error: BaseException) -> str:
    """Words of the system's error inside aiohttp's, which itself repeats the host."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner: BaseException = error.certificate_error
        return str(getattr(inner, "verify_message", "") or inner)
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        return inner.reason if isinstance(inner, ssl.SSLError) and inner.reason else str(inner)
    return str(error)
