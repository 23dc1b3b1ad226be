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


def give_feedback(
    client: redis.Redis,
    id: str,
    score: float,
    comment: str | None = None,
    model: str | None = None,
) -> Answer:
    """Record what the answer to request `id` is worth, from 0 to 1, and return that answer.

    The feedback counts for the model that answered, and in its experiments; with `model` for
    another one that answered the same request: a shadow, or one whose answer was a draft. Every
    feedback counts: who changes their mind gives another one. Raises `InvalidRequest` for a score,
    a comment or a model that can't be taken, `ModelyardError` where there is no answer (yet, or not
    any more), `RequestFailed` or `RequestRevoked` where there will be none, and `BrokerError`.
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
        graded = outcome.model if model is None else model
        if graded not in (asked := graded_models(outcome)):
            raise InvalidRequest(
                f"{graded!r} did not answer request {id}: there are answers of {', '.join(asked)}"
            )
        write(client, entry(outcome, graded, score, comment or "", time.time()))
    except (redis.RedisError, OSError) as error:
        raise broker_error(error) from error
    return outcome


def graded_models(answer: Answer) -> list[str]:
    """Return the models whose answers to a request there may be an opinion of, the given one first.

    Whether a shadow has answered yet is not known here.
    """
    shadow = answer.decision.plan.shadow
    drafts = (draft.model for draft in answer.drafts)
    return list(dict.fromkeys((answer.model, *drafts, *([shadow] if shadow else ()))))


def entry(answer: Answer, model: str, score: float, comment: str, now: float) -> Entry:
    """Return the line of the ledger about a model; `now` is in seconds since the epoch."""
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
        model=model,
        given=model == answer.model,
        arms=decision.arms,
        complexity=decision.complexity,
        score=score,
        comment=comment,
    )
