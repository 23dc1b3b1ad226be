"""The ways in which a claim ends, and what `settle.lua` is told of each."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Ack:
    """It is done with."""

    claim: str

    def args(self) -> tuple[Any, ...]:
        return "ack", self.claim


@dataclass(frozen=True, slots=True)
class Back:
    """Onto its queue again, to be the `next` that is taken or the `last`."""

    claim: str
    queue: str
    message: str | bytes
    end: Literal["next", "last"] = "next"

    def args(self) -> tuple[Any, ...]:
        return "back", self.claim, self.queue, self.end, self.message


@dataclass(frozen=True, slots=True)
class Hop:
    """Onto another queue."""

    claim: str
    queue: str
    message: str | bytes

    def args(self) -> tuple[Any, ...]:
        return "hop", self.claim, self.queue, self.message


@dataclass(frozen=True, slots=True)
class JoinPoint:
    """Where the members of a spread meet: once `need` of `members` have answered, or all have
    ended, or `within_ms` have passed, `message` goes onto `queue`, once.

    If none has answered within `within_ms`, the first answer is waited for, for `last_ms` in all.
    `anywhere`: onto the queue of the member that ended last instead, one that answered if any did:
    its workers live. `needs_all`: one that ends without an answer is the end of the wait, too.
    `round` tells the members of this spread from those of an earlier one of the same request. What
    is known is forgotten `ttl_s` seconds after they met.
    """

    id: str
    need: int
    members: int
    within_ms: int
    queue: str
    message: str | bytes
    anywhere: bool = False
    ttl_s: int = 7 * 24 * 3600
    last_ms: int = 0
    round: str = ""
    needs_all: bool = False

    def args(self) -> tuple[Any, ...]:
        return (
            *(self.id, self.need, self.members, self.within_ms, self.last_ms),
            *(self.queue, self.message, int(self.anywhere), self.ttl_s, self.round),
            int(self.needs_all),
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """Onto several queues: `messages` are pairs of them, which may be joined again."""

    claim: str
    messages: tuple[tuple[str, str | bytes], ...]
    join: JoinPoint | None = None

    def args(self) -> tuple[Any, ...]:
        return (
            *("spread", self.claim, len(self.messages)),
            *(part for each in self.messages for part in each),
            *(self.join.args() if self.join is not None else ("",)),
        )


@dataclass(frozen=True, slots=True)
class Join:
    """The end of member `number` of the request `id`: its first end stands.

    That is an answer, whoever has the claim, or the failure of who has it (`FENCED` otherwise).
    `ended` is the member as JSON; `queue`: where the joined message may go, if this one answered.
    `entry` goes to the decision ledger, which keeps about `entries`. `round` is that of the
    member's `JoinPoint`, or '' where it can't be told. `bill` is what its calls cost
    (`modelyard.budgets`).
    """

    claim: str
    id: str
    number: int
    ended: str
    answered: bool = False
    queue: str = ""
    entry: str = ""
    entries: int = 0
    round: str = ""
    bill: str = ""

    def args(self) -> tuple[Any, ...]:
        return (
            *("join", self.claim, self.id, self.number, self.round, self.ended),
            *(int(self.answered), self.queue, self.entry, self.entries, self.bill),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """It is done with, and only the decision ledger, which keeps about `entries`, hears of it, and
    the budgets of its `bill`.
    """

    claim: str
    entry: str
    entries: int
    bill: str = ""

    def args(self) -> tuple[Any, ...]:
        return "record", self.claim, self.entry, self.entries, self.bill


@dataclass(frozen=True, slots=True)
class End:
    """Its outcome: a result as the result backend has it, and a dead letter if it is one.

    The first end of an id stands, whoever has the claim; but a dead letter of who lost the `claim`
    that it names is none (`FENCED`). `channel` is that of the client that waits; `died_at` is in
    seconds since the epoch. If it is the first: `entry` goes to the decision ledger, which keeps
    about `entries`; under the key `session` it is remembered that the session was escalated to
    `model`. If the request may be `joined`, what is known of its members is forgotten, first or
    not. `bill` is what its calls cost: it counts, first or not, while the claim is held, and it
    counts for what is fenced, where it would count twice if that were told twice.
    """

    claim: str
    key: str
    result: str | bytes
    ttl_s: int
    id: str
    channel: str = ""
    letter: str = ""
    reason: str = ""
    died_at: float = 0.0
    entry: str = ""
    entries: int = 0
    session: str = ""
    model: str = ""
    joined: bool = False
    bill: str = ""

    def args(self) -> tuple[Any, ...]:
        return (
            *("end", self.claim, self.key, self.result, self.ttl_s),
            *(self.channel, self.id, self.letter, self.reason, self.died_at),
            *(self.entry, self.entries, self.session, self.model, int(self.joined), self.bill),
        )


Settlement = Ack | Back | Hop | Spread | Join | Record | End
