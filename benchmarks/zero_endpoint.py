"""An OpenAI-compatible endpoint that answers at once, as cheaply as Python can.

    python -m benchmarks.zero_endpoint [--count]

Every POST gets the same completion, whatever it asks. It knows as much of HTTP as its callers use:
keep-alive, Content-Length, messages in pieces and several in one piece. With `--count` it also
counts the calls by their header X-Request-Id; `GET /calls` tells how many there were. It prints
its base URL when it listens.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import signal
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.process import process

START_S: Final = 30.0
MOST_HEAD_BYTES: Final = 64 * 1024
BODY: Final = json.dumps(
    {
        "id": "chatcmpl-zero",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "small",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "A yard sorts wagons by where they go. " * 4,
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140},
    }
).encode()


def answer(body: bytes, status: str = "200 OK") -> bytes:
    """Return a whole HTTP answer of JSON."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


COMPLETION: Final = answer(BODY)
NO_LENGTH: Final = answer(b'{"error": {"message": "say Content-Length"}}', "411 Length Required")
TOO_LONG: Final = answer(b'{"error": {"message": "a head without end"}}', "431 Too Large")


class Refused(Exception):
    """What was sent is no message that this endpoint reads; holds the answer."""

    def __init__(self, said: bytes) -> None:
        super().__init__(said)
        self.said = said


def cut(data: bytes) -> tuple[bytes, int] | None:
    """Return the head of the first message in `data` and the whole's length; None: it is not whole.

    The head is in lower case. Raises `Refused`.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MOST_HEAD_BYTES:
            raise Refused(TOO_LONG)
        return None
    head = data[:end].lower()
    length = header(head, b"content-length")
    if length is None:
        if head.startswith(b"post"):
            raise Refused(NO_LENGTH)  # chunks, which none of our callers sends
        length = b"0"
    whole = end + 4 + int(length)
    return (head, whole) if len(data) >= whole else None


def header(head: bytes, name: bytes) -> bytes | None:
    """Return a header's value from a head in lower case, or None."""
    at = head.find(b"\r\n%b:" % name)
    if at < 0:
        return None
    begin = at + len(name) + 3
    end = head.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else None].strip()


class Calls:
    """How many calls there were, and by which ids if they are told apart."""

    def __init__(self, *, by_id: bool) -> None:
        self.count = 0
        self._ids: Counter[bytes] | None = Counter() if by_id else None

    def note(self, head: bytes) -> None:
        """Count one call."""
        self.count += 1
        if self._ids is not None:
            self._ids[header(head, b"x-request-id") or b""] += 1

    def report(self) -> bytes:
        """Return the counts as an answer to GET; `doubled` were called more than once."""
        ids: Mapping[bytes, int] = self._ids or {}
        doubled = {id.decode("latin-1"): count for id, count in ids.items() if count > 1}
        return answer(
            json.dumps({"calls": self.count, "ids": len(ids), "doubled": doubled}).encode()
        )


class Endpoint(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        answers = []
        try:
            while data and (message := cut(data)) is not None:
                head, length = message
                data = data[length:]
                if head.startswith(b"post"):
                    self._calls.note(head)
                    answers.append(COMPLETION)
                else:
                    answers.append(self._calls.report())
        except (Refused, ValueError) as error:
            answers.append(error.said if isinstance(error, Refused) else NO_LENGTH)
            self._transport.write(b"".join(answers))
            self._transport.close()
            return
        self._rest = data
        if answers:
            self._transport.write(answers[0] if len(answers) == 1 else b"".join(answers))


async def serve(*, by_id: bool = False) -> None:
    """Listen on a free port of this machine, say where, and answer until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    calls = Calls(by_id=by_id)
    server = await loop.create_server(lambda: Endpoint(calls), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}/v1\n")
    sys.stdout.flush()
    await stopping.wait()
    server.close()


@dataclass(frozen=True, slots=True)
class ZeroEndpoint:
    """An endpoint that runs as a process of its own."""

    base_url: str
    pid: int

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, *, count: bool = False) -> Iterator[Self]:
        """Run it, with its log in `folder`. Raises `TimeoutError` if it does not come up."""
        log = folder / "endpoint.log"
        command = [sys.executable, "-m", "benchmarks.zero_endpoint", *["--count"] * count]
        with process(command, log) as pid:
            deadline = time.monotonic() + START_S
            while not (said := log.read_text()).endswith("\n"):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the endpoint did not start in {START_S:g} s: {said}")
                time.sleep(0.02)
            yield cls(said.splitlines()[-1], pid)

    @contextlib.contextmanager
    def teller(self) -> Iterator["Teller"]:
        """Yield what asks it for its counts, over one connection."""
        address = urllib.parse.urlsplit(self.base_url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        with contextlib.closing(connection):
            yield Teller(connection)


class Teller:
    """Asks an endpoint for its counts."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def report(self) -> dict[str, Any]:
        """Return `calls`, and with `--count` the number of `ids` and which were `doubled`."""
        self._connection.request("GET", "/calls")
        report: dict[str, Any] = json.loads(self._connection.getresponse().read())
        return report

    def calls(self) -> int:
        """Return how many calls there were."""
        return int(self.report()["calls"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the endpoint."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zero_endpoint", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", action="store_true", help="count the calls by X-Request-Id")
    asyncio.run(serve(by_id=parser.parse_args(arguments).count))


if __name__ == "__main__":
    main()
