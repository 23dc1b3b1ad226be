"""What the logs of a storm say, as frozen data for the checker."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from chaos.journal import Entry

Kind = Literal["answered", "dead"]
EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Execution:
    """One call at the endpoint by a worker process. `ended_at` is None if it was not paid for.

    `part` tells the calls of a plan that asks several models apart: each is to be paid for once.
    """

    id: str
    worker: str
    started_at: float
    ended_at: float | None = None
    part: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An outcome that somebody saw. `digest` is of what was stored, if that was seen."""

    id: str
    kind: Kind
    at: float
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done, from `at` to `until`, to `target`: a worker process, or to all."""

    action: str
    target: str
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Memory:
    """The resident memory of a worker process at a time, in MiB, and the outcomes until then."""

    worker: str
    outcomes: int
    mib: float


@dataclass(frozen=True, slots=True)
class Truth:
    """What Redis holds when all is quiet: results, dead letters, and ids that are on their way.

    `unknown`: messages in queues and claims that bear no id of the storm's.
    """

    results: Mapping[str, Outcome] = field(default_factory=dict)
    dead_letters: Mapping[str, str] = field(default_factory=dict)
    queued: frozenset[str] = frozenset()
    claimed: frozenset[str] = frozenset()
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about a storm. `accepted` maps ids to the time of the acknowledgement.

    `nobody_waits`: ids of messages that were put into the queue past any client.
    """

    submitted: Mapping[str, float]
    accepted: Mapping[str, float]
    executions: tuple[Execution, ...]
    heard: tuple[Outcome, ...]
    published: tuple[Outcome, ...]
    faults: tuple[Fault, ...]
    truth: Truth
    lease_s: float
    nobody_waits: frozenset[str] = frozenset()
    memory: tuple[Memory, ...] = ()


def read_submits(entries: Iterable[Entry]) -> tuple[dict[str, float], dict[str, float]]:
    """Return when each id was first sent, and when it was acknowledged."""
    submitted: dict[str, float] = {}
    accepted: dict[str, float] = {}
    for entry in entries:
        times = {"submit": submitted, "accepted": accepted}.get(entry["kind"])
        for id in entry["ids"] if times is not None else ():
            assert times is not None
            times.setdefault(id, entry["at"])
    return submitted, accepted


def read_executions(entries: Iterable[Entry], *, apart: bool = False) -> tuple[Execution, ...]:
    """Return the calls at the endpoint, in the order of their begin; `apart`: by part.

    Members of an ensemble call under the request's id and their number (`ID:2`).
    """
    begun: dict[int, Entry] = {}
    ended: dict[int, float] = {}
    for entry in entries:
        if entry["kind"] == "start":
            begun[entry["call"]] = entry
        else:
            ended[entry["call"]] = entry["at"]
    found = []
    for call, entry in begun.items():
        id, _, member = entry["id"].partition(":")
        part = f"{member}:{entry['model']}" if apart else ""
        found.append(Execution(id, entry["worker"], entry["at"], ended.get(call), part))
    return tuple(found)


def read_outcomes(entries: Iterable[Entry]) -> tuple[Outcome, ...]:
    """Return the outcomes in the waiter's or the recorder's log."""
    return tuple(
        Outcome(entry["id"], entry["kind"], entry["at"], entry.get("digest", ""))
        for entry in entries
        if entry["kind"] in ("answered", "dead")
    )


def read_faults(entries: Iterable[Entry], ended_at: float) -> tuple[Fault, ...]:
    """Return the faults; one whose end is not told lasted until `ended_at`."""
    faults: list[Fault] = []
    open_: dict[tuple[str, str], float] = {}
    for entry in entries:
        name, target = entry.get("action", ""), entry.get("target", EVERYTHING)
        match entry["kind"]:
            case "fault":
                faults.append(Fault(name, target, entry["at"], entry["at"]))
            case "begin":
                open_[name, target] = entry["at"]
            case "end" if (name, target) in open_:
                faults.append(Fault(name, target, open_.pop((name, target)), entry["at"]))
    left = [Fault(name, target, at, ended_at) for (name, target), at in open_.items()]
    return tuple(sorted((*faults, *left), key=lambda fault: fault.at))


def read_memory(entries: Iterable[Entry]) -> tuple[Memory, ...]:
    """Return the samples of memory."""
    return tuple(
        Memory(entry["worker"], entry["outcomes"], entry["mib"])
        for entry in entries
        if entry["kind"] == "memory"
    )
