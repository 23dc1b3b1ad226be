"""A cascade: what follows an answer, and what follows its grade. Pure functions.

An answer that is not accepted stays a draft, and the next model's turn it is. The last model's
answer stands whatever it is, and so does any once the deadline has passed: it is paid for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_workers.accept import agreement, check
from modelyard.messages import Call, Draft, Request
from modelyard.plan import Accept, Strategy

Knows = Callable[[str], bool]
"""Whether there is a model of this name."""


@dataclass(frozen=True, slots=True)
class Stands:
    """The draft is the answer."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Have the same model answer `count` more times."""

    count: int


@dataclass(frozen=True, slots=True)
class AskJudge:
    """Hand the draft to the judge."""


@dataclass(frozen=True, slots=True)
class Escalate:
    """The draft is not accepted: hand the request to the model of step number `step`."""

    step: int
    why: str


def after_answer(
    call: Call, draft: Draft, samples: Sequence[str] | None, knows: Knows, now: float
) -> Stands | Sample | AskJudge | Escalate:
    """Return what follows an answer of this step's model.

    `samples` are the texts of the same model's other answers, None before it was asked for them.
    `now` is in seconds since the epoch.
    """
    plan = call.decision.plan
    accept = plan.accept
    if accept is None or plan.strategy is not Strategy.CASCADE:
        return Stands()
    step = following(call, knows, now)
    if step is None:
        return Stands()
    why = flaw(accept, draft)
    if why:
        return Escalate(step, why)
    if accept.agreement is not None:
        if samples is None:
            return Sample(accept.samples - 1)
        why = disagreement(accept, accept.agreement, [draft.text, *samples])
        if why:
            return Escalate(step, why)
    if accept.judge is None:
        return Stands()
    if not knows(accept.judge):
        return Escalate(step, f"the judge {accept.judge!r} is not in the catalog")
    return AskJudge()


def after_grade(
    call: Call, grade: float | None, why: str, knows: Knows, now: float
) -> Stands | Escalate:
    """Return what follows the judge's `grade`, or, if there is none, `why` there is none."""
    accept = call.decision.plan.accept
    step = following(call, knows, now)
    if accept is None or step is None:
        return Stands()
    if grade is None:
        return Escalate(step, why)
    if grade >= accept.judge_floor:
        return Stands()
    return Escalate(step, f"{accept.judge} graded it {grade:g}, below {accept.judge_floor:g}")


def following(call: Call, knows: Knows, now: float) -> int | None:
    """Return the number of the next step that can be taken, or None.

    Nobody serves the queue of a model that was taken out of the catalog.
    """
    deadline = call.request.deadline
    if deadline is not None and now >= deadline:
        return None
    steps = call.decision.plan.steps
    later = range(call.step + 1, len(steps))
    return next((number for number in later if knows(steps[number].model)), None)


def flaw(accept: Accept, draft: Draft) -> str:
    """Return why the answer itself is not good enough, or ''.

    Conditions that can't be used accept nothing: an answer that was paid for is no dead letter.
    """
    try:
        return check(accept, draft)
    except ValueError as error:
        return f"accept can't be used: {error}"


def disagreement(accept: Accept, floor: float, texts: Sequence[str]) -> str:
    """Return why the answers do not agree enough, or ''. An answer that failed to come does not."""
    share = round(agreement(texts) * len(texts)) / accept.samples
    if share >= floor:
        return ""
    return f"{share:.0%} of {accept.samples} answers agree, fewer than {floor:.0%}"


def sampled(request: Request, number: int) -> Request:
    """Return the request for sample `number`: with one seed, all answers would be the same."""
    seed = request.params.get("seed")
    if not isinstance(seed, int):
        return request
    return request.model_copy(update={"params": {**request.params, "seed": seed + number}})


def best(drafts: Sequence[Draft]) -> Draft:
    """Return the best of at least one draft: the highest score, else confidence, else the latest.

    Scores are one judge's and can be compared; a score and a confidence can't.
    """
    latest_first = drafts[::-1]
    scored = [draft for draft in latest_first if draft.score is not None]
    if scored:
        return max(scored, key=lambda draft: draft.score or 0.0)
    sure = [draft for draft in latest_first if draft.confidence is not None]
    if sure:
        return max(sure, key=lambda draft: draft.confidence or 0.0)
    return latest_first[0]


def wants_confidence(accept: Accept | None) -> bool:
    """Return whether the provider must be asked for log-probabilities."""
    if accept is None:
        return False
    return accept.min_confidence is not None or "confidence" in (accept.expression or "")


def with_log_probabilities(request: Request) -> Request:
    """Return the request with `logprobs` among its parameters."""
    return request.model_copy(update={"params": {**request.params, "logprobs": True}})


def escalated_session(call: Call, draft: Draft) -> str | None:
    """Return the session that was escalated if `draft` is the answer, or None.

    Only an answer of a later step, after one that was not accepted: a model that was down says
    nothing of the session.
    """
    if (
        not call.drafts
        or call.step == 0
        or draft.model != call.decision.plan.steps[call.step].model
    ):
        return None
    turned_down = any(each.verdict and each is not draft for each in call.drafts)
    return call.request.metadata.get("session") if turned_down else None
