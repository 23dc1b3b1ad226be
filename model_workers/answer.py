"""Making the answer of a request from the completion of its last call."""

from collections.abc import Sequence

from model_workers.providers.base import Completion
from modelyard.catalog import Model
from modelyard.messages import Answer, Attempt, Call, Timings


def brief(answer: Answer) -> str:
    """Return an answer in one line, for logs, events and Flower.

    What was answered is between the producer and the result backend.
    """
    return (
        f"{answer.model} answered {answer.usage.output_tokens:,} tokens "
        f"to {answer.usage.input_tokens:,}, ${answer.cost_usd:.6f}"
    )


def to_answer(
    id: str,
    call: Call,
    attempts: Sequence[Attempt],
    completion: Completion,
    model: Model,
    first_call: float,
    now: float,
) -> Answer:
    """Return the answer. `first_call` and `now` are seconds since the epoch.

    The clocks of producer, router and worker may differ by some milliseconds; no duration is
    reported as negative for that.
    """
    decided = call.decision.decided_at
    submitted = call.request.submitted_at or decided
    return Answer(
        id=id,
        text=completion.text,
        model=model.name,
        provider_model=completion.provider_model,
        decision=call.decision,
        usage=completion.usage,
        cost_usd=model.price.cost_usd(completion.usage),
        finish_reason=completion.finish_reason,
        extractive=completion.extractive,
        attempts=tuple(attempts),
        timings=Timings(
            routing_ms=ms(submitted, decided),
            queued_ms=ms(decided, first_call),
            calling_ms=ms(first_call, now),
            total_ms=ms(submitted, now),
        ),
    )


def ms(start: float, end: float) -> float:
    """Return the milliseconds between two times in seconds, to the microsecond."""
    return max(0.0, round(1000 * (end - start), 3))
