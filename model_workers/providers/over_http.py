"""A provider behind one HTTP address: `OverHttp` sends and waits, its `Dialect` knows the words.

A dialect is pure: what a request is to the provider, and what its answer means. So each of them is
tested without a network, and all share one way to send, to bound, to time out and to clean.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Protocol

import httpx

from model_workers.providers.base import Completion, Failure, Unsupported
from model_workers.providers.clean import clean
from model_workers.providers.http import MAX_ANSWER_BYTES, TRANSPORT_ERRORS, explain, read_body
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request

PROBE_S: Final = 10.0
"""A probe that takes longer has failed."""

_PIECE_BYTES: Final = 256 * 1024
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,512}")


class Dialect(Protocol):
    """How one kind of provider is spoken to. Made for one model at one endpoint."""

    def address(self, base: httpx.URL) -> httpx.URL:
        """Return where calls are posted to; `base` is the endpoint's `base_url`."""
        ...

    def headers(self, base: httpx.URL) -> Mapping[str, str]:
        """Return the headers that are the same for each call, the key among them."""
        ...

    def encode(self, request: Request) -> bytes:
        """Return the body of a call.

        Raises `Unsupported` for what the provider lacks, and `TypeError` or `ValueError` for
        params that JSON can't hold.
        """
        ...

    def headers_of(self, request: Request) -> Mapping[str, str]:
        """Return headers of this call only. Raises `Unsupported`."""
        return {}

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Completion | Failure:
        """Return what a whole response means; `now` is seconds since the epoch.

        A streamed answer comes as its whole body, too (`providers.events` and
        `providers.aws_frames` take it apart).
        """
        ...


class MakesDialect(Protocol):
    """A dialect's class: makes the one for a model at an endpoint."""

    def __call__(self, model: Model, endpoint: Endpoint) -> Dialect: ...


class Signer(Protocol):
    """What has to be added to each call: a signature over it, or a token that runs out."""

    async def sign(self, message: httpx.Request, content: bytes) -> None:
        """Add headers to `message`, whose body is `content`.

        Raises `ProviderError` if there are no credentials.
        """
        ...


class OverHttp:
    """Calls one model at one endpoint. Implements `model_workers.providers.base.Provider`.

    A provider is a subclass that names its `dialect`, and its `signer` if it has one.

    `client` is the endpoint's own (`providers.http.make_client`) and is closed by `aclose`.
    `clock` gives seconds since the epoch, for Retry-After dates. The whole call is bounded by
    `model.timeout_s`. Raises `httpx.InvalidURL` if `base_url` is no address, and `ValueError` for a
    key that no header can hold.
    """

    dialect: ClassVar[MakesDialect]

    @staticmethod
    def signer(endpoint: Endpoint) -> Signer | None:
        """Return what signs the calls of an endpoint, if its headers are not all they need."""
        return None

    def __init__(
        self,
        model: Model,
        endpoint: Endpoint,
        client: httpx.AsyncClient,
        *,
        clock: Callable[[], float] = time.time,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        dialect = type(self).dialect(model, endpoint)
        base = httpx.URL(endpoint.base_url)
        key = endpoint.api_key.get_secret_value() if endpoint.api_key else ""
        self._secrets = tuple(
            secret for secret in (key, base.password, base.query.decode()) if secret
        )
        # aiohttp refuses a URL with credentials beside an Authorization header.
        url = dialect.address(base).copy_with(username=None, password=None)
        headers = {"content-type": "application/json", **dialect.headers(base)}
        # What httpx makes of all this is the same for each call, so it is made once.
        self._blank = client.build_request("POST", url, headers=headers)
        del self._blank.headers["content-length"]
        self._blank.extensions["timeout"] = _not_timed_twice(
            self._blank.extensions["timeout"], model.timeout_s
        )
        self._base = base.copy_with(username=None, password=None)
        self._model = model
        self._label = endpoint.label
        self._client = client
        self._dialect = dialect
        self._signer = self.signer(endpoint)
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes

    async def complete(self, request: Request, *, request_id: str | None = None) -> Completion:
        """Call once. Raises `ProviderError` as the dialect says, and passes on cancellation.

        `request_id` goes along as the header `X-Request-Id`, which many servers write to their
        logs.
        """
        try:
            content = self._dialect.encode(request)
            headers = self._dialect.headers_of(request)
        except Unsupported as error:
            raise self._error(Failure(FailureKind.PERMANENT, str(error)), request) from None
        except (TypeError, ValueError) as error:
            problem = f"params can't be written as JSON: {error}"
            raise self._error(Failure(FailureKind.INVALID, problem), request) from None
        message = self._message(content, headers, request_id)
        first: list[float] = []
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._model.timeout_s) as limit:
                if self._signer is not None:
                    await self._signer.sign(message, content)
                response = await self._client.send(message, stream=True)
                body = await read_body(
                    response,
                    self._max_answer_bytes,
                    (lambda: first.append(time.monotonic())) if self._model.stream else None,
                )
        except TRANSPORT_ERRORS as error:
            kind, words = explain(error)
            if limit.expired():
                words = f"timeout: no whole answer within {self._model.timeout_s:g} s"
            raise self._error(Failure(kind, words), request) from error
        except ProviderError as error:
            failure = Failure(error.kind, str(error), error.status)
            raise self._error(failure, request) from None
        outcome = self._dialect.read(response.status_code, response.headers, body, self._clock())
        if isinstance(outcome, Failure):
            raise self._error(outcome, request)
        return replace(outcome, first_token_s=first[0] - started) if first else outcome

    def lacks(self, request: Request) -> str | None:
        """Return what the dialect has no word for, or None: a request is encoded to find out."""
        try:
            self._dialect.encode(request)
            self._dialect.headers_of(request)
        except Unsupported as error:
            return str(error)
        except (TypeError, ValueError):
            return None  # It is no better elsewhere.
        return None

    async def probe(self, path: str) -> None:
        """Ask for `path` below the endpoint's address. Raises `ProviderError` if it is not well.

        Whatever it answers shows that it lives, but for a fault of its own and a refused key.
        """
        url = self._base.copy_with(path=self._base.path.rstrip("/") + path)
        headers = self._blank.headers.copy()
        headers.pop("content-type", None)
        message = httpx.Request("GET", url, headers=headers, extensions=self._blank.extensions)
        asked = Request.of("probe")
        try:
            async with asyncio.timeout(min(PROBE_S, self._model.timeout_s)):
                if self._signer is not None:
                    await self._signer.sign(message, b"")
                response = await self._client.send(message, stream=True)
                await read_body(response, self._max_answer_bytes)
        except TRANSPORT_ERRORS as error:
            raise self._error(Failure(*explain(error)), asked) from error
        status = response.status_code
        if status >= 500:
            kind = FailureKind.RETRYABLE
        elif status in {401, 403}:
            kind = FailureKind.DENIED
        else:
            return
        raise self._error(Failure(kind, f"HTTP {status} to a probe", status), asked)

    def _message(
        self, content: bytes, more: Mapping[str, str], request_id: str | None
    ) -> httpx.Request:
        blank = self._blank
        headers = blank.headers.copy()
        headers.update(more)
        headers["content-length"] = str(len(content))
        if request_id and _REQUEST_ID.fullmatch(request_id):
            headers["x-request-id"] = request_id
        # aiohttp writes bytes in one go and warns that a megabyte of them holds up the loop.
        small = len(content) <= _PIECE_BYTES
        return httpx.Request(
            blank.method,
            blank.url,
            headers=headers,
            stream=httpx.ByteStream(content) if small else _Pieces(content),
            extensions=blank.extensions,
        )

    async def aclose(self) -> None:
        """Close the client and its connections."""
        await self._client.aclose()

    def _error(self, failure: Failure, request: Request) -> ProviderError:
        words = clean(failure.message, self._secrets, [m.text for m in request.messages])
        return ProviderError(
            failure.kind,
            f"{self._label}: {words}",
            status=failure.status,
            retry_after_s=failure.retry_after_s,
        )


class _Pieces(httpx.AsyncByteStream):
    """A long body, in pieces that leave room for other calls in between."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for begin in range(0, len(self._content), _PIECE_BYTES):
            yield self._content[begin : begin + _PIECE_BYTES]


def _not_timed_twice(timeouts: Mapping[str, float | None], whole_s: float) -> dict[str, Any]:
    """Return httpx's `timeouts`, in seconds, without the one for silences if it can't run out.

    A silence begins after the call does, so one of `whole_s` never ends before the whole call;
    its timer would be set anew for each piece of an answer.
    """
    silence_s = timeouts.get("read")
    if silence_s is None or silence_s < whole_s:
        return dict(timeouts)
    return {**timeouts, "read": None}
