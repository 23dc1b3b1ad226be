"""Workers that claim and settle in any order, on a real Redis and on a model of it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal, TypeVar

import redis
from claims_model import Held, Store, id_of, stored
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelyard.claims import (
    Ack,
    Back,
    Claimed,
    Claims,
    End,
    Hop,
    Join,
    JoinPoint,
    New,
    Record,
    Settlement,
    Spread,
    Want,
    put,
)
from modelyard.names import (
    CANCELLED_KEY,
    JOINS_KEY,
    RESULT_KEY_PREFIX,
    WAKE_KEY_PREFIX,
    session_key,
)

LEASE_MS: Final = 10_000
QUEUES: Final = ("requests", "model.small", "batch.model.small")
MARKS: Final = ("mark 1", "mark 2", "mark 3")
OUTCOMES: Final = ("SUCCESS", "FAILURE", "REVOKED")

T = TypeVar("T")
Fault = Literal["", "resent", "lost"]

NONE: Final[Fault] = ""
FAULTS: Final[st.SearchStrategy[Fault]] = st.sampled_from((NONE, NONE, NONE, "resent", "lost"))
JUNK: Final = st.sampled_from(
    [b"", b"\0", b"a\0\0|b", b"\xff\xfe not UTF-8", b'{"half": ', b'"id" {"lang": "id", "id": 3, ']
)
ENDS: Final[st.SearchStrategy[Literal["next", "last"]]] = st.sampled_from(("next", "last"))
AMOUNTS: Final = st.sampled_from((4, 2, 1, 0))
KINDS: Final = st.sampled_from(
    (
        "hop",
        "back",
        "end",
        "ack",
        "end without a claim",
        "spread",
        "spread",
        "join",
        "join",
        "record",
    )
)
ROUNDS = st.sampled_from(("", "1", "2"))
NEVER_MS: Final = 10**9


class FaultyRedis(redis.Redis):
    """A client whose next command meets a fault after Redis has done it.

    resent: the reply is lost, and the client sends the command again by itself, as redis-py does
    where it has retries. lost: the reply is lost, and the caller is told so.
    """

    fault: Fault = ""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        said = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        fault, self.fault = self.fault, ""
        if fault == "lost":
            raise redis.ConnectionError("the reply was lost")
        if fault == "resent":
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        return said


def end_of(claim: str, id: str, outcome: str = "SUCCESS", text: str = "") -> End:
    """Return an end; a failure is a dead letter as well."""
    failed = outcome == "FAILURE"
    return End(
        claim=claim,
        key=RESULT_KEY_PREFIX + id,
        result=f'{{"status":"{outcome}","result":"{text}"}}'.encode(),
        ttl_s=3600,
        id=id,
        channel="modelyard:answers:client",
        letter=f"letter {text}" if failed else "",
        reason="exhausted" if failed else "",
        died_at=12.5 if failed else 0.0,
    )


class Yard(RuleBasedStateMachine):
    """Workers in all orders, over a network that loses replies, beside a model of the store."""

    client: ClassVar[FaultyRedis]

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.model = Store({queue: [] for queue in QUEUES})
        self.now_ms = 1_700_000_000_000
        # The first two are of one process: they share its name.
        self.workers = [
            Claims(self.client, lease_s=LEASE_MS / 1000, owner=owner, now_ms=lambda: self.now_ms)
            for owner in ("one", "one", "two")
        ]
        self.hands: list[dict[str, Claimed]] = [{}, {}, {}]
        """What each worker ever had: it does not know what was taken from it."""
        self.names: set[str] = set()
        self.ids: list[str] = []
        self.cancelled: dict[str, float] = {}
        """Until when it is known that they are, in seconds."""
        self.serial = 0

    # -- what the rules share

    def call(self, fault: Fault, act: Callable[[], T]) -> T:
        """Call again after an error, as `Claims` says one can."""
        self.client.fault = fault
        try:
            return act()
        except redis.ConnectionError:
            return act()

    def twice(self, fault: Fault, act: Callable[[], T]) -> T:
        """Do to the model what a call does that Redis does once, or twice; return its reply."""
        said = act()
        return act() if fault else said

    def message(self, id: str, junk: bytes) -> bytes:
        self.serial += 1
        return f"{id}|{self.serial}|".encode() + junk + f'"id": "{id}"}}'.encode()

    def hear(
        self, worker: int, said: list[Claimed], fault: Fault, act: Callable[[], list[Held]]
    ) -> None:
        """Compare what a worker was given, and learn from Redis what the claims are called."""
        taken = [act()]
        if fault:
            taken.append(act())  # and nobody knows of the first
        assert [(each.queue, each.message) for each in said] == [
            (held.queue, held.message) for held in taken[-1]
        ]
        every = stored(self.client, QUEUES).claims
        new = {held.message: claim for claim, held in every.items() if claim not in self.names}
        for held in (held for helds in taken for held in helds):
            claim = new.pop(held.message)
            self.names.add(claim)
            self.model.hold(claim, held, self.now_ms + LEASE_MS)
        assert not new, "nothing else was claimed"
        for each in said:
            assert self.model.claims[each.claim].message == each.message
            self.hands[worker][each.claim] = each

    def claim_of(self, data: st.DataObject, worker: int) -> Claimed:
        """Draw a claim that a worker has, or had not long ago."""
        hand = self.hands[worker]
        live = [claim for claim in hand if claim in self.model.claims]
        gone = [claim for claim in hand if claim not in self.model.claims]
        return hand[data.draw(st.sampled_from(live * 3 + gone[-3:]), label="claim")]

    def busy(self, data: st.DataObject) -> int:
        """Draw a worker that has, or had, something in hand."""
        return data.draw(st.sampled_from([at for at in range(3) if self.hands[at]]), label="who")

    def settlement(self, data: st.DataObject, worker: int) -> Settlement:
        held = self.claim_of(data, worker)
        kind = data.draw(KINDS, label="kind")
        if kind.startswith("end"):
            claim = held.claim if kind == "end" else ""
            ids = [id_of(held.message)] if claim else self.ids[-4:]
            outcome, text = data.draw(st.sampled_from(OUTCOMES)), data.draw(st.sampled_from("ab"))
            end = end_of(claim, data.draw(st.sampled_from(ids), label="id"), outcome, text)
            return self.with_more(data, end)
        if kind == "ack":
            return Ack(held.claim)
        if kind == "record":
            return Record(held.claim, self.entry(), 1000)
        if kind == "spread":
            return self.spread(data, held)
        if kind == "join":
            return self.join(data, held)
        queue = data.draw(st.sampled_from(QUEUES), label="queue")
        message = self.message(id_of(held.message), data.draw(JUNK, label="junk"))
        if kind == "back":
            return Back(held.claim, queue, message, data.draw(ENDS, label="end"))
        return Hop(held.claim, queue, message)

    def with_more(self, data: st.DataObject, end: End) -> End:
        """Draw what an end may tell besides its outcome."""
        session = data.draw(st.sampled_from(("", session_key("acme", "one"))), label="session")
        return replace(
            end,
            entry=self.entry(),
            entries=1000,
            session=session,
            model="large" if session else "",
            joined=data.draw(st.booleans(), label="joined"),
        )

    def entry(self) -> str:
        self.serial += 1
        return f"entry {self.serial}"

    def spread(self, data: st.DataObject, held: Claimed) -> Spread:
        """Draw a spread; each part has an id that nobody had before."""
        id, queues = id_of(held.message), st.sampled_from(QUEUES)
        count = data.draw(st.integers(1, 3), label="members")
        self.serial += 1
        messages = tuple(
            (data.draw(queues), self.message(f"{id}.{self.serial}.{number}", b""))
            for number in range(count)
        )
        self.ids += [id_of(message) for _, message in messages]
        if not data.draw(st.booleans(), label="is joined"):
            return Spread(held.claim, messages)
        within_ms = data.draw(st.sampled_from((0, NEVER_MS)), label="within")
        join = JoinPoint(
            id=id,
            need=data.draw(st.integers(1, count), label="need"),
            members=count,
            within_ms=within_ms,
            queue=data.draw(queues),
            message=self.message(id, b"joined"),
            anywhere=data.draw(st.booleans(), label="anywhere"),
            last_ms=data.draw(st.sampled_from((0, NEVER_MS)), label="last"),
            round=data.draw(ROUNDS, label="round"),
            needs_all=data.draw(st.booleans(), label="needs all"),
        )
        return Spread(held.claim, messages, join)

    def join(self, data: st.DataObject, held: Claimed) -> Join:
        """Draw the end of a member, whosever claim it is: the script does not care."""
        known = sorted(self.model.meetings) or ["nobody"]
        return Join(
            held.claim,
            data.draw(st.sampled_from(known), label="id"),
            data.draw(st.integers(1, 3), label="number"),
            data.draw(st.sampled_from(("a", "b")), label="ended"),
            answered=data.draw(st.booleans(), label="answered"),
            queue=data.draw(st.sampled_from(QUEUES), label="queue"),
            entry=self.entry(),
            entries=1000,
            round=data.draw(ROUNDS, label="round"),
        )

    # -- what happens

    @initialize(
        counts=st.tuples(*[st.integers(1, 5)] * 3), rooms=st.tuples(*[st.integers(0, 4)] * 3)
    )
    def it_is_a_busy_hour(self, counts: tuple[int, ...], rooms: tuple[int, ...]) -> None:
        for queue, count in zip(QUEUES, counts, strict=True):
            self.submit(queue, [("", b"")] * count, 0, 0, "")
        for worker, room in enumerate(rooms):
            self.take(worker, [Want(queue, 1, room) for queue in QUEUES], room, [], "")

    def submit(
        self, queue: str, drawn: list[tuple[str, bytes]], most: int, most_dead: int, fault: Fault
    ) -> None:
        news = []
        for mark, junk in drawn:
            id = f"id{len(self.ids)}"
            self.ids.append(id)
            news.append(New(id, self.message(id, junk), mark, 3600))
        said = self.call(
            fault, lambda: put(self.client, queue, news, most=most, most_dead=most_dead)
        )
        assert said == self.twice(fault, lambda: self.model.put(queue, news, most, most_dead))

    @rule(data=st.data(), queue=st.sampled_from(QUEUES), most=st.sampled_from((0, 3, 6)))
    def put(self, data: st.DataObject, queue: str, most: int) -> None:
        fault = data.draw(FAULTS, label="fault")
        # Without a mark Redis can't know that it has a message already.
        marks = st.sampled_from(MARKS if fault else ("", *MARKS))
        drawn = data.draw(st.lists(st.tuples(marks, JUNK), min_size=1, max_size=4))
        self.submit(
            queue, drawn, most, data.draw(st.sampled_from((0, 2)), label="most dead"), fault
        )

    @rule(data=st.data(), worker=st.integers(0, 2), room=st.integers(0, 6), fault=FAULTS)
    def claim(self, data: st.DataObject, worker: int, room: int, fault: Fault) -> None:
        wanted = data.draw(st.permutations(QUEUES), label="queues")
        wants = [
            Want(queue, data.draw(AMOUNTS, label="share"), data.draw(AMOUNTS, label="most"))
            for queue in wanted[: data.draw(st.integers(1, 3), label="how many")]
        ]
        one = data.draw(st.sampled_from((0, 1)), label="acks") and bool(self.hands[worker])
        acks = [self.claim_of(data, worker).claim] if one else []
        self.take(worker, wants, room, acks, fault)

    @rule(worker=st.integers(0, 2), queue=st.sampled_from(QUEUES), fault=FAULTS)
    def claim_all(self, worker: int, queue: str, fault: Fault) -> None:
        self.take(worker, [Want(queue, 20, 20)], 20, [], fault)

    def take(
        self, worker: int, wants: list[Want], room: int, acks: list[str], fault: Fault
    ) -> None:
        said, cancelled = self.call(fault, lambda: self.workers[worker].claim(wants, room, acks))
        now = self.now_ms / 1000
        known = {id for id, until in self.cancelled.items() if until > now}
        assert cancelled == known & {id_of(each.message) for each in said}
        self.hear(worker, said, fault, lambda: self.model.claim(wants, room, acks))

    @precondition(lambda self: any(self.hands))
    @rule(data=st.data(), count=st.integers(1, 3), fault=FAULTS)
    def renew(self, data: st.DataObject, count: int, fault: Fault) -> None:
        worker = self.busy(data)
        claims = [self.claim_of(data, worker).claim for _ in range(count)]
        said = self.call(fault, lambda: self.workers[worker].renew(claims))
        due_ms = self.now_ms + LEASE_MS
        assert said == self.twice(fault, lambda: self.model.renew(claims, due_ms))

    @rule(worker=st.integers(0, 2), most=st.integers(1, 4), fault=FAULTS)
    def take_over(self, worker: int, most: int, fault: Fault) -> None:
        said = self.call(fault, lambda: self.workers[worker].take_over(most))
        self.hear(worker, said, fault, lambda: self.model.take_over(most, self.now_ms))

    @precondition(lambda self: any(self.hands))
    @rule(data=st.data(), count=st.integers(1, 4), fault=FAULTS)
    def settle(self, data: st.DataObject, count: int, fault: Fault) -> None:
        worker = self.busy(data)
        settlements = [self.settlement(data, worker) for _ in range(count)]
        # Nobody ends a request and spreads it at once: told again, the end forgets its members.
        spread = {each.join.id for each in settlements if isinstance(each, Spread) and each.join}
        settlements = [
            each for each in settlements if not (isinstance(each, End) and each.id in spread)
        ]
        said = self.call(fault, lambda: self.workers[worker].settle(settlements))
        expected = self.model.settle(settlements)
        if fault:
            once = deepcopy(self.model)
            expected = self.model.settle(settlements)
            once.counters["duplicates"] = self.model.counters["duplicates"]
            assert self.model == once, "a call that is repeated changes nothing"
        assert said == expected

    @rule(data=st.data(), for_s=st.sampled_from((1, LEASE_MS // 1000, 3600)))
    def cancel(self, data: st.DataObject, for_s: int) -> None:
        id = data.draw(st.sampled_from(self.ids), label="id")
        self.cancelled[id] = self.now_ms / 1000 + for_s
        self.client.zadd(CANCELLED_KEY, {id: self.cancelled[id]})

    @precondition(lambda self: self.model.waiting)
    @rule(fault=FAULTS)
    def who_is_late_is_not_waited_for(self, fault: Fault) -> None:
        rows: Any = self.client.zrange(JOINS_KEY, 0, -1)
        overdue = [row.decode() for row in rows if row.decode() in self.model.late]
        said = self.call(fault, Claims(self.client).release_overdue)
        assert said == self.twice(fault, lambda: self.model.release(overdue))

    @rule(queue=st.sampled_from(QUEUES))
    def an_idle_worker_wakes(self, queue: str) -> None:
        assert bool(self.client.rpop(WAKE_KEY_PREFIX + queue)) == (queue in self.model.tokens)
        self.model.tokens.discard(queue)

    @rule(passed_ms=st.sampled_from((1, LEASE_MS // 2, LEASE_MS - 1, LEASE_MS)))
    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule()
    def scripts_are_flushed(self) -> None:
        self.client.script_flush()

    # -- what holds

    @invariant()
    def redis_has_what_the_model_has(self) -> None:
        assert stored(self.client, QUEUES, self.ids, MARKS) == self.model

    @invariant()
    def nothing_is_lost_and_nothing_is_doubled(self) -> None:
        store = stored(self.client, QUEUES)
        places = [*(held.message for held in store.claims.values())]
        places += [message for queue in store.queues.values() for message in queue]
        places += [each.message for each in store.meetings.values() if each.message is not None]
        assert sorted(map(id_of, places)) == sorted(self.model.unsettled)
