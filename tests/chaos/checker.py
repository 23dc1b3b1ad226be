"""What became of every request of a storm: a pure function of the evidence.

In the manner of Jepsen's queue test (https://jepsen.io): what was accepted has to come out, once.

- *lost*: accepted, and there is no outcome, no result, no dead letter and no message of it;
- *stranded*: it has no outcome, but is still in a queue or in a claim when all is quiet;
- *left over*: it has its outcome and is still in a queue or in a claim;
- *doubled*: two terminal outcomes of one id were published, stored or seen, or an answer and a
  dead letter;
- *paid twice*: the endpoint completed more than one call of an id, or of a part of its plan, where
  that asks several models. It is *explained* once for each fault that found the call in flight:
  made, without an outcome of its request, at a process that was killed or stopped; or anywhere,
  from the begin of a fault between workers and Redis until a lease after its end, as nobody can
  renew a lease meanwhile;
- *takeover*: from the SIGKILL of a pool process until a request that it had in flight was called
  again or had its outcome. A *recovery* is the longest of these for one SIGKILL. Of a router the
  requests in hand are not known: all that were accepted and not called yet stand for them.

A Redis with `appendfsync everysec` promises all but the last one to two seconds before the machine
stops. What was accepted then may be lost, and what ended then may end again: both are counted.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from chaos.evidence import Evidence, Execution, Fault, Memory, Outcome

UNSYNCED_S: Final = 2.0
"""What `everysec` may lose at most, in seconds."""

POWER_LOSS: Final = frozenset({"redis-power", "redis-kill-everysec"})
BETWEEN: Final = frozenset(
    {"redis-kill", "redis-stop", "redis-refuse", "reset", "stall"} | POWER_LOSS
)
"""Faults between the workers and Redis, or of Redis itself."""
AT_A_WORKER: Final = frozenset({"kill", "stop", "died"})
MEMORY_FROM: Final = 0.2
"""The first part of a run fills pools and caches; memory is compared after it."""


@dataclass(frozen=True, slots=True)
class Report:
    """The counts of one storm; ids where one has to look into the logs. Times in seconds."""

    submitted: int
    accepted: int
    answered: int
    dead_lettered: int
    lost: tuple[str, ...]
    lost_as_promised: tuple[str, ...]
    accepted_unsynced: int
    stranded: tuple[str, ...]
    left_over: tuple[str, ...]
    unknown_left: int
    unheard: tuple[str, ...]
    doubled: tuple[str, ...]
    ended_again_as_promised: tuple[str, ...]
    executions: int
    paid_twice: tuple[str, ...]
    paid_twice_unexplained: tuple[str, ...]
    in_flight: int
    kills: int
    died_alone: int
    takeovers_s: tuple[float, ...]
    recoveries_s: tuple[float, ...]
    router_recoveries_s: tuple[float, ...]
    never_taken_over: int
    memory_growth: float
    duration_s: float

    @property
    def requests_per_s(self) -> float:
        """Requests that came to an end, per second from the first submit to the last outcome."""
        ended = self.answered + self.dead_lettered
        return ended / self.duration_s if self.duration_s else 0.0


class _Storm:
    """The evidence by id."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.calls: dict[tuple[str, str], list[Execution]] = defaultdict(list)
        self.first_call: dict[str, float] = {}
        for execution in evidence.executions:
            self.calls[execution.id, execution.part].append(execution)
            self.first_call.setdefault(execution.id, execution.started_at)
        self.seen: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in (*evidence.published, *evidence.heard):
            self.seen[outcome.id].append(outcome)
        self.first_end: dict[str, float] = {
            id: min(outcome.at for outcome in seen) for id, seen in self.seen.items()
        }
        for id, stored in evidence.truth.results.items():
            self.first_end.setdefault(id, stored.at)

    @cached_property
    def power_losses(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.evidence.faults if fault.action in POWER_LOSS)

    def unsynced(self, at: float) -> bool:
        """Whether Redis had not promised yet to keep what it did at this time."""
        return any(fault.at - UNSYNCED_S <= at <= fault.until for fault in self.power_losses)

    def ended(self, id: str) -> bool:
        truth = self.evidence.truth
        return id in self.seen or id in truth.results or id in truth.dead_letters

    def open_at(self, id: str, at: float) -> bool:
        """Whether it had no outcome yet."""
        return self.first_end.get(id, math.inf) >= at


def check(evidence: Evidence) -> Report:
    """Return what became of the requests."""
    storm = _Storm(evidence)
    truth = evidence.truth
    under_way = truth.queued | truth.claimed
    open_ids = [id for id in evidence.submitted if not storm.ended(id)]
    gone = [id for id in open_ids if id in evidence.accepted and id not in under_way]
    excused = {id for id in gone if storm.unsynced(evidence.accepted[id])}
    doubled = [id for id in evidence.submitted if ended_twice(id, storm)]
    again = {id for id in doubled if storm.unsynced(storm.first_end[id])}
    kinds = Counter(kind for id in evidence.submitted if (kind := final_kind(id, storm)))
    extra = extra_calls(storm)
    explained = explanations(storm)
    takeovers = [
        takeover_times(storm, fault)
        for fault in evidence.faults
        if fault.action == "kill" and not is_router(fault)
    ]
    found = [time for times in takeovers for time in times]
    ends = [at for id, at in storm.first_end.items() if id in evidence.submitted]
    return Report(
        submitted=len(evidence.submitted),
        accepted=len(evidence.accepted),
        answered=kinds["answered"],
        dead_lettered=kinds["dead"],
        lost=tuple(id for id in gone if id not in excused),
        lost_as_promised=tuple(id for id in gone if id in excused),
        accepted_unsynced=sum(storm.unsynced(at) for at in evidence.accepted.values()),
        stranded=tuple(id for id in open_ids if id in under_way),
        left_over=tuple(id for id in sorted(under_way) if storm.ended(id)),
        unknown_left=truth.unknown,
        unheard=unheard(storm),
        doubled=tuple(id for id in doubled if id not in again),
        ended_again_as_promised=tuple(id for id in doubled if id in again),
        executions=len(evidence.executions),
        paid_twice=tuple(dict.fromkeys(id for id, _ in extra)),
        # What excuses one part of a plan says nothing of its others.
        paid_twice_unexplained=tuple(
            dict.fromkeys(id for id, part in extra if extra[id, part] > explained[id, part])
        ),
        in_flight=explained.total(),
        kills=sum(fault.action == "kill" for fault in evidence.faults),
        died_alone=sum(fault.action == "died" for fault in evidence.faults),
        takeovers_s=tuple(time for time in found if math.isfinite(time)),
        recoveries_s=tuple(
            max(times) for times in takeovers if times and math.isfinite(max(times))
        ),
        router_recoveries_s=router_recoveries(storm),
        never_taken_over=sum(not math.isfinite(time) for time in found),
        memory_growth=memory_growth(evidence.memory),
        duration_s=max(ends) - min(evidence.submitted.values()) if ends else 0.0,
    )


def ended_twice(id: str, storm: _Storm) -> bool:
    """Whether more than one terminal outcome of it was published, stored or seen."""
    evidence = storm.evidence
    published = [outcome for outcome in evidence_of(storm, id) if outcome.digest]
    stored = evidence.truth.results.get(id)
    digests = {outcome.digest for outcome in published}
    kinds = {outcome.kind for outcome in evidence_of(storm, id)}
    if stored is not None:
        digests.add(stored.digest)
        kinds.add(stored.kind)
    if id in evidence.truth.dead_letters:
        kinds.add("dead")
    return len(published) > 1 or len(digests) > 1 or len(kinds) > 1


def evidence_of(storm: _Storm, id: str) -> Sequence[Outcome]:
    """Return the outcomes that were seen of an id."""
    return storm.seen.get(id, ())


def final_kind(id: str, storm: _Storm) -> str | None:
    """Return what became of it in the end: what is stored counts, else what was seen last."""
    truth = storm.evidence.truth
    if (stored := truth.results.get(id)) is not None:
        return stored.kind
    if seen := evidence_of(storm, id):
        return max(seen, key=lambda outcome: outcome.at).kind
    return "dead" if id in truth.dead_letters else None


def unheard(storm: _Storm) -> tuple[str, ...]:
    """Return the ids that have a result, and whose waiter was never told."""
    evidence = storm.evidence
    heard = {outcome.id for outcome in evidence.heard}
    waited_for = evidence.accepted.keys() - evidence.nobody_waits - heard
    return tuple(id for id in evidence.truth.results if id in waited_for)


def extra_calls(storm: _Storm) -> dict[tuple[str, str], int]:
    """Return the ids and parts that were paid for more than once, and how many times too often."""
    paid = {
        whole: sum(call.ended_at is not None for call in calls)
        for whole, calls in storm.calls.items()
    }
    return {whole: count - 1 for whole, count in paid.items() if count > 1}


def explanations(storm: _Storm) -> Counter[tuple[str, str]]:
    """Return for each id and part how many faults found it in flight."""
    found: Counter[tuple[str, str]] = Counter()
    for fault in storm.evidence.faults:
        if fault.action in AT_A_WORKER:
            found.update(in_flight_at(storm, fault))
        elif fault.action in BETWEEN:
            since = fault.at - (UNSYNCED_S if fault.action in POWER_LOSS else 0.0)
            until = fault.until + storm.evidence.lease_s
            found.update(
                whole
                for whole, calls in storm.calls.items()
                if storm.open_at(whole[0], since) and calls[0].started_at <= until
            )
    return found


def in_flight_at(storm: _Storm, fault: Fault) -> list[tuple[str, str]]:
    """Return for which ids and parts the process that the fault hit was calling at that time."""
    return [
        (id, part)
        for (id, part), calls in storm.calls.items()
        if storm.open_at(id, fault.at)
        and any(
            # A killed process calls no more: what the endpoint got later was sent before.
            call.worker == fault.target and (call.started_at <= fault.until or dead(fault))
            for call in calls
        )
    ]


def dead(fault: Fault) -> bool:
    """Whether the process is gone after it."""
    return fault.action in ("kill", "died")


def is_router(fault: Fault) -> bool:
    """Whether the fault hit a router."""
    return fault.target.startswith("router")


def takeover_times(storm: _Storm, fault: Fault) -> list[float]:
    """Return for each request in flight at a SIGKILL how long it waited; `inf` if for ever."""
    times = []
    for id, part in in_flight_at(storm, fault):
        before = [call for call in storm.calls[id, part] if call.started_at <= fault.at]
        if before and before[-1].worker != fault.target:
            continue  # it had moved on to another process
        again = [
            call.started_at
            for call in storm.calls[id, part]
            if call.started_at > fault.at and call.worker != fault.target
        ]
        moved = min([*again, storm.first_end.get(id, math.inf)])
        times.append(moved - fault.at)
    return times


def router_recoveries(storm: _Storm) -> tuple[float, ...]:
    """Return for each SIGKILL of a router how long the last of what waited then took."""
    recoveries = []
    for fault in storm.evidence.faults:
        if fault.action != "kill" or not is_router(fault):
            continue
        waits = []
        for id, accepted_at in storm.evidence.accepted.items():
            moved = storm.first_call.get(id) or storm.first_end.get(id, math.inf)
            if accepted_at <= fault.at < moved < math.inf:
                waits.append(moved - fault.at)
        if waits:
            recoveries.append(max(waits))
    return tuple(recoveries)


def memory_growth(samples: Sequence[Memory]) -> float:
    """Return the largest growth of a process's memory after the first part of the run, or 0."""
    by_worker: Mapping[str, list[Memory]] = defaultdict(list)
    for sample in samples:
        by_worker[sample.worker].append(sample)
    growths = [0.0]
    for own in by_worker.values():
        first, last = own[0].outcomes, own[-1].outcomes
        settled = [each for each in own if each.outcomes > first + MEMORY_FROM * (last - first)]
        if len(settled) > 1:
            growths.append(settled[-1].mib / settled[0].mib - 1)
    return max(growths)


def failures(report: Report, *, two_leases_s: float | None = None, flat: bool = False) -> list[str]:
    """Return in words what breaks a promise; `two_leases_s` bounds the takeovers, if given."""
    told = [
        f"{name} {len(ids)}: {', '.join(ids[:5])}"
        for name, ids in (
            ("lost", report.lost),
            ("stranded", report.stranded),
            ("doubled outcomes", report.doubled),
            ("left in a queue or a claim though it ended", report.left_over),
            ("outcomes nobody was told", report.unheard),
            ("paid twice without a reason", report.paid_twice_unexplained),
        )
        if ids
    ]
    if report.submitted != report.accepted:
        told.append(f"{report.submitted - report.accepted} submits were never accepted")
    if report.unknown_left:
        told.append(f"{report.unknown_left} unreadable messages left in queues or claims")
    if two_leases_s is not None and report.takeovers_s:
        slowest = percentile(report.takeovers_s, 99)
        if slowest > two_leases_s:
            told.append(f"takeover p99 {slowest:.1f} s, more than {two_leases_s:g} s")
    if flat and report.memory_growth > 0.05:
        told.append(f"a worker's memory grew by {report.memory_growth:.1%}")
    return told


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed (nearest rank); 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
