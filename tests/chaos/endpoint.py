"""An OpenAI-compatible endpoint as a process of its own, which logs each call when it begins and
when it ends, and misbehaves on cue.

Like a real provider it does not notice that a caller has gone: a call that began in mode `normal`
is worked on to its end, and paid for. Each worker process has an address of its own
(`/w/NAME/v1`), so the log tells who called.

Cues: `{"mode": MODE, "model": MODEL or "*"}` and `{"mean_s": S, "cap_s": S, "seed": N}`. Modes:
`normal`, `down` (connections are refused; for all models), `hang`, `500`, `429` (with
Retry-After), `garbage`, `half` (a body that breaks off). A prompt that holds `[sleep=S]` is
answered after S seconds, others after a time drawn from an exponential distribution.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import zlib
from pathlib import Path
from typing import Any, Final

from chaos.cue import cues
from chaos.journal import Journal

SLEEP: Final = re.compile(r"\[sleep=([0-9.]+)\]")
ANY: Final = "*"
HANG_S: Final = 600.0
RETRY_AFTER_S: Final = 1
JUDGE: Final = "judge"
GARBAGE: Final = b"<html>\x00\xff 502 Bad Gateway</html>"


class Endpoint:
    """The server. Answers take no time until a cue says otherwise."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._mean_s = self._cap_s = 0.0
        self._random = random.Random(0)
        self._modes: dict[str, str] = {}
        self._calls = 0
        self._outages = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, backlog=1024
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Take no connections, and break those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._outages += 1
            for writer in tuple(self._writers):
                writer.transport.abort()

    async def take(self, cue: dict[str, Any]) -> None:
        """Change a mode."""
        if "mean_s" in cue:
            self._mean_s, self._cap_s = cue["mean_s"], cue["cap_s"]
            self._random = random.Random(cue["seed"])
            return
        mode = cue["mode"]
        if mode == "down":
            await self.refuse()
            return
        await self.listen()
        if mode == "normal":
            self._modes.pop(cue["model"], None)
        else:
            self._modes[cue.get("model", ANY)] = mode

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        outages = self._outages
        try:
            while (head := await self._head(reader)) is not None:
                path, headers = head
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if self._outages != outages:
                    break  # it went down over this connection, with the call already in it
                if not await self._answer(path, headers, body, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller has gone, and what it asked for was logged
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return first.split(" ")[1], {name.lower(): value.strip() for name, _, value in pairs}

    async def _answer(
        self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one call; return whether the connection can be used again."""
        call = json.loads(body)
        model, text = call["model"], call["messages"][-1]["content"]
        worker = path.split("/")[2]
        mode = self._modes.get(model) or self._modes.get(ANY) or "normal"
        self._calls += 1
        number = self._calls
        id = headers.get("x-request-id", "")
        self._journal.write(kind="start", call=number, id=id, worker=worker, mode=mode, model=model)
        if mode == "hang":
            await asyncio.sleep(HANG_S)
            return False
        if mode in ("500", "429"):
            status = f"{mode} Out of Order"
            writer.write(reply(status, b'{"error": {"message": "on cue"}}', mode == "429"))
            await writer.drain()
            return True
        if mode == "garbage":
            writer.write(reply("200 OK", GARBAGE))
            await writer.drain()
            return True
        asked = SLEEP.search(text)
        wait_s = float(asked[1]) if asked else self._latency_s()
        outages = self._outages
        if wait_s:
            await asyncio.sleep(wait_s)
        if self._outages != outages:
            return False  # it went down over this call, so nobody pays for it
        answer = reply("200 OK", completion(model, text))
        if mode == "half":
            writer.write(answer[: len(answer) - 40])
            await writer.drain()
            return False
        self._journal.write(kind="end", call=number, id=id)
        writer.write(answer)
        await writer.drain()
        return True

    def _latency_s(self) -> float:
        if not self._mean_s:
            return 0.0
        return min(self._cap_s, self._random.expovariate(1 / self._mean_s))


def said(model: str, text: str) -> str:
    """Return what a model says to a prompt: a judge a number that serves as grade and as pick."""
    if model == JUDGE:
        return str(1 + zlib.crc32(text.encode()) % 2)
    return f"{model} answers: {text[:80]}"


def completion(model: str, text: str) -> bytes:
    """Return a chat completion whose text depends on model and prompt alone."""
    return json.dumps(
        {
            "id": "chatcmpl-chaos",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": said(model, text)},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
        }
    ).encode()


def reply(status: str, body: bytes, wait: bool = False) -> bytes:
    """Return an HTTP response."""
    retry = f"retry-after: {RETRY_AFTER_S}\r\n" if wait else ""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{retry}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def serve(log: Path) -> None:
    """Run until the harness is gone; the port is the first line of standard output."""
    endpoint = Endpoint(Journal(log))
    await endpoint.listen()
    print(endpoint.port, flush=True)
    async for cue in cues():
        await endpoint.take(cue)


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m chaos.endpoint", description=__doc__)
    parser.add_argument("log", type=Path)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().log))


if __name__ == "__main__":
    main()
