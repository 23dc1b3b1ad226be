"""A worker's heartbeat: what it last said of itself, and the state that follows from that.

A worker writes one every third of its lease: when its main thread last turned, and when it last
looked for messages. It may be alive and yet of no use: its main thread hangs, or it does not look
for messages although it has room.

All times are in seconds since the epoch, by the clock of the Redis server.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, Self

SLACK_S: Final = 2.0
"""How late a beat may be beyond its leases: a busy machine is no dead one."""

LEASES_OF_SILENCE: Final = 2


class NodeState(StrEnum):
    """What a worker does, as far as its last beat tells."""

    CONSUMING = "consuming"
    STOPPING = "stopping"
    """It was told to stop, and finishes its calls."""
    SILENT = "silent"
    """No beat: the process is dead, stopped, or cut off from Redis."""
    STUCK = "stuck"
    """Its main thread hangs."""
    PAUSED = "paused"
    """It consumes no queue, or not all that it is meant to."""
    STALLED = "stalled"
    """It has room and does not look for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a worker last said of itself.

    `turned_at`: when its main thread last turned its hub; None for pools that have none.
    `consumed_at`: when it last looked for messages, or had no room for any. `prefetch`: how many
    messages it may hold (0: no bound); `in_flight`: how many it holds. `missing`: the queues that
    it is meant to consume and does not.
    """

    node: str
    at: float
    consumed_at: float
    turned_at: float | None
    lease_s: float
    queues: tuple[str, ...]
    in_flight: int
    prefetch: int
    pid: int
    app: str
    version: str
    rss_bytes: int | None = None
    stopping: bool = False
    missing: tuple[str, ...] = ()

    def encode(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """Read it. Raises `ValueError` for what no worker of this version writes."""
        try:
            said = json.loads(text)
            turned_at, rss_bytes = said["turned_at"], said.get("rss_bytes")
            return cls(
                node=str(said["node"]),
                at=float(said["at"]),
                consumed_at=float(said["consumed_at"]),
                turned_at=None if turned_at is None else float(turned_at),
                lease_s=float(said["lease_s"]),
                queues=tuple(map(str, said["queues"])),
                in_flight=int(said["in_flight"]),
                prefetch=int(said["prefetch"]),
                pid=int(said["pid"]),
                app=str(said["app"]),
                version=str(said["version"]),
                rss_bytes=None if rss_bytes is None else int(rss_bytes),
                stopping=bool(said.get("stopping", False)),
                missing=tuple(map(str, said.get("missing", ()))),
            )
        except (LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"no beat: {type(error).__name__}: {error}") from error

    @property
    def limit_s(self) -> float:
        """How old anything in it may be."""
        return LEASES_OF_SILENCE * self.lease_s + SLACK_S

    def state(self, now: float) -> NodeState:
        """Return what the worker does."""
        oldest = now - self.limit_s
        if self.at < oldest:
            return NodeState.SILENT
        if self.stopping:
            return NodeState.STOPPING
        if self.turned_at is not None and self.turned_at < oldest:
            return NodeState.STUCK
        if not self.queues:
            return NodeState.PAUSED
        if self.consumed_at < oldest:
            return NodeState.STALLED
        return NodeState.PAUSED if self.missing else NodeState.CONSUMING
