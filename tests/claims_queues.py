"""What tests of claims put into queues, claim from them and find in them."""

from typing import Any, Final

import redis
from claims_model import id_of, stored

from modelyard.claims import AT_ONCE, DONE, Claimed, Claims, JoinPoint, New, Spread, Want, put

QUEUE: Final = "requests"
NEXT: Final = "model.small"


def in_queue(client: redis.Redis, queue: str = QUEUE) -> list[bytes]:
    """Return what is in a queue, the oldest first."""
    return stored(client, [queue]).queues[queue]


def put_all(client: redis.Redis, *messages: bytes, queue: str = QUEUE) -> None:
    """Put messages into a queue that has room for them."""
    said = put(client, queue, [New(id_of(message), message) for message in messages])
    assert said == [DONE] * len(messages)


def claim_from(worker: Claims, *queues: str, room: int = AT_ONCE) -> list[Claimed]:
    """Claim at most `room` messages of these queues, or of `QUEUE`."""
    return worker.claim([Want(queue, room, room) for queue in queues or [QUEUE]], room)[0]


def spread_of(claim: str, need: int = 3, *, within_ms: int = 60_000, **fields: Any) -> Spread:
    """Return a request `a` of three members, who are joined in `model.small`."""
    members = tuple(("members", b"a%d" % number) for number in (1, 2, 3))
    return Spread(claim, members, JoinPoint("a", need, 3, within_ms, NEXT, b"a", **fields))
