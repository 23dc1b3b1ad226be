"""One HTTP call on the shortest way: httpx's API above, aiohttp's connections below.

`httpx.AsyncClient` looks after authentication flows, redirects, cookies and hooks, and
httpx-aiohttp describes every call to aiohttp anew. A model call has none of these and is always
described the same way; doing all that for it costs more CPU time than the call itself
(docs/decisions/0007-httpx-over-the-aiohttp-transport.md).
"""

import functools
import logging
from collections.abc import AsyncIterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import map_aiohttp_exceptions

PIECE_BYTES: Final = 16 * 1024
"""Longest piece of an answer: what it can unfold to, if it is packed, stays within megabytes."""

_httpx_log: Final = logging.getLogger("httpx")


class DirectTransport(AiohttpTransport):
    """httpx-aiohttp's transport, with what is the same for every call made ready once.

    Raises the same exceptions. Redirects are answers, as in all of httpx's transports.
    """

    def __init__(self, *, proxy: httpx.Proxy | None = None, **options: Any) -> None:
        super().__init__(proxy=proxy, **options)
        self._always: dict[str, Any] = {"allow_redirects": False, "auto_decompress": False}
        if proxy is not None:
            self._always |= {"proxy": str(proxy.url), "proxy_headers": proxy.headers}
            if proxy.auth is not None:
                self._always["proxy_auth"] = aiohttp.BasicAuth(*proxy.auth)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; return its answer with a stream that may still be arriving."""
        session = self.client
        if not isinstance(session, aiohttp.ClientSession):
            session = self.client = self.get_client()
        headers = request.headers.multi_items()
        content = request.stream
        body: Any
        if isinstance(content, httpx.ByteStream):
            body = b"".join(content) or None
        else:
            body = content
            # aiohttp says itself that it sends chunks.
            headers = [header for header in headers if header[0] != "transfer-encoding"]
        limits = request.extensions.get("timeout", {})
        stream: httpx.AsyncByteStream
        try:
            answer = await session.request(
                request.method,
                str(request.url),
                data=body,
                headers=headers,
                timeout=_timeout(limits.get("connect"), limits.get("read"), limits.get("pool")),
                server_hostname=request.extensions.get("sni_hostname"),
                **self._always,
            )
            if answer.content.is_eof():
                # All of it came with its head, and aiohttp has let go of the connection.
                stream = httpx.ByteStream(answer.content.read_nowait())
            else:
                stream = _Arriving(answer)
        except Exception:
            with map_aiohttp_exceptions():
                raise
        about = {"http_version": b"HTTP/1.1"}
        if answer.reason:
            about["reason_phrase"] = answer.reason.encode()
        return httpx.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=stream,
            request=request,
            extensions=about,
        )


class _Arriving(httpx.AsyncByteStream):
    """The rest of an answer. Closing it early closes the connection."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    # An async generator would be shorter; each one is announced to the event loop, which costs
    # more than the reading.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._answer.content.read(PIECE_BYTES)
        except Exception:
            with map_aiohttp_exceptions():
                raise
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        try:
            await self._answer.__aexit__(None, None, None)
        except Exception:
            with map_aiohttp_exceptions():
                raise


@functools.lru_cache(maxsize=64)
def _timeout(
    connect: float | None, read: float | None, pool: float | None
) -> aiohttp.ClientTimeout:
    """Return httpx's timeouts as aiohttp's, in seconds, as httpx-aiohttp maps them."""
    return aiohttp.ClientTimeout(sock_connect=connect, sock_read=read, connect=pool)


class DirectClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` whose streamed requests go straight to its transport.

    It takes none of what would have to happen in between: authentication, redirects, cookies,
    hooks and proxies by URL. `send(request, stream=True)` is the short way; every other method
    is httpx's own. If the logger `httpx` listens for its line about each request, all go the
    long way, which writes it.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        timeout: httpx.Timeout,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            transport=transport,
            timeout=timeout,
            headers=headers,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            trust_env=False,
        )
        self._straight = transport

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request that `build_request` or the caller made. Raises as httpx does."""
        if not stream or options or _httpx_log.isEnabledFor(logging.INFO):
            return await super().send(request, stream=stream, **options)
        if self.is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        if "timeout" not in request.extensions:
            request.extensions["timeout"] = self.timeout.as_dict()
        try:
            return await self._straight.handle_async_request(request)
        except httpx.RequestError as error:
            error.request = request
            raise
