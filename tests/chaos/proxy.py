"""A TCP proxy in front of Redis as a process of its own, which breaks connections on cue.

Cue: `{"do": "reset"}` closes all connections with RST, `{"do": "stall"}` holds all bytes back and
`{"do": "pass"}` lets them go again.
"""

import argparse
import asyncio
import contextlib
import socket
import struct
from typing import Any, Final

from chaos.cue import cues

CHUNK: Final = 64 * 1024
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no time at all: close sends RST and not FIN, see socket(7)."""


class Proxy:
    """Passes bytes between callers and a port of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> int:
        """Take connections; return the port."""
        server = await asyncio.start_server(self._join, "127.0.0.1", 0, backlog=1024)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def take(self, cue: dict[str, Any]) -> None:
        """Do what the cue says."""
        match cue["do"]:
            case "stall":
                self._open.clear()
            case "pass":
                self._open.set()
            case "reset":
                for writer in tuple(self._writers):
                    reset(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            reset(writer)
            return
        self._writers |= {writer, outer}
        try:
            await asyncio.gather(self._pass(reader, outer), self._pass(inner, writer))
        finally:
            self._writers -= {writer, outer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            reset(writer)  # what broke one side breaks the other
        finally:
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST."""
    if (sock := writer.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def serve(target: int) -> None:
    """Run until the harness is gone; the port is the first line of standard output."""
    proxy = Proxy(target)
    print(await proxy.listen(), flush=True)
    async for cue in cues():
        proxy.take(cue)


def main() -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m chaos.proxy", description=__doc__)
    parser.add_argument("target", type=int, help="the port of Redis")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().target))


if __name__ == "__main__":
    main()
