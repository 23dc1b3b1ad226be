"""Cues for a helper process (endpoint, proxy): one line of JSON each, on its standard input."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

START_S = 30.0


async def cues() -> AsyncIterator[dict[str, Any]]:
    """Yield the cues that come; end when the harness is gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def give(process: "subprocess.Popen[bytes]", **cue: Any) -> None:
    """Send a cue to a helper."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(cue).encode() + b"\n")
    process.stdin.flush()


def announced_port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return the port that a helper wrote as the first line of its log. Raises `TimeoutError`."""
    deadline = time.monotonic() + START_S
    while not (said := log.read_text()).endswith("\n"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"{log.name}: it did not start: {said}")
        time.sleep(0.02)
    return int(said.splitlines()[0])
