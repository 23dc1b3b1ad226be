"""What `modelyard.claims` must do, in plain Python, to compare a real Redis with."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from modelyard.claims import (
    DONE,
    FENCED,
    LOST,
    NO_ROOM,
    Ack,
    End,
    Hop,
    Join,
    JoinPoint,
    New,
    Record,
    Settlement,
    Spread,
    Want,
)
from modelyard.names import (
    CLAIMS_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_BY_AGE_KEY,
    DEAD_LETTERS_KEY,
    DECISIONS_KEY,
    JOIN_KEY_PREFIX,
    JOINS_KEY,
    LEASES_KEY,
    RESULT_KEY_PREFIX,
    SESSION_KEY_PREFIX,
    SUBMITTED_KEY_PREFIX,
    WAKE_KEY_PREFIX,
)

NO_ROOM_FOR_DEAD = -2


@dataclass(slots=True)
class Held:
    """A message under a claim; its lease runs out at `due_ms`."""

    queue: str
    message: bytes
    due_ms: int


@dataclass(slots=True)
class Meeting:
    """Where members meet; `message` is None once it is on its queue."""

    need: int
    members: int
    queue: str
    anywhere: bool
    message: bytes | None
    round: str = ""
    ended: dict[int, str] = field(default_factory=dict)
    answered: int = 0
    needs_all: bool = False


def id_of(message: bytes) -> str:
    """Return the request of a message: what stands before the first bar."""
    return message.partition(b"|")[0].decode()


@dataclass(slots=True)
class Store:
    """All that the scripts keep. A queue's oldest message comes first."""

    queues: dict[str, list[bytes]]
    claims: dict[str, Held] = field(default_factory=dict)
    outcomes: dict[str, bytes] = field(default_factory=dict)
    letters: dict[str, str] = field(default_factory=dict)
    died_at: dict[str, float] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    counters: Counter[str] = field(default_factory=Counter)
    meetings: dict[str, Meeting] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    """The ids of the meetings that go on when their time is up."""
    late: set[str] = field(default_factory=set, compare=False)
    """Those of them whose time was up when they began."""
    patient: set[str] = field(default_factory=set, compare=False)
    """Those that wait for the first answer after that."""
    entries: list[str] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    behind: dict[str, set[str]] = field(default_factory=dict, compare=False)
    """The queues to which hops were made, by the lane of requests that they belong to."""
    unsettled: set[str] = field(default_factory=set, compare=False)
    """The ids that were put and whose claim was not acknowledged or ended yet."""

    def put(self, queue: str, news: Sequence[New], most: int, most_dead: int) -> list[int | str]:
        """Put each message once, if there is room."""
        said: list[int | str] = []
        behind = self.behind.get(queue, set())
        full = most > 0 and any(len(self.queues[each]) >= most for each in behind)
        for new in news:
            if new.mark and new.mark in self.marks:
                said.append(self.marks[new.mark])
            elif full or (most and len(self.queues[queue]) >= most):
                said.append(NO_ROOM)
            elif most_dead and len(self.letters) >= most_dead:
                said.append(NO_ROOM_FOR_DEAD)
            else:
                assert isinstance(new.message, bytes)
                self.queues[queue].append(new.message)
                self.unsettled.add(new.id)
                self.tokens.add(queue)
                if new.mark:
                    self.marks[new.mark] = new.id
                said.append(DONE)
        return said

    def claim(self, wants: Sequence[Want], room: int, acks: Iterable[str]) -> list[Held]:
        """Take messages from their queues; `hold` gives them their names."""
        for claim in acks:
            self._drop(claim)
        taken: list[Held] = []
        for rest in (False, True):
            for want in wants:
                already = sum(held.queue == want.queue for held in taken)
                bound = want.most - already if rest else min(want.share, want.most)
                count = max(0, min(bound, room - len(taken)))
                messages = self.queues[want.queue]
                taken += [Held(want.queue, message, 0) for message in messages[:count]]
                del messages[:count]
        if taken:
            self.tokens |= {want.queue for want in wants if self.queues[want.queue]}
        return taken

    def hold(self, claim: str, held: Held, due_ms: int) -> None:
        """Keep a message under a claim that nobody ever had."""
        assert claim not in self.claims
        self.claims[claim] = Held(held.queue, held.message, due_ms)

    def renew(self, claims: Iterable[str], due_ms: int) -> list[str]:
        """Renew leases and return the claims that are gone."""
        gone = []
        for claim in claims:
            if claim in self.claims:
                self.claims[claim].due_ms = due_ms
            else:
                gone.append(claim)
        return gone

    def take_over(self, most: int, now_ms: int) -> list[Held]:
        """Take messages from the claims that ran out, those first that ran out first."""
        out = sorted((held.due_ms, claim) for claim, held in self.claims.items())
        overdue = [claim for due_ms, claim in out if due_ms <= now_ms][:most]
        self.counters["taken_over"] += len(overdue)
        return [self.claims.pop(claim) for claim in overdue]

    def settle(self, settlements: Iterable[Settlement]) -> list[int]:
        """Settle claims one after the other."""
        return [self._settle(settlement) for settlement in settlements]

    def _settle(self, what: Settlement) -> int:
        if isinstance(what, Ack):
            self._drop(what.claim)
            return DONE
        if isinstance(what, End):
            return self._end(what)
        if isinstance(what, Join):
            return self._join(what)
        if what.claim not in self.claims:
            return LOST
        if isinstance(what, Record):
            self._drop(what.claim)
            self.entries.append(what.entry)
            return DONE
        if isinstance(what, Spread):
            self._spread(what)
            return DONE
        del self.claims[what.claim]
        assert isinstance(what.message, bytes)
        if isinstance(what, Hop):
            self._push(what.queue, what.message)
            return DONE
        queue = self.queues[what.queue]
        queue.insert(0 if what.end == "next" else len(queue), what.message)
        self.tokens.add(what.queue)
        return DONE

    def _push(self, queue: str, message: bytes) -> None:
        lane = "batch.requests" if queue.startswith("batch.") else "requests"
        self.behind.setdefault(lane, set()).add(queue)
        self.queues[queue].append(message)
        self.tokens.add(queue)

    def _spread(self, spread: Spread) -> None:
        self._drop(spread.claim)
        if (join := spread.join) is not None:
            self.meetings[join.id] = meeting_of(join)
            self.waiting.add(join.id)
            self.late.discard(join.id)
            if join.within_ms == 0:
                self.late.add(join.id)
            self.patient.discard(join.id)
            if join.last_ms > 0:
                self.patient.add(join.id)
            self.unsettled.add(join.id)
        for queue, message in spread.messages:
            assert isinstance(message, bytes)
            self._push(queue, message)
            self.unsettled.add(id_of(message))

    def _join(self, join: Join) -> int:
        held = join.claim in self.claims
        self._drop(join.claim)
        meeting = self.meetings.get(join.id)
        stale = meeting is not None and "" != join.round != meeting.round != ""
        if meeting is None or stale:
            # Nobody waits for it, but it was paid for.
            self.entries += [join.entry] * held
            return LOST
        if not (join.answered or held or join.claim == "") and join.number not in meeting.ended:
            return FENCED
        if join.number in meeting.ended:
            return DONE if meeting.ended[join.number] == join.ended else LOST
        meeting.ended[join.number] = join.ended
        self.entries.append(join.entry)
        meeting.answered += join.answered
        if meeting.anywhere and (join.answered or not meeting.answered):
            meeting.queue = join.queue
        spoilt = meeting.needs_all and not join.answered
        if spoilt or meeting.answered >= meeting.need or len(meeting.ended) >= meeting.members:
            self._release(join.id)
        return DONE

    def release(self, overdue: Iterable[str]) -> int:
        """Let these meetings go on with those that are there; return how many did.

        One that nobody answered waits for the first who does, if it has the time.
        """
        released = 0
        for id in set(overdue) & self.late:
            meeting = self.meetings.get(id)
            if meeting is not None and id in self.patient and meeting.answered == 0:
                meeting.need = 1
            else:
                released += self._release(id)
            self.late.discard(id)
        return released

    def _release(self, id: str) -> int:
        self.waiting.discard(id)
        meeting = self.meetings.get(id)
        if meeting is None or meeting.message is None:
            return 0
        self._push(meeting.queue, meeting.message)
        meeting.message = None
        return 1

    def _end(self, end: End) -> int:
        lost = end.claim not in ("", *self.claims)
        self._drop(end.claim)
        assert isinstance(end.result, bytes)
        if end.letter and lost and end.id not in self.outcomes:
            self.counters["duplicates"] += 1
            return FENCED
        if end.joined:
            meeting = self.meetings.pop(end.id, None)
            self.waiting.discard(end.id)
            if meeting is not None and meeting.message is not None:
                self.unsettled.discard(end.id)
        if end.id in self.outcomes:
            if self.outcomes[end.id] == end.result:
                return DONE
            if b"REVOKED" not in self.outcomes[end.id]:
                self.counters["duplicates"] += 1
            return LOST
        self.outcomes[end.id] = end.result
        self.entries += [end.entry] * bool(end.entry)
        if end.session:
            self.sessions[end.session] = end.model
        if end.letter:
            self.letters[end.id] = end.letter
            self.died_at[end.id] = end.died_at
            self.counters[f"dead_{end.reason}"] += 1
        return DONE

    def _drop(self, claim: str) -> None:
        held = self.claims.pop(claim, None)
        if held is not None:
            self.unsettled.discard(id_of(held.message))


def meeting_of(join: JoinPoint) -> Meeting:
    """Return a meeting at its begin."""
    assert isinstance(join.message, bytes)
    meeting = Meeting(join.need, join.members, join.queue, join.anywhere, join.message, join.round)
    meeting.needs_all = join.needs_all
    return meeting


def stored_meeting(fields: dict[bytes, bytes]) -> Meeting:
    """Return a meeting as Redis has it."""
    known = {name.decode(): value for name, value in fields.items()}
    ended = {int(name[1:]): value.decode() for name, value in known.items() if name[1:].isdigit()}
    assert int(known.get("ended", b"0")) == len(ended)
    assert ("released" in known) == ("message" not in known)
    return Meeting(
        need=int(known["need"]),
        members=int(known["members"]),
        queue=known["queue"].decode(),
        anywhere=known["anywhere"] == b"1",
        message=known.get("message"),
        round=known["round"].decode(),
        ended=ended,
        answered=int(known.get("answered", b"0")),
        needs_all=known["needs_all"] == b"1",
    )


def found(value: Any) -> Any:
    """Return what redis-py has read: bytes, and not what its types say it could be."""
    return value


def stored(
    client: redis.Redis, queues: Iterable[str], ids: Iterable[str] = (), marks: Iterable[str] = ()
) -> Store:
    """Return what Redis has, while nobody else writes to it."""
    queues, ids, marks = list(queues), list(ids), list(marks)
    # No MULTI: a server that is full refuses even to read in one.
    with client.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.lrange(queue, 0, -1)
            pipe.lrange(WAKE_KEY_PREFIX + queue, 0, -1)
        pipe.hgetall(CLAIMS_KEY)
        pipe.zrange(LEASES_KEY, 0, -1, withscores=True)
        pipe.hgetall(DEAD_LETTERS_KEY)
        pipe.zrange(DEAD_LETTERS_BY_AGE_KEY, 0, -1, withscores=True)
        pipe.hgetall(COUNTERS_KEY)
        pipe.mget(["", *(RESULT_KEY_PREFIX + id for id in ids)])
        pipe.mget(["", *(SUBMITTED_KEY_PREFIX + mark for mark in marks)])
        pipe.keys(JOIN_KEY_PREFIX + "*")
        pipe.keys(SESSION_KEY_PREFIX + "*")
        pipe.zrange(JOINS_KEY, 0, -1)
        pipe.xrange(DECISIONS_KEY)
        *said, results, firsts, joins, sessions, waiting, entries = pipe.execute()
        *lists, claims, leases, letters, died_at, counters = said
    due_ms = {claim.decode(): int(due) for claim, due in leases}
    kept = {claim.decode(): held.split(b"\0", 1) for claim, held in claims.items()}
    assert due_ms.keys() == kept.keys(), "a claim without a lease, or a lease without a claim"
    tokens = dict(zip(queues, lists[1::2], strict=True))
    assert all(len(token) <= 1 for token in tokens.values()), "more than one token"
    return Store(
        queues={q: found[::-1] for q, found in zip(queues, lists[::2], strict=True)},
        claims={
            claim: Held(queue.decode(), message, due_ms[claim])
            for claim, (queue, message) in kept.items()
        },
        outcomes={id: found for id, found in zip(ids, results[1:], strict=True) if found},
        letters={id.decode(): letter.decode() for id, letter in letters.items()},
        died_at={id.decode(): moment for id, moment in died_at},
        marks={mark: id.decode() for mark, id in zip(marks, firsts[1:], strict=True) if id},
        tokens={queue for queue, token in tokens.items() if token},
        meetings={
            key.decode().removeprefix(JOIN_KEY_PREFIX): stored_meeting(found(client.hgetall(key)))
            for key in joins
        },
        waiting={id.decode() for id in waiting},
        entries=[fields[b"e"].decode() for _, fields in entries],
        sessions={key.decode(): found(client.get(key)).decode() for key in sessions},
        counters=Counter({name.decode(): int(count) for name, count in counters.items()}),
    )
