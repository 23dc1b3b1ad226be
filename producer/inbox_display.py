"""What the commands for people print. A list has no prompt in it, one request has."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.inbox_item import Item
from modelyard.messages import Draft
from producer.dead_display import as_text, messages, moment, named, said, visible
from producer.dead_options import short_duration
from producer.display import out, plain, print_json, show_decision
from producer.narrow import Column, show_rows


def show_waiting(
    items: Sequence[Item],
    counts: Mapping[str, int],
    *,
    more: bool,
    now: float,
    as_json: bool,
) -> None:
    """Print what waits, and how many requests there are for each model's people."""
    if as_json:
        print_json(
            {
                "count": sum(counts.values()),
                "models": dict(counts),
                "waiting": [in_short(item, now) for item in items],
                "more": more,
            }
        )
        return
    each = ", ".join(f"{count:,} for {model}" for model, count in counts.items() if count)
    plain(f"{sum(counts.values()):,} in the inbox{': ' + each if each else ''}")
    if items:
        columns = [Column("id"), Column("model"), Column("state"), Column("age", right=True)]
        columns += [Column("intent"), Column("tokens", right=True)]
        show_rows(out, columns, [[visible(cell) for cell in row(item, now)] for item in items])
    if more:
        plain("There are more: --limit, --json.")


def row(item: Item, now: float) -> tuple[str, ...]:
    """Return what the table has of an item."""
    state, call = item.state(now), item.call
    if call is None:
        return item.id, item.model, state, "?", "", ""
    age = short_duration(now - submitted_at(item))
    tokens = f"{call.decision.input_tokens:,}"
    return item.id, item.model, state, age, call.decision.intent, tokens


def submitted_at(item: Item) -> float:
    """Return when the request was submitted, in seconds since the epoch."""
    assert item.call is not None
    return item.call.request.submitted_at or item.call.decision.decided_at


def in_short(item: Item, now: float) -> dict[str, Any]:
    """Return an item as plain JSON values, without its prompt and what models said of it."""
    call = item.call
    known: dict[str, Any] = {"id": item.id, "model": item.model, "state": item.state(now)}
    if call is None:
        return {**known, "why": "unreadable"}
    return {
        **known,
        "request": item.request_id,
        "part": call.part.value,
        "lane": call.request.lane.value,
        "submitted_at": submitted_at(item),
        "deadline": call.request.deadline,
        "route": call.decision.route,
        "intent": call.decision.intent,
        "input_tokens": call.decision.input_tokens,
        "drafts": len(call.drafts),
        "metadata": call.request.metadata,
    }


def show_item(item: Item, now: float, as_json: bool) -> None:
    """Print all that is known of one item, its prompt too."""
    call = item.call
    if as_json:
        print_json(
            {**in_short(item, now), "call": call.model_dump(mode="json")}
            if call
            else {**in_short(item, now), "problem": item.problem}
        )
        return
    named("id", item.id)
    named("model", item.model)
    named("state", item.state(now))
    if call is None:
        said(item.problem)
        return
    waited = f"{moment(submitted_at(item))}, {short_duration(now - submitted_at(item))} ago"
    named("since", waited)
    if call.request.deadline is not None:
        named("until", moment(call.request.deadline))
    for key, value in call.request.encode().items():
        if key in {"lane", "params", "metadata"}:
            named(key, as_text(value))
    show_decision(call.decision)
    for draft in call.drafts:
        show_draft(draft)
    for text in messages(call.request.encode()):
        plain("\n" + visible(text))


def show_draft(draft: Draft) -> None:
    """Print what a model answered before, and why that was not good enough."""
    graded = "" if draft.score is None else f", graded {draft.score:.2f}"
    named("draft", f"{draft.model}{graded}: {draft.verdict or 'not accepted'}")
    plain("\n".join(f"        {line}" for line in visible(draft.text).splitlines()))
