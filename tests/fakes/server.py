"""A small HTTP server of which a test says what it answers, and which says what it was asked."""

import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Asked:
    """One call. `path` is as it was sent, escapes and all; names of headers are lower case."""

    path: str
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON that was sent."""
        return json.loads(self.raw)


@dataclass(frozen=True, slots=True)
class Canned:
    """One answer; `body` is JSON, or bytes as they are."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeServer:
    """Answers calls with `refusal`, if there is one, or the next of `script`, or `default`."""

    def __init__(self) -> None:
        self.calls: list[Asked] = []
        self._script: deque[Canned] = deque()

        def answer(asked: Asked) -> Canned:
            self.calls.append(asked)
            refused = self.refusal(asked)
            if refused is not None:
                return refused
            return self._script.popleft() if self._script else self.default(asked)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                canned = answer(Asked(self.path, headers, raw))
                body = canned.body
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(canned.status)
                kind = {"content-type": "application/json"}
                for name, value in (kind | dict(canned.headers)).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def base_url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def script(self, *answers: Canned) -> None:
        """Answer the next calls that are not refused so."""
        self._script.extend(answers)

    def refusal(self, asked: Asked) -> Canned | None:
        """Return the error that the provider answers this call with, or None."""
        raise NotImplementedError

    def default(self, asked: Asked) -> Canned:
        """Return the answer to a call that nothing else is said about."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def closed(required: str = "", **properties: Any) -> dict[str, Any]:
    """Return the JSON schema of an object with these properties, and no other one."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }
