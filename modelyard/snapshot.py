"""Reading what `modelyard.health` judges, in two or three round trips.

A broker that is away or refuses to be written to is no error here but what the snapshot says.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelyard.beat import Beat
from modelyard.connect import connect
from modelyard.errors import SettingsError
from modelyard.health import (
    LEASES_OVERDUE,
    YARD,
    Broker,
    QueueState,
    Scope,
    Snapshot,
    relevant,
)
from modelyard.names import COUNTERS_KEY, DEAD_LETTERS_KEY, LEASES_KEY, WORKERS_KEY
from modelyard.scripts import Script
from modelyard.stranded import queues_behind

ANSWER_S: Final = 2.0
"""How long Redis may take for one answer before it counts as away."""

FORGOTTEN_S: Final = 24 * 3600.0
"""After so long without a beat, a worker is forgotten."""

ASK_PRIMARY: Final = "point MODELYARD_BROKER_URL at its primary"

QUEUE_STATES: Final = Script("queue_states")

Opening = Callable[[str], redis.Redis]


def open_client(url: str) -> redis.Redis:
    """Return a client that gives up soon. Raises `SettingsError` for what is no address."""
    try:
        return connect(
            url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        # Without what it is: it may hold a password.
        raise SettingsError(
            "MODELYARD_BROKER_URL is no Redis address such as redis://[:password@]host:6379/0"
        ) from error


def take_snapshot(
    url: str,
    scope: Scope = YARD,
    queues: Collection[str] = (),
    lease_s: float = 0.0,
    *,
    apart: Collection[str] = (),
    opening: Opening = open_client,
) -> Snapshot:
    """Return what the Redis at `url` says about `scope`.

    `queues`: which ones there are besides those that workers consume, and those in which requests
    wait; `apart`: those that want no worker. `lease_s`: the least that a lease is taken for. Beats
    of long ago are deleted on the way. Raises `SettingsError`.
    """
    address = shown(url)
    client = opening(url)
    with client:
        try:
            return _read(client, address, scope, queues, lease_s, apart)
        except (redis.RedisError, OSError) as error:
            return Snapshot(broker=Broker(address=address, problem=problem_of(error)))


def _read(
    client: redis.Redis,
    address: str,
    scope: Scope,
    queues: Collection[str],
    lease_s: float,
    apart: Collection[str],
) -> Snapshot:
    first = _first_look(client, scope)
    (seconds, microseconds), info, beats, dead_letters, claims, counted, written = first
    now = seconds + microseconds / 1e6
    broker = Broker(
        address=address,
        problem=_refusal(written, info),
        role=str(info.get("role", "")),
        version=str(info.get("redis_version", "")),
        used_bytes=int(info.get("used_memory", 0)),
        max_bytes=int(info.get("maxmemory", 0)),
    )
    read, unreadable = _decoded(beats)
    if scope.yard and not broker.problem:
        forgotten = {beat.node for beat in read if beat.at < now - FORGOTTEN_S}
        if forgotten:
            client.hdel(WORKERS_KEY, *forgotten)
            read = tuple(beat for beat in read if beat.node not in forgotten)
    names = relevant(queues, read) if scope.yard else scope.queues
    states = _queue_states(client, names)
    if scope.yard:
        # Of those that nobody else names: what is empty may be long gone.
        others = queues_behind(client).difference(names, apart)
        waiting = (each for each in _queue_states(client, sorted(others)) if each.length)
        states = tuple(sorted((*states, *waiting), key=lambda each: each.name))
    overdue, since = 0, None
    if scope.yard and claims:
        lease_s = max([lease_s, *(beat.lease_s for beat in read)])
        due_ms = 1000 * (now - LEASES_OVERDUE * lease_s)
        overdue = int(client.zcount(LEASES_KEY, "-inf", due_ms))
        oldest: list[Any] = client.zrange(LEASES_KEY, 0, 0, withscores=True) if overdue else []
        since = float(oldest[0][1]) / 1000 if oldest else None
    return Snapshot(
        broker=broker,
        at=now,
        beats=read,
        unreadable=unreadable,
        queues=states,
        claims=claims,
        overdue=overdue,
        overdue_since=since,
        dead_letters=dead_letters,
        counters={name.decode(): int(count) for name, count in counted.items()},
    )


def _first_look(client: redis.Redis, scope: Scope) -> list[Any]:
    """Ask for the time, the server, the beats, how much is in the stores, and try to write."""
    asked = client.pipeline(transaction=False)
    asked.time()
    asked.info()
    if scope.node is None or scope.queues:
        asked.hgetall(WORKERS_KEY)
    else:
        asked.hmget(WORKERS_KEY, [scope.node])
    asked.hlen(DEAD_LETTERS_KEY)
    asked.zcard(LEASES_KEY)
    asked.hgetall(COUNTERS_KEY)
    # Changes nothing, as no lease has this name, and is refused as any write would be: by a
    # replica, without memory, when the disk fails. The last, as our connections leave a server
    # that refuses.
    asked.execute_command("ZADD", LEASES_KEY, "XX", "0", "")
    said = asked.execute(raise_on_error=False)
    for each in said[:-1]:
        if isinstance(each, Exception):
            raise each
    if isinstance(said[2], list):
        said[2] = {scope.node: said[2][0]} if said[2][0] is not None else {}
    return said


def _refusal(written: object, info: Mapping[str, Any]) -> str:
    """Return why Redis can't be written to, or nothing."""
    if isinstance(written, redis.RedisError | OSError):
        return problem_of(written)
    if info.get("role") == "slave":
        return "it is a replica, so what is written there is lost: " + ASK_PRIMARY
    return ""


def _decoded(beats: Mapping[Any, bytes]) -> tuple[tuple[Beat, ...], tuple[str, ...]]:
    read, unreadable = [], []
    for node, text in beats.items():
        try:
            read.append(Beat.decode(text))
        except ValueError:
            unreadable.append(node.decode(errors="replace") if isinstance(node, bytes) else node)
    return tuple(sorted(read, key=lambda beat: beat.node)), tuple(sorted(unreadable))


def _queue_states(client: redis.Redis, names: Collection[str]) -> tuple[QueueState, ...]:
    if not names:
        return ()
    said = QUEUE_STATES(client, list(names), [])
    return tuple(
        QueueState(name, length, float(submitted) if submitted else None)
        for name, length, submitted in zip(names, said[::2], said[1::2], strict=True)
    )


WORDS: Final = (
    ("OutOfMemoryError", "OOM", "it has no memory left (maxmemory) and refuses to be written to"),
    (
        "ReadOnlyError",
        "READONLY",
        "it is a read-only replica: " + ASK_PRIMARY,
    ),
    ("BusyLoadingError", "LOADING", "it is loading its data after a start"),
    ("", "MISCONF", "it can't save to its disk and refuses to be written to"),
    ("", "NOREPLICAS", "it has too few replicas and refuses to be written to"),
    ("", "BUSY", "it is busy with a script"),
    (
        "AuthenticationError",
        "WRONGPASS",
        "it wants a password, or another one than MODELYARD_BROKER_URL has",
    ),
)
"""redis-py's name of a refusal, Redis's own, and what it means."""


def problem_of(error: BaseException) -> str:
    """Return what is wrong with a broker that answered with this error, or not at all."""
    text = str(error).strip().rstrip(".")
    for name, code, words in WORDS:
        if type(error).__name__ == name or text.startswith(code):
            return words
    if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
        return f"it does not answer within {ANSWER_S:g} s"
    if isinstance(error, redis.ConnectionError | OSError):
        return f"it can't be reached: {text}"
    return f"it refuses: {text}"


def shown(url: str) -> str:
    """Return an address without users, passwords and options, which are nobody's business."""
    # Of sentinels there are several, each with a login.
    each = url.partition("?")[0].split(";sentinel://")
    return ";sentinel://".join(re.sub(r"^(\w+://)?[^/]*@", r"\1", one) for one in each)
