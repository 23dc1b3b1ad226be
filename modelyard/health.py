"""Whether a yard is well: what is judged, and how. What Redis says is read by `modelyard.snapshot`.

Times are in seconds since the epoch, by the clock of the Redis server.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from modelyard.alerts import NO_NEWS, News, alerts
from modelyard.beat import Beat, NodeState
from modelyard.finding import Finding, Level
from modelyard.names import REQUESTS_QUEUE

LEASES_OVERDUE: Final = 3
"""By then somebody would have taken a claim over, were there anybody."""

CONSUMING: Final = frozenset({NodeState.CONSUMING, NodeState.PAUSED})
"""Who is paused may consume some of its queues, and has those in its beat."""

LOST_S: Final = 600.0
"""For how long a lost worker is a failure, even though others serve its queues."""

NEARLY: Final = 0.8
"""A part of a limit that is worth a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The Redis server. `problem` is empty if it can be read and written."""

    address: str
    problem: str = ""
    role: str = ""
    version: str = ""
    used_bytes: int = 0
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue: its messages, and when the next one to be taken was submitted, if it says so.

    `advice`: what to do where nobody consumes it, if that is more than to start a worker.
    """

    name: str
    length: int
    submitted_at: float | None = None
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What Redis said at one moment. Without a broker that works, there is nothing but that.

    `unreadable`: nodes whose beat this version can't read. `overdue`: claims whose lease ran out
    more than three leases ago, the first of them at `overdue_since`. `counters` count from when
    the broker's data began: `taken_over` messages of lost workers, `duplicates` (outcomes that
    were dropped: not the first, or a failure of who had lost the request), `dead_REASON`, dead
    letters `replayed` and `dropped`, and what experiments did. `news`: of endpoints and budgets,
    where the catalog was asked about.
    """

    broker: Broker
    at: float = 0.0
    beats: tuple[Beat, ...] = ()
    unreadable: tuple[str, ...] = ()
    queues: tuple[QueueState, ...] = ()
    claims: int = 0
    overdue: int = 0
    overdue_since: float | None = None
    dead_letters: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    news: News = NO_NEWS


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked about: one worker, some queues, or by default the whole yard."""

    node: str | None = None
    queues: tuple[str, ...] = ()

    @property
    def yard(self) -> bool:
        """Whether it is all of it."""
        return self.node is None and not self.queues


YARD: Final = Scope()


@dataclass(frozen=True, slots=True)
class Limits:
    """Most messages in a queue, and most dead letters; 0: no bound."""

    queue: int = 0
    dead_letters: int = 0


UNBOUNDED: Final = Limits()


@dataclass(frozen=True, slots=True)
class Report:
    """What was judged, when, and what was found; `states` are those of the beats, by node."""

    snapshot: Snapshot
    scope: Scope
    limits: Limits
    now: float
    findings: tuple[Finding, ...]
    states: dict[str, NodeState]

    @property
    def level(self) -> Level:
        """The worst that was found."""
        found = {finding.level for finding in self.findings}
        return next((level for level in reversed(Level) if level in found), Level.HEALTHY)

    @property
    def healthy(self) -> bool:
        """Whether nothing is unhealthy: an alert is no reason to restart anything."""
        return self.level is not Level.UNHEALTHY

    def consumers(self, queue: str) -> tuple[str, ...]:
        """Return the nodes that consume `queue`, as they should; some may lack another queue."""
        return tuple(
            beat.node
            for beat in self.snapshot.beats
            if queue in beat.queues and self.states[beat.node] in CONSUMING
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        snapshot, now = self.snapshot, self.now
        return {
            "status": self.level.value,
            "healthy": self.healthy,
            "at": now or None,
            "broker": asdict(snapshot.broker),
            "findings": [asdict(finding) for finding in self.findings],
            "nodes": [
                {
                    "node": beat.node,
                    "state": self.states[beat.node].value,
                    "beat_age_s": round(now - beat.at, 3),
                    "consumed_age_s": round(now - beat.consumed_at, 3),
                    "turned_age_s": None
                    if beat.turned_at is None
                    else round(now - beat.turned_at, 3),
                    "lease_s": beat.lease_s,
                    "queues": list(beat.queues),
                    "missing": list(beat.missing),
                    "in_flight": beat.in_flight,
                    "prefetch": beat.prefetch,
                    "pid": beat.pid,
                    "app": beat.app,
                    "version": beat.version,
                    "rss_bytes": beat.rss_bytes,
                }
                for beat in snapshot.beats
            ],
            "queues": [
                {
                    "queue": queue.name,
                    "length": queue.length,
                    "limit": self.limits.queue,
                    "oldest_age_s": None
                    if queue.submitted_at is None
                    else round(now - queue.submitted_at, 3),
                    "consumers": len(self.consumers(queue.name)),
                }
                for queue in snapshot.queues
            ],
            "claims": {"count": snapshot.claims, "overdue": snapshot.overdue},
            "dead_letters": {"count": snapshot.dead_letters, "limit": self.limits.dead_letters},
            "counters": dict(sorted(snapshot.counters.items())),
            "endpoints": [asdict(each) for each in snapshot.news.endpoints],
            "budgets": [
                {**asdict(each), "is_spent": each.is_spent} for each in snapshot.news.budgets
            ],
        }


def judge(
    snapshot: Snapshot, now: float, scope: Scope = YARD, limits: Limits = UNBOUNDED
) -> Report:
    """Return what is wrong. Who can't be read or written to makes everything else unknown."""
    states = {beat.node: beat.state(now) for beat in snapshot.beats}
    report = Report(snapshot, scope, limits, now, (), states)
    broker = snapshot.broker
    if broker.problem:
        findings: Iterable[Finding] = [_bad("broker", f"{broker.address}: {broker.problem}")]
    else:
        findings = [*_nodes(report), *_queues(report)]
        if scope.yard:
            findings = [*findings, *_stores(report), *alerts(snapshot.news, now)]
    return Report(snapshot, scope, limits, now, tuple(findings), states)


def _bad(about: str, message: str) -> Finding:
    return Finding(Level.UNHEALTHY, about, message)


def _nodes(report: Report) -> Iterable[Finding]:
    """Judge the workers: the one that was asked about, or all."""
    snapshot, scope = report.snapshot, report.scope
    if scope.node is None and not scope.yard:
        return
    for node in snapshot.unreadable:
        if scope.node in {None, node}:
            yield _bad(node, "its beat can't be read: it runs another version of modelyard")
    if scope.node is not None and scope.node not in {*report.states, *snapshot.unreadable}:
        known = ", ".join(sorted(report.states)) or "none"
        yield _bad(
            scope.node,
            f"no beat: it never ran, is not ready, or ended (nodes with a beat: {known})",
        )
    for beat in snapshot.beats:
        if scope.node in {None, beat.node}:
            yield from _node(report, beat)


def _node(report: Report, beat: Beat) -> Iterable[Finding]:
    now, state = report.now, report.states[beat.node]
    if state is NodeState.STOPPING:
        message = f"it stops: {beat.in_flight} messages are still in its hands"
        yield Finding(Level.WARNING, beat.node, message)
    elif state is NodeState.SILENT:
        message = (
            f"silent for {now - beat.at:.0f} s (process {beat.pid}): "
            "dead, stopped, or cut off from Redis"
        )
        served = all(report.consumers(queue) for queue in beat.queues)
        if report.scope.yard and served and now - beat.at >= LOST_S:
            yield Finding(Level.WARNING, beat.node, f"{message}; others serve its queues")
        else:
            yield _bad(beat.node, message)
    elif state is NodeState.STUCK and beat.turned_at is not None:
        stuck_s = now - beat.turned_at
        yield _bad(beat.node, f"its main thread hangs for {stuck_s:.0f} s (process {beat.pid})")
    elif state is NodeState.PAUSED and beat.missing:
        yield _bad(
            beat.node,
            f"it does not consume {', '.join(beat.missing)} any more, as it is meant to: "
            "`cancel_consumer` was used; use `add_consumer`, or start it anew",
        )
    elif state is NodeState.PAUSED:
        yield _bad(beat.node, "it consumes no queue: not connected, or `cancel_consumer` was used")
    elif state is NodeState.STALLED:
        yield _bad(
            beat.node,
            f"alive, but it has not looked for messages for {now - beat.consumed_at:.0f} s "
            f"(it holds {beat.in_flight} of {beat.prefetch or 'any number'})",
        )


def _queues(report: Report) -> Iterable[Finding]:
    """Judge the queues that were asked about, or all: who works them off, and is there room?"""
    scope, limit = report.scope, report.limits.queue
    for queue in report.snapshot.queues:
        if not scope.yard and queue.name not in scope.queues:
            continue
        needed = queue.length > 0 or queue.name == REQUESTS_QUEUE or not scope.yard
        if needed and not report.consumers(queue.name):
            more = f"; {queue.advice}" if queue.advice else ""
            yield _bad(
                queue.name, f"no worker consumes it, and {queue.length:,} messages wait{more}"
            )
        if limit and queue.length >= NEARLY * limit:
            message = f"{queue.length:,} messages wait, {limit:,} are the limit: submits will wait"
            yield Finding(Level.WARNING, queue.name, message)


def _stores(report: Report) -> Iterable[Finding]:
    """Judge what has no worker of its own: claims, dead letters, memory."""
    snapshot, limit, broker = report.snapshot, report.limits.dead_letters, report.snapshot.broker
    if snapshot.overdue:
        since_s = report.now - (snapshot.overdue_since or report.now)
        yield _bad(
            "claims",
            f"{snapshot.overdue:,} messages belong to lost workers, and nobody takes them over "
            f"(the first lease ran out {since_s:.0f} s ago)",
        )
    dead = snapshot.dead_letters
    if limit and dead >= limit:
        yield _bad(
            "dead letters",
            f"{dead:,} of {limit:,}: full, nothing is accepted until some are replayed or dropped "
            "(`modelyard dead`)",
        )
    elif limit and dead >= NEARLY * limit:
        message = f"{dead:,} of {limit:,}: nearly full (`modelyard dead`)"
        yield Finding(Level.ALERT, "dead letters", message)
    if broker.max_bytes and broker.used_bytes >= NEARLY * broker.max_bytes:
        used, most = (f"{size / 2**20:,.0f} MiB" for size in (broker.used_bytes, broker.max_bytes))
        yield Finding(Level.WARNING, "broker", f"{used} of {most} memory are used (maxmemory)")


def relevant(queues: Collection[str], beats: Iterable[Beat]) -> tuple[str, ...]:
    """Return `queues`, `requests`, and what the workers consume, sorted."""
    return tuple(
        sorted({REQUESTS_QUEUE, *queues, *(name for beat in beats for name in beat.queues)})
    )
