"""What the workers tell each other of the endpoints, once a second and when one is left alone.

Each model has a hash in Redis: why and until when which endpoint is left alone, what was learned of
its limits, and how each worker process finds them. It is news, not truth: a worker that does not
hear it goes by what it sees itself.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from model_workers.endpoints import learned as limits
from model_workers.endpoints.learned import NOTHING, Learned
from modelyard.circuit import Circuit, Reason, is_from_ahead
from modelyard.names import ENDPOINTS_KEY_PREFIX

GONE_S: Final = 10.0
"""A process that said nothing for so long counts no more."""

STALE_S: Final = 600.0
"""Who left an endpoint alone and never probed it since is gone, or calls the model no more."""

KEEP_S: Final = 3600
"""For how long a model is remembered of which nobody says anything."""


@dataclass(frozen=True, slots=True)
class Load:
    """How one worker process finds an endpoint.

    `latency_s`: decaying mean of the answers' times, as of `latency_at`, 0 if there was none;
    `used`: calls in the last minute, decayed.
    """

    in_flight: int = 0
    latency_s: float = 0.0
    latency_at: float = 0.0
    used: float = 0.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a process has to tell of a model: its loads by label, which circuits changed, and what
    it learned, or forgot, of limits.
    """

    loads: Mapping[str, Load]
    opened: Mapping[str, Circuit] = field(default_factory=dict)
    closed: Sequence[str] = ()
    learned: Mapping[str, Learned] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of a model: the circuits that are not closed, the others' loads, and what was
    learned of limits.
    """

    circuits: Mapping[str, Circuit]
    loads: Sequence[Mapping[str, Load]]
    learned: Mapping[str, Learned] = field(default_factory=dict)


def exchange(
    client: redis.Redis, process: str, said: Mapping[str, Said], clock: Callable[[], float]
) -> tuple[float, dict[str, Heard]]:
    """Tell what there is of each model, and return what it knows, and by how many seconds the
    server's clock is ahead of `clock`.

    Raises `redis.RedisError`.
    """
    asked = clock()
    seconds, micros = client.time()
    now = seconds + micros / 1e6
    ahead_s = now - (asked + clock()) / 2
    with client.pipeline(transaction=False) as pipe:
        for model, what in said.items():
            key = ENDPOINTS_KEY_PREFIX + model
            pairs = [f"@{process}", encode_loads(what.loads, now)]
            for label, circuit in what.opened.items():
                pairs += [label, encode(circuit)]
            over = list(what.closed)
            for label, learned in what.learned.items():
                if learned == NOTHING:
                    over.append(f"~{label}")
                else:
                    pairs += [f"~{label}", limits.encode(learned)]
            if over:
                pipe.hdel(key, *over)
            pipe.hset(key, items=pairs)
            pipe.expire(key, KEEP_S)
            pipe.hgetall(key)
        found = pipe.execute()
    hashes = [each for each in found if isinstance(each, dict)]
    heard, gone = {}, {}
    for model, known in zip(said, hashes, strict=True):
        heard[model], gone[model] = read(known, process, now)
    with client.pipeline(transaction=False) as pipe:
        for model, names in gone.items():
            if names:
                pipe.hdel(ENDPOINTS_KEY_PREFIX + model, *names)
        pipe.execute()
    return ahead_s, heard


def read(fields: Mapping[bytes, bytes], process: str, now: float) -> tuple[Heard, list[str]]:
    """Return what a hash says, and the fields that say nothing more: of processes that are gone,
    and of what is left alone by nobody.
    """
    circuits: dict[str, Circuit] = {}
    loads: list[dict[str, Load]] = []
    learned: dict[str, Learned] = {}
    gone: list[str] = []
    for raw, value in fields.items():
        name = raw.decode("utf-8", "replace")
        if name.startswith("~"):
            found = limits.decode(value)
            if found is None or limits.is_over(found, now):
                gone.append(name)
            else:
                learned[name[1:]] = found
        elif not name.startswith("@"):
            circuit = decode(value)
            if circuit is None or circuit.until < now - STALE_S or is_from_ahead(circuit, now):
                gone.append(name)
            else:
                circuits[name] = circuit
        elif name != f"@{process}":
            at, load = decode_loads(value)
            if at < now - GONE_S:
                gone.append(name)
            else:
                loads.append(load)
    return Heard(circuits, loads, learned), gone


def encode(circuit: Circuit) -> str:
    """Return a circuit that is not closed as JSON."""
    return json.dumps(
        {
            "until": round(circuit.until, 3),
            "since": round(circuit.since, 3),
            "times": circuit.times,
            "why": circuit.why,
        }
    )


def decode(text: bytes) -> Circuit | None:
    """Return the circuit, or None for what no worker of this version writes."""
    try:
        said = json.loads(text)
        until, since = float(said["until"]), float(said["since"])
        if not (math.isfinite(until) and math.isfinite(since)):
            return None
        return Circuit(
            at=since, until=until, since=since, times=int(said["times"]), why=Reason(said["why"])
        )
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return None


def encode_loads(loads: Mapping[str, Load], now: float) -> str:
    """Return a process's loads as JSON."""
    told = {
        label: [
            load.in_flight,
            round(load.latency_s, 4),
            round(load.latency_at, 1),
            round(load.used),
        ]
        for label, load in loads.items()
    }
    return json.dumps({"at": round(now, 3), "loads": told})


def decode_loads(text: bytes) -> tuple[float, dict[str, Load]]:
    """Return when they were told and the loads; nothing for what can't be read."""
    try:
        said: Any = json.loads(text)
        loads = {
            str(label): Load(int(load[0]), float(load[1]), float(load[2]), float(load[3]))
            for label, load in said["loads"].items()
        }
        return float(said["at"]), loads
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        return 0.0, {}
