"""Deciding again what was decided before, as another catalog has it. Nothing is called."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from modelyard.catalog import Catalog
from modelyard.errors import InvalidRequest
from modelyard.messages import Request, problems
from router_worker.knowledge import NOTHING, Knowledge
from router_worker.policy import decide


def decide_again(
    lines: Iterable[str], catalog: Catalog, knowledge: Knowledge = NOTHING
) -> Iterator[dict[str, Any]]:
    """Yield the decision for each line `{"id", "at", "request", "escalated"}` of JSON, in order.

    It is decided as it would have been `at` the time, in seconds since the epoch: rules may go by
    the hour, and ramps by the day. `escalated` is the model that its session had been escalated to,
    if any. What can't be decided is `{"error"}`.
    """
    for line in lines:
        past = json.loads(line)
        try:
            request = Request.decode(past["request"])
            decision = decide(
                request,
                catalog,
                past["at"],
                id=past["id"],
                knowledge=knowledge,
                escalated=past.get("escalated"),
            )
        except ValidationError as error:
            yield {"error": f"not a request: {problems(error)}"}
        except InvalidRequest as error:
            yield {"error": str(error)}
        else:
            yield {
                "intent": decision.intent,
                "strategy": decision.plan.strategy.value,
                "plan": [step.model for step in decision.plan.steps],
                "input_tokens": decision.input_tokens,
                "output_tokens": decision.output_tokens,
            }
