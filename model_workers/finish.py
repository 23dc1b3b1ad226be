"""The last thing before an answer is committed: doing to it what the plan's `after` says.

What is not the JSON that is wanted is asked for once more, of the model that answered, which is
told what was wrong.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from model_workers.answer import to_draft
from model_workers.aside import aside
from model_workers.caller import Answered, Failed
from model_workers.post.process import Unfit, process, redacted
from modelyard.advance import Die
from modelyard.after import After
from modelyard.errors import ModelyardError
from modelyard.messages import Attempt, Call, DeadReason, Draft, Message, Part, Request

FINISH_S: Final = 60.0
"""How long it may take in all; only a function can take long."""

Ask = Callable[[Call, Request], Awaitable[Answered | Failed]]


@dataclass(frozen=True, slots=True)
class Standing:
    """An answer that stands. `attempts`, `paid` and `others` are as in `to_answer`.

    `asked` is the request that it answers, where that is not the call's; `billed` as in `Exits`.
    """

    call: Call
    attempts: tuple[Attempt, ...]
    draft: Draft
    paid: tuple[Draft, ...] = ()
    others: tuple[Draft, ...] = ()
    asked: Request | None = None
    billed: int = 0


@dataclass(frozen=True, slots=True)
class Unfinished:
    """It could not be done. `die` says why; `may_go_on`: another model's answer may do better.

    `drafts` are all answers so far, the one that was meant to stand among them.
    """

    attempts: tuple[Attempt, ...]
    drafts: tuple[Draft, ...]
    die: Die
    may_go_on: bool


async def finish(final: Standing, ask: Ask) -> Standing | Unfinished:
    """Return the answer with all steps of `after` done. `ask` calls the model of a call's step."""
    steps, asked = final.call.decision.plan.after, False
    while True:
        draft = final.draft
        try:
            draft, others = await aside(FINISH_S, done, steps, draft, final.others)
        except Unfit as error:
            final, why = turned_down(final, f"after: {error}"), str(error)
        except TimeoutError:
            return broken(final, f"{names(steps)} took more than {FINISH_S:g} s")
        except ModelyardError as error:
            return broken(final, str(error))
        else:
            return replace(final, draft=draft, others=others)
        die = Die(DeadReason.EXHAUSTED, f"{draft.model}: after: {why}")
        again = None if asked else same_model(final)
        if again is None:
            return Unfinished(final.attempts, final.others, die, may_go_on=True)
        called = await ask(again, correction(final.asked or final.call.request, draft, why, steps))
        if isinstance(called, Failed):
            if isinstance(called.move, Die) and called.move.reason is DeadReason.EXPIRED:
                die = called.move
            return Unfinished(called.attempts, final.others, die, may_go_on=True)
        second = to_draft(called.completion, called.model)
        final = replace(final, draft=second, attempts=called.attempts, paid=(*final.paid, second))
        asked = True


def done(
    steps: Sequence[After], draft: Draft, others: Sequence[Draft]
) -> tuple[Draft, tuple[Draft, ...]]:
    """Return the draft with all steps done, and those that are told with it without what it must
    not have either. Raises as `process` does.
    """
    if draft.tool_calls:
        # It waits for what a tool says, and is no JSON yet.
        steps = [step for step in steps if step.json_ is None]
    made = process(steps, draft.text)
    hidden = (each.model_copy(update={"text": redacted(steps, each.text)}) for each in others)
    changed = {"text": made.text, "processed": made.by}
    return draft.model_copy(update=changed), tuple(hidden)


def turned_down(final: Standing, verdict: str) -> Standing:
    """Return it with its draft among the others."""
    unfit = final.draft.model_copy(update={"verdict": verdict, "unfit": True})
    others = tuple(each for each in final.others if each is not final.draft)
    return replace(final, others=(*others, unfit), paid=final.paid or (final.draft,))


def broken(final: Standing, why: str) -> Unfinished:
    """Return what came of a function that failed: it would fail on every model's answer."""
    die = Die(DeadReason.EXHAUSTED, why)
    return Unfinished(final.attempts, final.others, die, may_go_on=False)


def names(steps: Sequence[After]) -> str:
    """Return the functions of the steps, for people."""
    functions = [repr(step.function) for step in steps if step.function is not None]
    return f"after.function {', '.join(functions)}" if functions else "after"


def same_model(final: Standing) -> Call | None:
    """Return the call by which the draft's model answers again; None if it is not one model's."""
    call = final.call
    models = [step.model for step in call.decision.plan.steps]
    if final.draft.model not in models:
        return None
    step = call.step
    if models[step] != final.draft.model:
        step = models.index(final.draft.model)
    return call.model_copy(update={"part": Part.ANSWER, "step": step, "attempts": final.attempts})


def correction(request: Request, draft: Draft, why: str, steps: Sequence[After]) -> Request:
    """Return the request with the answer and what is wrong with it."""
    told = [
        f"Your last answer can't be used: {why}.",
        "Answer again with the JSON alone: no text around it and no code fence.",
    ]
    schemas = [step.json_.schema_ for step in steps if step.json_ is not None]
    told += [f"It must fit this JSON schema: {json.dumps(each)}" for each in schemas if each]
    turns = [Message(role="assistant", content=draft.text)] if draft.text.strip() else []
    turns.append(Message(role="user", content="\n".join(told)))
    return request.model_copy(update={"messages": (*request.messages, *turns)})
