"""Making drafts of completions, and the answer of a request from its drafts."""

from collections.abc import Sequence

from model_workers.providers.base import Completion
from modelyard.catalog import Catalog, Model, UnknownName
from modelyard.messages import Answer, Attempt, Call, Draft, Timings, Usage


def brief(answer: Answer) -> str:
    """Return an answer in one line, for logs, events and Flower.

    What was answered is between the producer and the result backend.
    """
    if answer.cached is not None:
        return f"{answer.model} answered request {answer.cached.of} so, ${answer.cost_usd:.6f}"
    return (
        f"{answer.model} answered {answer.usage.output_tokens:,} tokens "
        f"to {answer.usage.input_tokens:,}, ${answer.cost_usd:.6f}"
    )


def to_draft(completion: Completion, model: Model) -> Draft:
    """Return what a model answered, with what it cost."""
    return Draft(
        model=model.name,
        provider_model=completion.provider_model,
        text=completion.text,
        usage=completion.usage,
        cost_usd=model.price.cost_usd(completion.usage),
        finish_reason=completion.finish_reason,
        confidence=completion.confidence,
        tool_calls=completion.tool_calls,
    )


def charged(draft: Draft, completion: Completion, model: Model) -> Draft:
    """Return the draft with the usage and cost of another call that was made for its sake."""
    return draft.model_copy(
        update={
            "usage": draft.usage + completion.usage,
            "cost_usd": draft.cost_usd + model.price.cost_usd(completion.usage),
        }
    )


def to_answer(
    id: str,
    call: Call,
    attempts: Sequence[Attempt],
    draft: Draft,
    now: float,
    *,
    paid: Sequence[Draft] = (),
    others: Sequence[Draft] = (),
    extractive: bool = False,
) -> Answer:
    """Return the answer that a draft is. `now` is in seconds since the epoch.

    Usage and cost are those of all that was `paid` for, which is the draft alone where nothing is
    given; `others` is what the answer tells of it. The clocks of producer, router and worker may
    differ by some milliseconds; no duration is reported as negative for that.
    """
    decided = call.decision.decided_at
    submitted = call.request.submitted_at or decided
    first_call = min((attempt.started_at for attempt in attempts), default=now)
    return Answer(
        id=id,
        text=draft.text,
        model=draft.model,
        provider_model=draft.provider_model,
        decision=call.decision,
        usage=sum((each.usage for each in paid), Usage()) if paid else draft.usage,
        cost_usd=sum(each.cost_usd for each in paid) if paid else draft.cost_usd,
        finish_reason=draft.finish_reason,
        tool_calls=draft.tool_calls,
        extractive=extractive,
        attempts=tuple(attempts),
        drafts=tuple(others),
        cached=draft.cached,
        processed=draft.processed,
        timings=Timings(
            routing_ms=ms(submitted, decided),
            queued_ms=ms(decided, first_call),
            calling_ms=ms(first_call, now),
            total_ms=ms(submitted, now),
        ),
    )


def is_extractive(catalog: Catalog, draft: Draft) -> bool:
    """Return whether a draft's text was picked from the input by a model of the catalog."""
    try:
        return catalog.model(draft.model).provider == "extractive"
    except UnknownName:
        return False


def ms(start: float, end: float) -> float:
    """Return the milliseconds between two times in seconds, to the microsecond."""
    return max(0.0, round(1000 * (end - start), 3))
