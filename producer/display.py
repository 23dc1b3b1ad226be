"""What commands print: for people on a terminal, or as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from modelyard.catalog import Catalog
from modelyard.endpoint_labels import left_out
from modelyard.errors import ModelyardError, RequestFailed, RequestRevoked
from modelyard.messages import Answer
from modelyard.plan import Accept, AnswerCache, Combine, Decision
from modelyard.wording import are_not_set, counted
from producer.failure import failure
from producer.output import console, standard_output
from producer.queues import GoneState, ModelState
from producer.yard import Addresses

MARKS: Final = "[n]: sentence n of the document"
"""What the numbers in an extractive summary mean."""

out = console()
err = Console(stderr=True)


def show_addresses(addresses: Addresses, as_json: bool) -> None:
    """Print where the parts of a yard are."""
    if as_json:
        print_json(asdict(addresses))
        return
    out.print(
        f"redis   {addresses.broker_url}   ({addresses.redis or 'given by MODELYARD_BROKER_URL'})"
    )
    if addresses.flower:
        out.print(f"flower  {addresses.flower}")
    out.print(f"logs    {addresses.logs}", soft_wrap=True)
    out.print(
        f"\nIn another terminal:\n  export MODELYARD_BROKER_URL={addresses.broker_url}\n"
        "  modelyard submit 'Summarize: ...' --wait\n\nCtrl-C stops it all.",
        soft_wrap=True,
    )


def show_answer(answer: Answer, as_json: bool) -> None:
    """Print an answer: its text on standard output, where it came from on standard error."""
    if as_json:
        print_json(answer.model_dump(mode="json"))
        return
    plain(answer.text)
    kind = "extractive, " if answer.extractive else ""
    if answer.cached is not None:
        kind += f"cached from {answer.cached.of} (${answer.cached.saved_usd:.6f} saved), "
    err.print(
        f"[{kind}{answer.model}, "
        f"{answer.usage.input_tokens:,} + {answer.usage.output_tokens:,} tokens, "
        f"${answer.cost_usd:.6f}, {answer.timings.total_ms:,.0f} ms]",
        style="dim",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if answer.extractive:
        err.print(MARKS, style="dim", markup=False, highlight=False)


def show_no_answer(id: str, error: ModelyardError) -> None:
    """Print as JSON why there is no answer; `pending` if there still may be one."""
    if not isinstance(error, RequestFailed | RequestRevoked):
        print_json({"id": id, "status": "pending"})
        return
    why = failure(error)
    said: dict[str, Any] = {"id": id, "status": "failed"}
    said["error"] = {"reason": why.reason, "message": why.message}
    said["attempts"] = list(error.attempts) if isinstance(error, RequestFailed) else []
    print_json(said)


def show_decision(decision: Decision) -> None:
    """Print a decision for people."""
    lines = [
        ("intent", decision.intent),
        ("why", decision.why),
        ("tokens", f"about {decision.input_tokens:,} in, {decision.output_tokens:,} out"),
        ("looks", f"complexity {decision.complexity} of 5"),
        ("plan", decision.plan.words),
    ]
    plan = decision.plan
    if plan.accept is not None:
        lines.append(("accept", conditions(plan.accept)))
    if plan.combine is not None:
        lines.append(("combine", conditions(plan.combine)))
    if plan.cache is not None:
        lines.append(("cache", conditions(plan.cache)))
    lines += [("trial", f"{arm.arm} of {arm.experiment}") for arm in decision.arms]
    for each in decision.estimates:
        expected = f"quality {each.quality:.2f}, ${each.cost_usd:.6f}, {each.latency_s:.1f} s"
        lines.append(("expect", f"{each.model}: {expected}"))
    lines += [("not", f"{each.model}: {each.why}") for each in decision.excluded]
    for name, words in lines:
        out.print(f"{name:7} {words}", markup=False, soft_wrap=True)


def conditions(part: Accept | AnswerCache | Combine) -> str:
    """Return what is set of a plan's part, in one line."""
    given = part.model_dump(exclude_defaults=True, mode="json")
    return ", ".join(f"{name} {value}" for name, value in given.items()) or "as it is by default"


def show_models(states: Sequence[ModelState | GoneState], *, with_broker: bool) -> None:
    """Print a table of models, and below it which are off and why."""
    gone = [state for state in states if isinstance(state, GoneState)]
    known = [state for state in states if isinstance(state, ModelState)]
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("runs")
    # Both do not fit a terminal of 80 columns; --json has everything.
    told = ("queued", "in flight", "workers") if with_broker else ("context", "quality")
    for column in ("$ in/out per Mtok", *told):
        table.add_column(column, justify="right", no_wrap=True)
    for state in known:
        model = state.model
        price = model.price
        inside = "people" if model.is_people else f"{model.provider}/{model.provider_model}"
        table.add_row(
            model.name,
            ", ".join(model.provider_models) if model.endpoints else inside,
            f"{price.input_usd_per_mtok:g} / {price.output_usd_per_mtok:g}",
            *(
                (f"{state.queued:,}", f"{state.in_flight:,}", f"{state.workers:,}")
                if with_broker
                else (f"{model.context_tokens:,}", f"{model.quality:g}")
            ),
        )
    for each in gone:
        counts = (f"{each.queued:,}", f"{each.in_flight:,}", f"{each.workers:,}")
        table.add_row(each.name, each.why, "", *counts)
    out.print(table)
    for each in gone:
        if each.queued and not each.workers:
            plain(f"{each.name}: {each.queued:,} wait and nobody serves them; {each.advice}")
    for state in known:
        if state.model.disabled:
            out.print(f"{state.model.name} is off: {state.model.disabled}", markup=False)
        if state.model.is_people and state.queued:
            plain(f"{state.model.name}: {state.queued:,} wait for people (modelyard inbox list)")
    if not with_broker:
        out.print("Set MODELYARD_BROKER_URL to see queues and workers.", style="dim")


def show_catalog(path: Path, catalog: Catalog) -> None:
    """Print what a catalog holds."""
    size = f"{counted(len(catalog.models), 'model')}, {counted(len(catalog.routes), 'route')}"
    plain(f"{path}: ok, {size}")
    for model in catalog.models:
        off, why = left_out(model), model.disabled
        ready = "people (modelyard inbox)" if model.is_people else "ready"
        if off and not why:
            ready += f", without {len(off)} of {len(model.endpoints)} endpoints"
        plain(f"  {model.name}: {'off, ' + why if why else ready}")
        for label, missing in off:
            plain(f"    {label} is off: {are_not_set([missing])}")


def plain(text: str) -> None:
    """Print text as it is."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print one line of JSON on standard output."""
    with standard_output() as stream:
        stream.write(json.dumps(value, ensure_ascii=False) + "\n")
        stream.flush()
