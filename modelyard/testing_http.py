"""How the fake provider reads calls and sends its responses, whole, in pieces or cut."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from modelyard.testing_messages import ApiError
from modelyard.testing_reply import Gate

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"

_MAX_CALL_BYTES: Final = 64 * 1024 * 1024


def read_request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: Any
) -> web.BaseRequest:
    """Return a call as the low-level server hands it over."""
    return web.BaseRequest(
        message,
        payload,
        protocol,
        writer,
        task,
        asyncio.get_running_loop(),
        client_max_size=_MAX_CALL_BYTES,
    )


def json_response(content: bytes, status: int = 200) -> web.Response:
    """Return a response of JSON."""
    return response_of(content, JSON, status, {})


def response_of(content: bytes, kind: str, status: int, headers: Mapping[str, str]) -> web.Response:
    """Return a response; `headers` may name another content type than `kind`."""
    return web.Response(
        body=content,
        status=status,
        headers={"content-type": kind, **headers},
    )


def error_response(error: ApiError) -> web.Response:
    """Return an error as a response."""
    return json_response(error.encode(), error.status)


async def drop(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection and wait to be cancelled with it."""
    if request.transport is not None:
        request.transport.abort()
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def send_pieces(
    request: web.BaseRequest, whole: web.Response, pieces: Sequence[bytes], rest: Gate | None
) -> web.StreamResponse:
    """Send a response in pieces; all but the first wait until `rest` is open."""
    response = web.StreamResponse(status=whole.status, headers=whole.headers)
    await response.prepare(request)
    await response.write(pieces[0])
    if rest is not None:
        await rest.passed()
    for piece in pieces[1:]:
        await response.write(piece)
    await response.write_eof()
    return response


async def send_half(
    request: web.BaseRequest, whole: web.Response, content: bytes
) -> web.StreamResponse:
    """Send the first half of a body, close, and wait to be cancelled."""
    response = web.StreamResponse(status=whole.status, headers=whole.headers)
    response.content_length = len(content)
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()  # After what was written, unlike abort.
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
