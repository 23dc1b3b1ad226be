"""Fakes for tests: a model provider that answers over real HTTP and fails on cue.

```
from modelyard.testing import FakeProvider, Reply

with FakeProvider() as provider:
    provider.script("small", [Reply(status=429, headers={"retry-after": "1"}), Reply(text="ok")])
    ...  # point a catalog's base_url at provider.base_url and submit
    assert [call.status for call in provider.calls] == [429, 200]
```

It speaks `POST /v1/chat/completions`, streamed or not, and `GET /v1/models`; at `azure_url` it is
Azure OpenAI. It runs in a thread with a loop of its own, and listens on loopback only, so other
processes of this machine can call it too. As a process of its own (`python -m modelyard.testing
--port 0 --log calls.jsonl`) it writes its base_url as the first line and takes its cues over HTTP:
`POST /_fake/script` with `{"model": ..., "replies": [...]}` or `{"model": ..., "always": {...}}`,
`POST /_fake/reset`, `GET /_fake/calls`.
"""

import argparse
import asyncio
import json
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from aiohttp import web

from modelyard.messages import Usage
from modelyard.testing_azure import (
    AzureCall,
    check_azure_key,
    read_azure_path,
    unknown_deployment,
)
from modelyard.testing_call import Outcome, ProviderCall, text_digest
from modelyard.testing_chat_api import (
    NO_KEY,
    WRONG_KEY,
    compose_completion,
    count_tokens,
    encode_completion,
    encode_models,
    message_texts,
    read_call,
    scripted_error,
    unknown_model,
)
from modelyard.testing_http import (
    EVENTS,
    JSON,
    drop,
    error_response,
    json_response,
    read_request,
    response_of,
    send_half,
    send_pieces,
)
from modelyard.testing_messages import ApiError
from modelyard.testing_reply import Cue, Gate, Reply
from modelyard.testing_stream import encode_chunks

__all__ = [
    "ANY",
    "ECHO",
    "Cue",
    "FakeProvider",
    "Gate",
    "Outcome",
    "ProviderCall",
    "Reply",
    "text_digest",
]

ANY: Final = "*"
"""Stands for every model in `script` and `always`; a model's own cues come first."""

ECHO: Final = Reply()
"""The default reply: at once, and the same text for the same question."""


class FakeProvider:
    """An OpenAI-compatible HTTP server on loopback, for use as a context manager.

    `models`: the names it knows (None: all); `api_key`: what it asks for (None: nothing); `log`:
    a file to which each call is appended as a line of JSON when it ends; `port`: 0 for a free one,
    which it keeps from then on, so that `stop` and `start` make an outage; `default`: the reply to
    calls that nothing else is said about. All methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        models: Sequence[str] | None = None,
        api_key: str | None = None,
        log: Path | str | None = None,
        port: int = 0,
        default: Cue = ECHO,
    ) -> None:
        self._models = models
        self._api_key = api_key
        self._log_path = log
        self._port = port
        self._default = default
        self._scripts: dict[str, deque[Reply]] = {}
        self._always: dict[str, Cue] = {}
        self._calls: list[ProviderCall] = []
        self._in_flight = 0
        self._max_in_flight = 0
        self._log: TextIO | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    # Life

    def start(self) -> None:
        """Listen; returns once calls can come. Raises `OSError` if the port is taken."""
        if self._thread is not None:
            raise RuntimeError("this FakeProvider is running already")
        if self._log_path is not None:
            self._log = Path(self._log_path).open("a", encoding="utf-8")  # noqa: SIM115
        ready = threading.Event()
        failures: list[OSError] = []

        def run() -> None:
            try:
                asyncio.run(self._serve(ready))
            except OSError as error:
                failures.append(error)
            finally:
                ready.set()

        self._thread = threading.Thread(target=run, name="fake-provider", daemon=True)
        self._thread.start()
        ready.wait()
        if failures:
            self._end()
            raise failures[0]

    def stop(self) -> None:
        """Close all connections and stop listening; what was called stays known."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._end()

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._log is not None:
            self._log.close()
        self._thread = self._loop = self._stopping = self._log = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Cues

    @property
    def base_url(self) -> str:
        """The address for a catalog: `http://127.0.0.1:PORT/v1`."""
        return f"{self.azure_url}/v1"

    @property
    def azure_url(self) -> str:
        """The same as an Azure OpenAI resource: `http://127.0.0.1:PORT`."""
        if not self._port:
            raise RuntimeError("a FakeProvider has an address once it was started")
        return f"http://127.0.0.1:{self._port}"

    def script(self, model: str, replies: Iterable[Reply]) -> None:
        """Answer the next calls of `model` (or `ANY`) with these replies, each once, in order."""
        self._scripts.setdefault(model, deque()).extend(replies)

    def always(self, model: str, cue: Cue) -> None:
        """Answer all calls of `model` (or `ANY`) so, when no script is left."""
        self._always[model] = cue

    def reset(self) -> None:
        """Forget all cues and finished calls; running calls go on."""
        self._scripts.clear()
        self._always.clear()
        self._calls = []
        self._max_in_flight = self._in_flight

    # What happened

    @property
    def calls(self) -> tuple[ProviderCall, ...]:
        """All calls that ended, in the order in which they ended."""
        return tuple(self._calls)

    @property
    def in_flight(self) -> int:
        """How many calls run at this moment."""
        return self._in_flight

    @property
    def max_in_flight(self) -> int:
        """The most calls that ran at one time since the start or the last reset."""
        return self._max_in_flight

    def wait_until(self, condition: Callable[[Self], bool], timeout_s: float = 10.0) -> None:
        """Block until `condition(provider)` holds. Raises `TimeoutError`.

        In a coroutine: `await asyncio.to_thread(provider.wait_until, lambda p: p.in_flight == 3)`.
        """
        deadline = time.monotonic() + timeout_s
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"not so within {timeout_s:g} s: {len(self._calls)} calls ended, "
                    f"{self._in_flight} in flight"
                )
            time.sleep(0.005)

    # The server

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        # The low-level server: an application's routing and middlewares cost as much as the rest.
        server = web.Server(
            self._handle,
            request_factory=read_request,
            handler_cancellation=True,  # A caller that gives up ends its call here too.
            access_log=None,
        )
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self._port, backlog=1024)
            await site.start()
            self._port = runner.addresses[0][1]
            ready.set()
            await self._stopping.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                return await self._complete(request)
            case "GET", "/v1/models":
                error = self._check_key(request)
                known = self._models if self._models is not None else sorted(self._cued())
                return error_response(error) if error else json_response(encode_models(list(known)))
            case "POST", "/_fake/script":
                return self._take_cues(await request.read())
            case "POST", "/_fake/reset":
                self.reset()
                return json_response(b"{}")
            case "GET", "/_fake/calls":
                return json_response(self._report())
        asked = read_azure_path(request.rel_url.raw_path, request.query.get("api-version"))
        if isinstance(asked, ApiError):
            return error_response(asked)
        if asked is not None and request.method == "POST":
            return await self._complete(request, asked)
        text = f"Invalid URL ({request.method} {request.path})"
        return error_response(ApiError(404, text, "unknown_url"))

    async def _complete(
        self, request: web.BaseRequest, azure: AzureCall | None = None
    ) -> web.StreamResponse:
        started_at = time.time()
        raw = await request.read()
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        call = ProviderCall(0, request.headers.get("x-request-id"), "", "", started_at)
        outcome: Outcome = "abandoned"
        status: int | None = None
        try:
            body = self._check_key(request, azure) or read_call(
                raw, azure.deployment if azure else None
            )
            if isinstance(body, dict) and self._models is not None:
                model = body["model"]
                unknown = unknown_deployment() if azure else unknown_model(model)
                body = body if model in self._models else unknown
            if isinstance(body, ApiError):
                outcome, status = "rejected", body.status
                return error_response(body)
            texts = message_texts(body)
            call = replace(
                call,
                request_id=call.request_id or (body.get("metadata") or {}).get("request_id"),
                model=body["model"],
                digest=text_digest("\n".join(texts)),
            )
            reply = self._next_reply(body)
            if reply.gate:
                await reply.gate.passed()
            if reply.delay_s:
                await asyncio.sleep(reply.delay_s)
            if reply.hang:
                await asyncio.Event().wait()
            if reply.close == "before":
                outcome = "dropped"
                return await drop(request)
            pieces, kind = self._pieces(reply, body, texts, azure)
            content = b"".join(pieces)
            status = reply.status
            whole = response_of(content, kind, reply.status, reply.headers)
            if reply.close == "half":
                outcome = "dropped"
                return await send_half(request, whole, content)
            if kind == EVENTS:
                response = await send_pieces(request, whole, pieces, reply.rest_gate)
            else:
                response = whole
            outcome = "answered" if 200 <= reply.status < 300 else "failed"
            return response
        finally:
            self._in_flight -= 1
            self._record(
                replace(
                    call,
                    number=len(self._calls) + 1,
                    ended_at=time.time(),
                    outcome=outcome,
                    status=status,
                )
            )

    def _check_key(
        self, request: web.BaseRequest, azure: AzureCall | None = None
    ) -> ApiError | None:
        if self._api_key is None:
            return None
        if azure is not None:
            return check_azure_key(azure, request.headers, self._api_key)
        sent = request.headers.get("authorization")
        if not sent:
            return NO_KEY
        return None if sent == f"Bearer {self._api_key}" else WRONG_KEY

    def _next_reply(self, body: Mapping[str, Any]) -> Reply:
        model = body["model"]
        for name in (model, ANY):
            if script := self._scripts.get(name):
                return script.popleft()
        cue = self._always.get(model) or self._always.get(ANY) or self._default
        return cue if isinstance(cue, Reply) else cue(body)

    def _pieces(
        self,
        reply: Reply,
        body: Mapping[str, Any],
        texts: Sequence[str],
        azure: AzureCall | None,
    ) -> tuple[list[bytes], str]:
        """Return what is sent, and its content type."""
        if reply.body is not None:
            return [reply.body], JSON
        if reply.status >= 300:
            return [scripted_error(reply.status, reply.code, reply.message).encode()], JSON
        whole = self._compose(reply, body["model"], texts)
        if not body.get("stream"):
            return [encode_completion(whole)], JSON
        include_usage = (body.get("stream_options") or {}).get("include_usage", False)
        chunks = encode_chunks(whole, include_usage=include_usage, about_prompt=azure is not None)
        return chunks, EVENTS

    def _compose(self, reply: Reply, model: str, texts: Sequence[str]) -> dict[str, Any]:
        text, calls = reply.text, reply.tool_calls
        if text is None and reply.refusal is None and not calls:
            text = f"{model} answers: {texts[-1][:200]}"
        written = [text or "", *(call.function.arguments for call in calls)]
        usage = reply.usage or Usage(
            input_tokens=sum(map(count_tokens, texts)),
            output_tokens=sum(map(count_tokens, written)),
        )
        return compose_completion(
            len(self._calls) + self._in_flight,
            time.time(),
            reply.model or model,
            text,
            reply.refusal,
            reply.finish_reason or ("tool_calls" if calls else "stop"),
            usage,
            calls,
        )

    def _record(self, call: ProviderCall) -> None:
        self._calls.append(call)
        if self._log is not None:
            self._log.write(json.dumps(asdict(call), separators=(",", ":")) + "\n")
            self._log.flush()

    def _cued(self) -> set[str]:
        return {*self._scripts, *self._always} - {ANY}

    def _take_cues(self, raw: bytes) -> web.Response:
        try:
            data = json.loads(raw)
            model = data["model"]
            replies = [Reply.decode(reply) for reply in data.get("replies", ())]
            always = Reply.decode(data["always"]) if "always" in data else None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return error_response(ApiError(400, f"cues are not as described: {error!r}"))
        self.script(model, replies)
        if always is not None:
            self.always(model, always)
        return json_response(b"{}")

    def _report(self) -> bytes:
        return json.dumps(
            {
                "calls": [asdict(call) for call in self._calls],
                "in_flight": self._in_flight,
                "max_in_flight": self._max_in_flight,
            }
        ).encode()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the fake as a process of its own until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.testing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--log", type=Path, help="append each call as a line of JSON")
    parser.add_argument("--api-key", help="ask for this key")
    parser.add_argument("--models", nargs="*", help="the only models it knows")
    parser.add_argument("--delay-s", type=float, default=0.0, help="of every answer")
    options = parser.parse_args(arguments)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with FakeProvider(
        models=options.models,
        api_key=options.api_key,
        log=options.log,
        port=options.port,
        default=Reply(delay_s=options.delay_s),
    ) as provider:
        sys.stdout.write(provider.base_url + "\n")
        sys.stdout.flush()
        stopping.wait()


if __name__ == "__main__":
    main()
