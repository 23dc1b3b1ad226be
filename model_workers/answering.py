"""Answering a request: a model's answer, whether it is accepted, and what follows if there is none.

Each function does one part of a plan and returns how its message ends, or the answer that stands.
Where it calls a model, it raises `TakenOver` if another worker has the message.
"""

import asyncio
import logging
import time

from model_workers.answer import charged, to_draft
from model_workers.caller import Answered, Failed
from model_workers.cascade import (
    AskJudge,
    Escalate,
    Sample,
    Stands,
    after_answer,
    after_grade,
    best,
    sampled,
    wants_confidence,
    with_log_probabilities,
)
from model_workers.coroutine_task import Settled
from model_workers.finish import Standing
from model_workers.judge import grading_request, read_grade
from model_workers.origin import Origin
from model_workers.work import Work
from modelyard.advance import Die, Later, NextStep
from modelyard.messages import Attempt, Call, DeadReason, Draft, Part, Request

logger = logging.getLogger("modelyard.calls")


async def answer(work: Work, origin: Origin, call: Call) -> Settled | Standing:
    """Have this step's model answer."""
    request, accept = asked(call), call.decision.plan.accept
    called = await work.called(origin, call, request)
    if isinstance(called, Failed):
        return left(work, origin, call, called.attempts, called.move)
    draft = to_draft(called.completion, called.model)
    if accept is None:
        return Standing(call, called.attempts, draft, (*call.drafts, draft), call.drafts)
    return await weigh(work, origin, call, request, called.attempts, draft)


async def weigh(
    work: Work,
    origin: Origin,
    call: Call,
    request: Request,
    attempts: tuple[Attempt, ...],
    draft: Draft,
) -> Settled | Standing:
    """Decide what becomes of an answer that has to be accepted."""
    texts: list[str] | None = None
    while True:
        move = after_answer(call, draft, texts, work.knows, time.time())
        if not isinstance(move, Sample):
            break
        draft, texts, more = await sample(work, origin, call, request, draft, move.count)
        attempts = (*attempts, *more)
    call = call.model_copy(update={"drafts": (*call.drafts, draft), "attempts": attempts})
    return drafted(work, origin, call, move)


async def sample(
    work: Work, origin: Origin, call: Call, request: Request, draft: Draft, count: int
) -> tuple[Draft, list[str], tuple[Attempt, ...]]:
    """Have the same model answer `count` more times, at once.

    Returns the draft with what that cost, what was answered, and the calls.
    """
    afresh = call.model_copy(update={"attempts": ()})
    every = await asyncio.gather(
        *(
            work.called(origin, afresh, sampled(request, at), stays=True)
            for at in range(1, count + 1)
        ),
        return_exceptions=True,
    )
    texts: list[str] = []
    attempts: tuple[Attempt, ...] = ()
    for each in every:
        if isinstance(each, BaseException):
            raise each
        attempts = (*attempts, *each.attempts)
        if isinstance(each, Answered):
            texts.append(each.completion.text)
            draft = charged(draft, each.completion, each.model)
    return draft, texts, attempts


async def judge(work: Work, origin: Origin, call: Call) -> Settled | Standing:
    """Have this judge grade the last draft."""
    draft = call.drafts[-1]
    called = await work.called(origin, call, grading_request(call.request, draft))
    grade = None
    if isinstance(called, Answered):
        grade = read_grade(called.completion.text)
        draft = charged(draft, called.completion, called.model)
        draft = draft.model_copy(update={"score": grade})
        why = f"the grade that {call.model} gave can't be read"
    elif isinstance(called.move, Later):
        return left(work, origin, call, called.attempts, called.move)
    else:
        assert isinstance(called.move, Die)
        why = f"{call.model} could not grade it: {called.move.reason}"
    call = call.model_copy(
        update={"drafts": (*call.drafts[:-1], draft), "attempts": called.attempts}
    )
    return graded(work, origin, call, grade, why)


def graded(
    work: Work, origin: Origin, call: Call, grade: float | None, why: str
) -> Settled | Standing:
    """Return what becomes of the last draft; `why` there is no grade, if there is none."""
    if grade is None:
        logger.warning("request %s: %s", origin.id, why)
    return drafted(work, origin, call, after_grade(call, grade, why, work.knows, time.time()))


def drafted(
    work: Work, origin: Origin, call: Call, move: Stands | AskJudge | Escalate
) -> Settled | Standing:
    """Return what becomes of the last draft of `call`."""
    *others, draft = call.drafts
    if isinstance(move, Stands):
        return Standing(call, call.attempts, draft, call.drafts, tuple(others))
    if isinstance(move, AskJudge):
        onward = call.model_copy(update={"part": Part.JUDGE})
        why = f"step {call.step + 1} graded by {onward.model}"
    else:
        kept = draft.model_copy(update={"verdict": move.why})
        changed = {"part": Part.ANSWER, "step": move.step, "drafts": (*others, kept)}
        onward = call.model_copy(update=changed)
        why = f"step {move.step + 1} after {draft.model} was not accepted: {move.why}"
    logger.info("request %s: %s", origin.id, why)
    return work.exits.hop(origin, onward, why)


def left(
    work: Work,
    origin: Origin,
    call: Call,
    attempts: tuple[Attempt, ...],
    move: NextStep | Later | Die,
    where: str = "",
) -> Settled | Standing:
    """Return how a call leaves this pool that the model did not answer."""
    if isinstance(move, Later):
        return work.exits.later(
            origin, call.model_copy(update={"attempts": attempts}), move.wait_s, move.why
        )
    if isinstance(move, NextStep):
        step = known_step(work, call, move.step)
        if step is not None:
            onward = call.model_copy(update={"step": step, "attempts": attempts})
            logger.warning("request %s: next model after %s", origin.id, move.why)
            return work.exits.hop(origin, onward, f"step {step + 1} after {move.why}")
        move = Die(DeadReason.EXHAUSTED, f"{move.why}; the catalog has no later model of its plan")
    call = call.model_copy(update={"attempts": attempts})
    if call.part.is_apart:
        return work.exits.apart(origin, call, attempts, None, move)
    if call.part is Part.JUDGE:
        why = f"{call.model} could not grade it: {move.reason}"
        return graded(work, origin, call, None, why)
    fit = [draft for draft in call.drafts if not draft.unfit]
    if fit:
        # What was paid for and not accepted is better than nothing, and says what it is.
        logger.warning("request %s: a draft stands, as %s", origin.id, move.message)
        return Standing(call, attempts, best(fit), call.drafts, call.drafts)
    return work.exits.dead(origin, call, attempts, move, where)


def known_step(work: Work, call: Call, first: int) -> int | None:
    """Return the number of the first step from `first` on whose model somebody serves, or None."""
    steps = call.decision.plan.steps
    return next((at for at in range(first, len(steps)) if work.knows(steps[at].model)), None)


def asked(call: Call) -> Request:
    """Return the request as it is sent to who answers it."""
    if wants_confidence(call.decision.plan.accept):
        return with_log_probabilities(call.request)
    return call.request
