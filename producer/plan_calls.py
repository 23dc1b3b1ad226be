"""What the workers' own functions are asked with: the messages and failed calls of a simulation.

A plan is made of what the workers would do, so it asks those very functions (`modelyard.advance`,
`modelyard.circuit`, `modelyard.quota`). Their times are seconds from any moment on.
"""

from collections.abc import Sequence
from functools import lru_cache

from modelyard.errors import FailureKind
from modelyard.messages import Attempt, Call, Lane, Request
from modelyard.plan import Decision, Plan, Step


def calls(models: Sequence[str]) -> dict[tuple[int, bool], Call]:
    """Return a request's message at each step of a plan, in the interactive and in the batch lane.

    It was decided at 0: whoever asks what becomes of it says how much later that is.
    """
    plan = Plan(steps=tuple(Step(model=model) for model in models))
    decision = Decision(
        route="plan", intent="plan", why="", input_tokens=1, decided_at=0.0, plan=plan
    )
    return {
        (step, batch): Call(
            request=Request.of("plan", lane=Lane.BATCH if batch else Lane.INTERACTIVE),
            decision=decision,
            step=step,
        )
        for step in range(len(models))
        for batch in (False, True)
    }


@lru_cache(4096)
def attempt(model: str, kind: FailureKind, retry_after_s: float | None = None) -> Attempt:
    """Return a call that failed."""
    return Attempt(
        model=model,
        endpoint="",
        started_at=0.0,
        duration_ms=0.0,
        kind=kind,
        retry_after_s=retry_after_s,
    )
