"""Feedback: what somebody thought of an answer, as a line in the decision ledger."""

import math
import time

import redis

from modelyard.decision_ledger import Entry, Kind, write
from modelyard.errors import InvalidRequest, ModelyardError
from modelyard.messages import Answer
from modelyard.names import RESULT_KEY_PREFIX
from modelyard.outcome import read_outcome
from modelyard.redis_errors import broker_error

MAX_COMMENT_CHARS = 4_000


def give_feedback(client: redis.Redis, id: str, score: float, comment: str | None = None) -> Answer:
    """Record what the answer to request `id` is worth, from 0 to 1, and return that answer.

    The feedback counts for the model that answered, and in its experiments. Every feedback counts:
    who changes their mind gives another one. Raises `InvalidRequest` for a score or a comment that
    can't be taken, `ModelyardError` where there is no answer (yet, or not any more),
    `RequestFailed` or `RequestRevoked` where there will be none, and `BrokerError`.
    """
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        raise InvalidRequest(f"a score is from 0 to 1, and not {score:g}")
    if comment is not None and len(comment) > MAX_COMMENT_CHARS:
        raise InvalidRequest(f"a comment has at most {MAX_COMMENT_CHARS:,} characters")
    try:
        f"{id}{comment}".encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the id or the comment is not valid Unicode") from None
    try:
        raw = client.get(RESULT_KEY_PREFIX + id)
        outcome = None if raw is None else read_outcome(raw, id)
        if outcome is None:
            raise ModelyardError(
                f"request {id}: there is no answer to give feedback on: it was never heard of, is "
                "still on its way, or its answer is not kept any more (MODELYARD_RESULT_TTL_S)"
            )
        if not isinstance(outcome, Answer):
            raise outcome
        write(client, entry(outcome, score, comment or "", time.time()))
    except (redis.RedisError, OSError) as error:
        raise broker_error(error) from error
    return outcome


def entry(answer: Answer, score: float, comment: str, now: float) -> Entry:
    """Return the line of the ledger; `now` is in seconds since the epoch."""
    decision = answer.decision
    return Entry(
        kind=Kind.FEEDBACK,
        id=answer.id,
        at=now,
        route=decision.route,
        intent=decision.intent,
        rule=decision.rule,
        confidence=decision.confidence,
        strategy=decision.plan.strategy,
        plan=tuple(step.model for step in decision.plan.steps),
        model=answer.model,
        arms=decision.arms,
        complexity=decision.complexity,
        score=score,
        comment=comment,
    )
