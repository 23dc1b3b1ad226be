"""What Redis holds: results, dead letters, and the ids in queues and in claims."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import redis

from chaos.evidence import Outcome, Truth
from chaos.journal import now
from chaos.load import ID_MARK
from chaos.results import RESULT_KEY_PREFIX, digest, kind_of
from modelyard.names import DEAD_LETTERS_KEY

READ_AT_ONCE: Final = 500
CLAIMS: Final = ("modelyard:claims", "unacked")
"""Hashes whose values hold the messages that some worker has in hand: ours, and kombu's."""

NO_QUEUES: Final = re.compile(rb"modelyard:|_kombu|.*pidbox")
"""Lists that hold no requests: wake-ups, and what Celery's remote control left to dead workers."""
_ID: Final = re.compile(rf'"id": ?"({ID_MARK}[a-z0-9-]+)(?::[a-z0-9]+)?"')


def results(client: redis.Redis, ids: Collection[str]) -> Iterator[Outcome]:
    """Yield the terminal results that are stored for these ids."""
    wanted = sorted(ids)
    at = now()
    for first in range(0, len(wanted), READ_AT_ONCE):
        some = wanted[first : first + READ_AT_ONCE]
        stored = client.mget([RESULT_KEY_PREFIX + id for id in some])
        for id, raw in zip(some, stored, strict=True):
            if raw is not None and (kind := kind_of(raw)) is not None:
                yield Outcome(id, kind, at, digest(raw))


def messages(client: redis.Redis) -> tuple[list[bytes | str], list[bytes | str]]:
    """Return all messages in queues, and all in claims."""
    queued: list[bytes | str] = []
    claimed = [message for key in CLAIMS for message in client.hvals(key)]
    for key in client.scan_iter(count=5000, _type="list"):
        if not NO_QUEUES.match(key):
            queued += client.lrange(key, 0, -1)
    return queued, claimed


def ids_of(raw: Iterable[bytes | str], prefix: str) -> tuple[frozenset[str], int]:
    """Return the ids of a storm in these messages, and how many hold no id of any storm."""
    found: set[str] = set()
    unknown = 0
    for message in raw:
        text = message if isinstance(message, str) else message.decode(errors="replace")
        ids = _ID.findall(text)
        unknown += not ids
        found.update(id for id in ids if id.startswith(prefix))
    return frozenset(found), unknown


def under_way(client: redis.Redis, prefix: str) -> tuple[frozenset[str], frozenset[str], int]:
    """Return the ids in queues, the ids in claims, and how many messages there bear none."""
    queued, claimed = messages(client)
    queued_ids, unknown = ids_of(queued, prefix)
    claimed_ids, more = ids_of(claimed, prefix)
    return queued_ids, claimed_ids, unknown + more


def truth(client: redis.Redis, ids: Collection[str], prefix: str) -> Truth:
    """Return all that is stored about these ids."""
    queued, claimed, unknown = under_way(client, prefix)
    wanted = sorted(ids)
    letters: dict[str, str] = {}
    for first in range(0, len(wanted), READ_AT_ONCE):
        some = wanted[first : first + READ_AT_ONCE]
        for id, raw in zip(some, client.hmget(DEAD_LETTERS_KEY, some), strict=True):
            if raw is not None:
                letters[id] = str(json.loads(raw).get("reason", "?"))
    return Truth(
        results={outcome.id: outcome for outcome in results(client, ids)},
        dead_letters=letters,
        queued=queued,
        claimed=claimed,
        unknown=unknown,
    )
