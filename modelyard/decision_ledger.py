"""The decision ledger: one entry for each request that ended, in the Redis stream of decisions.

What is decided anew is learned from it: which model answered at what cost, which part of an
experiment a request was in, what people thought of the answer. An entry has no text of anybody,
unless the yard was told to keep it, which only a replay of decisions needs.
"""

import logging
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

import redis
from pydantic import Field, ValidationError
from pydantic_core import to_json

from modelyard.messages import Answer, Attempt, Cached, Call, DeadLetter, Draft, Part
from modelyard.names import DECISIONS_KEY
from modelyard.plan import Arm, Decision, Strategy
from modelyard.wire import Fraction, Wire

logger = logging.getLogger("modelyard.decisions")

FIELD: Final = b"e"
"""The field of a stream entry that has the JSON."""
ANSWERED: Final = "answered"
FAILED: Final = "failed"
"""The outcome of a part, of which no dead letter is made."""
PAGE: Final = 500
BEGIN: Final = "0-0"
"""Before the first entry."""


class Kind(StrEnum):
    """What an entry tells of."""

    REQUEST = "request"
    """The end of a request."""
    SHADOW = "shadow"
    """What a shadow did with it."""
    MEMBER = "member"
    """What one of an ensemble did with it, or what became of a piece of it."""
    FEEDBACK = "feedback"
    """What somebody thought of its answer."""


class Calls(Wire):
    """The calls of one model: all, those that failed, and the seconds of the others, summed."""

    made: int = 0
    failed: int = 0
    answered_s: float = 0.0


class Entry(Wire):
    """One line of the ledger. `at` is in seconds since the epoch.

    `plan` has the models of the plan in order; `model` answered, or the feedback is about it, which
    is about the answer that was `given`, and not about a draft or a shadow.
    `outcome` is `answered`, the dead letter's reason, or of a part `failed`. `latency_s` is from
    submit to the outcome, and `calling_s` the part of it in calls. `score`, from 0 to 1, is the
    judge's or the feedback's. `accepted`: in a cascade, whether no answer was turned down.
    `drafts`: the answers that were paid for on the way. `cached`: whose answer it was before, which
    saved `saved_usd`. `stopped_at`: of a dead letter, the model whose turn it was. `escalated`: the
    model that its session had been escalated to. `request` is there only where text is kept, and so
    is `text`, what a shadow answered.
    """

    kind: Kind
    id: str
    at: float
    route: str = ""
    intent: str = ""
    rule: int | None = None
    confidence: float | None = None
    strategy: Strategy = Strategy.SINGLE
    plan: tuple[str, ...] = ()
    model: str = ""
    given: bool = True
    arms: tuple[Arm, ...] = ()
    outcome: str = ""
    cost_usd: float = 0.0
    latency_s: float = 0.0
    calling_s: float = 0.0
    calls: dict[str, Calls] = Field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    complexity: int = 1
    score: Fraction | None = None
    accepted: bool | None = None
    drafts: int = 0
    cached: str = ""
    saved_usd: float = 0.0
    comment: str = ""
    stopped_at: str = ""
    escalated: str | None = None
    request: dict[str, Any] | None = None
    text: str | None = None

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.outcome == ANSWERED


# The functions below are called once for each request in the workers' event loop: they write plain
# values, which is several times as fast as a model's validation. `Entry` validates at reading.


def answered_entry(answer: Answer, call: Call, *, keep_text: bool) -> str:
    """Return the entry of a request that was answered, as JSON."""
    decision, timings = answer.decision, answer.timings
    began = call.request.submitted_at or decision.decided_at
    entry = decided(Kind.REQUEST, answer.id, began + timings.total_ms / 1000, decision)
    entry["outcome"] = ANSWERED
    entry["model"] = answer.model
    entry["cost_usd"] = answer.cost_usd
    entry["latency_s"] = timings.total_ms / 1000
    entry["calling_s"] = timings.calling_ms / 1000
    entry["input_tokens"] = answer.usage.input_tokens
    entry["output_tokens"] = answer.usage.output_tokens
    entry["calls"] = calls_of(answer.attempts)
    if answer.drafts:
        entry["drafts"] = len(answer.drafts)
    with_saving(entry, answer.cached)
    if decision.plan.strategy is Strategy.CASCADE:
        entry["accepted"] = not any(draft.verdict for draft in answer.drafts)
    for draft in reversed(call.drafts):
        if draft.model == answer.model and draft.score is not None:
            entry["score"] = draft.score
            break
    return encoded(entry, call, keep_text)


def died_entry(letter: DeadLetter, call: Call | None, *, keep_text: bool) -> str:
    """Return the entry of a request that became a dead letter, as JSON.

    `call` is None where the request was not routed, or its call can't be read.
    """
    decision = letter.decision if call is None else call.decision
    entry = decided(Kind.REQUEST, letter.id, letter.died_at, decision)
    entry["outcome"] = letter.reason.value
    entry["calls"] = calls_of(letter.attempts)
    if call is None:
        return to_json(entry).decode()
    if not call.part.joins:
        entry["stopped_at"] = call.model
    since(entry, call, letter.attempts, letter.died_at)
    if call.drafts:
        entry["drafts"] = len(call.drafts)
        entry["cost_usd"] = sum(draft.cost_usd for draft in call.drafts)
    return encoded(entry, call, keep_text)


def part_entry(
    id: str,
    call: Call,
    draft: Draft | None,
    attempts: Sequence[Attempt],
    now: float,
    *,
    keep_text: bool,
) -> str:
    """Return the entry of a shadow, of a member of an ensemble or of a piece, as JSON.

    `draft` is None if it has no answer, `attempts` are its own calls, and `now` is in seconds
    since the epoch. The entry has the id of the request that it is a part of.
    """
    kind = Kind.SHADOW if call.part is Part.SHADOW else Kind.MEMBER
    entry = decided(kind, call.origin or id, now, call.decision)
    entry["model"] = call.model
    entry["outcome"] = ANSWERED if draft else FAILED
    since(entry, call, attempts, now)
    entry["calls"] = calls_of(attempts)
    if draft is not None:
        entry["cost_usd"] = draft.cost_usd
        entry["input_tokens"] = draft.usage.input_tokens
        entry["output_tokens"] = draft.usage.output_tokens
        with_saving(entry, draft.cached)
        if draft.score is not None:
            entry["score"] = draft.score
        if keep_text and kind is Kind.SHADOW:
            # Nobody gets it: it is nowhere else.
            entry["text"] = draft.text
    # A piece is not what anybody asked: the request's own entry has all of it.
    return encoded(entry, call, keep_text and call.part is not Part.MAP)


def decided(kind: Kind, id: str, at: float, decision: Decision | None) -> dict[str, Any]:
    """Return what an entry has of the decision."""
    entry: dict[str, Any] = {"kind": kind.value, "id": id, "at": at}
    if decision is None:
        return entry
    entry["route"] = decision.route
    entry["intent"] = decision.intent
    entry["complexity"] = decision.complexity
    if decision.rule is not None:
        entry["rule"] = decision.rule
    if decision.confidence is not None:
        entry["confidence"] = decision.confidence
    entry["plan"] = [step.model for step in decision.plan.steps]
    if decision.plan.strategy is not Strategy.SINGLE:
        entry["strategy"] = decision.plan.strategy.value
    if decision.escalated is not None:
        entry["escalated"] = decision.escalated
    if decision.arms:
        entry["arms"] = [{"experiment": arm.experiment, "arm": arm.arm} for arm in decision.arms]
    return entry


def with_saving(entry: dict[str, Any], cached: Cached | None) -> None:
    """Add what an answer saved that was given before."""
    if cached is not None:
        entry["cached"], entry["saved_usd"] = cached.of, cached.saved_usd


def since(entry: dict[str, Any], call: Call, attempts: Sequence[Attempt], now: float) -> None:
    """Add how long it took until `now`; the clocks of machines may differ a little."""
    began = call.request.submitted_at or call.decision.decided_at
    entry["latency_s"] = max(0.0, now - began)
    entry["calling_s"] = sum(attempt.duration_ms for attempt in attempts) / 1000


def calls_of(attempts: Sequence[Attempt]) -> dict[str, dict[str, float]]:
    """Return the calls of each model, as `Calls` has them."""
    found: dict[str, dict[str, float]] = {}
    for attempt in attempts:
        calls = found.get(attempt.model)
        if calls is None:
            calls = found[attempt.model] = {"made": 0, "failed": 0, "answered_s": 0.0}
        calls["made"] += 1
        if attempt.kind is None:
            calls["answered_s"] += attempt.duration_ms / 1000
        else:
            calls["failed"] += 1
    return found


def encoded(entry: dict[str, Any], call: Call, keep_text: bool) -> str:
    """Return an entry as JSON, with the request if text is kept."""
    if keep_text:
        entry["request"] = call.request.encode()
    return to_json(entry).decode()


def read(
    client: redis.Redis,
    since: float | None = None,
    until: float | None = None,
    *,
    page: int = PAGE,
) -> Iterator[Entry]:
    """Yield the entries that were written from `since` to before `until`, oldest first.

    Both are seconds since the epoch by Redis's clock. One page is in memory at a time. What is no
    entry is left out with a warning. Raises `redis.RedisError`.
    """
    first = "-" if since is None else begin(since)
    last = "+" if until is None else f"({begin(until)}"
    unreadable = 0
    while True:
        rows: Any = client.xrange(DECISIONS_KEY, first, last, count=page)
        for _, fields in rows:
            entry = entry_of(fields)
            if entry is None:
                unreadable += 1
            else:
                yield entry
        if len(rows) < page:
            break
        first = f"({rows[-1][0].decode()}"
    if unreadable:
        logger.warning("%d entries of the decision ledger can't be read", unreadable)


def follow(
    client: redis.Redis, last: str = BEGIN, *, page: int = PAGE
) -> tuple[list[tuple[str, Entry | None]], str]:
    """Return one page of entries after the id `last`, with their ids, and the id to go on from.

    It does not wait: at the end of the stream the page is empty and the id `last` again. None
    stands for what is no entry. Raises `redis.RedisError`.
    """
    rows: Any = client.xrange(DECISIONS_KEY, f"({last}", "+", count=page)
    entries = [(id.decode(), entry_of(fields)) for id, fields in rows]
    return entries, entries[-1][0] if entries else last


def write(client: redis.Redis, entry: Entry) -> None:
    """Add an entry. Raises `redis.RedisError`.

    It bounds nothing: the workers do when they write theirs.
    """
    client.xadd(DECISIONS_KEY, {FIELD: entry.model_dump_json(exclude_defaults=True)})


def begin(since: float) -> str:
    """Return the id before all entries since then, in seconds since the epoch."""
    return f"{max(0, round(1000 * since))}-0"


def last_id(client: redis.Redis) -> str:
    """Return the id of the newest entry. Raises `redis.RedisError`."""
    rows: Any = client.xrevrange(DECISIONS_KEY, count=1)
    return rows[0][0].decode() if rows else BEGIN


def is_after(id: str, other: str) -> bool:
    """Return whether one entry's id is later than another's."""
    return [int(part) for part in id.split("-")] > [int(part) for part in other.split("-")]


def entry_of(fields: dict[bytes, bytes]) -> Entry | None:
    """Return the entry in a stream entry's fields, or None if there is none."""
    try:
        return Entry.model_validate_json(fields[FIELD])
    except (KeyError, ValidationError):
        return None
