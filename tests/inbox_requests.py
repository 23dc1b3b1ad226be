"""Requests that wait for people, put into the inbox as a router or a worker does."""

import time
from typing import Any

import redis

from modelyard.claims import DONE, New, put
from modelyard.messages import Attempt, Call, Draft, Part, Request, Usage
from modelyard.names import CALL_TASK, model_queue
from modelyard.plan import Decision, Plan, Step
from modelyard.publish import envelope

PROMPT = "My parcel is lost: where is it?"

CATALOG = """
models:
  - name: small
    provider: extractive
  - name: support
    provider: people
  - name: legal@v2
    provider: people
routes:
  default:
    otherwise: [small]
"""


def call(
    model: str = "support", *, step: int = 0, models: tuple[str, ...] = (), **fields: Any
) -> Call:
    """A call on its way to people; `fields` are those of a call, or of its request."""
    request = {key: fields.pop(key) for key in ("deadline", "metadata", "lane") if key in fields}
    decision = Decision(
        route="default",
        intent="parcel",
        why="a test",
        input_tokens=9,
        decided_at=time.time() - 60,
        plan=Plan(steps=tuple(Step(model=name) for name in models or (model,))),
    )
    return Call(
        request=Request.of(PROMPT, submitted_at=time.time() - 61, **request),
        decision=decision,
        step=step,
        **fields,
    )


def escalated(**fields: Any) -> Call:
    """A call that came to people as a model's answer was not accepted."""
    draft = Draft(
        model="small",
        provider_model="provider-small",
        text="It is on its way.",
        usage=Usage(input_tokens=7, output_tokens=5),
        cost_usd=0.25,
        verdict="small: graded 0.2, below 0.7",
    )
    attempt = Attempt(model="small", endpoint="here", started_at=time.time() - 50, duration_ms=9.0)
    return call(models=("small", "support"), step=1, drafts=(draft,), attempts=(attempt,), **fields)


def send(
    store: redis.Redis,
    id: str,
    waits: Call | None = None,
    *,
    model: str = "support",
    batch: bool = False,
    parent_id: str | None = None,
) -> str:
    """Put a call into the inbox and return its queue."""
    queue = model_queue(model, batch=batch)
    message = envelope(
        task=CALL_TASK,
        id=id,
        payload=(waits or call(model)).model_dump_json(exclude_defaults=True),
        queue=queue,
        summary="parcel, about 9 tokens",
        parent_id=parent_id,
        shadow=queue,
    )
    assert put(store, queue, [New(id, message)]) == [DONE]
    return queue


MEMBER = Part.MEMBER
SHADOW = Part.SHADOW
