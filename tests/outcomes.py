"""Outcomes as workers settle them."""

from modelyard.claims import End
from modelyard.endings import answered
from modelyard.messages import Answer
from modelyard.plan import Decision, Plan, Step


def end_of(id: str, *, claim: str = "", channel: str = "", text: str = "hi") -> End:
    """Return the end of a request that was answered."""
    decision = Decision(
        route="default",
        intent="other",
        why="",
        input_tokens=1,
        decided_at=1.0,
        plan=Plan(steps=(Step(model="m"),)),
    )
    answer = Answer(id=id, text=text, model="m", provider_model="m", decision=decision)
    return answered(answer, claim=claim, ttl_s=600, channel=channel, now=1.0)
