"""`modelyard plan`: how many worker processes a load needs, and what it costs. It calls nothing."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from modelyard.catalog import Catalog, Model
from modelyard.catalog_file import default_catalog
from modelyard.messages import Usage
from modelyard.plan import Strategy
from modelyard.settings import load_settings
from producer.display import out, plain, print_json
from producer.exit_codes import FAILED
from producer.options import AsJson, Models
from producer.output import UsageError
from producer.plan_assumptions import assumptions
from producer.plan_figures import Figures, Use
from producer.plan_input import escalations, weather_of
from producer.plan_latency import Latency, Lognormal, Observed
from producer.plan_policies import quotas_of
from producer.plan_search import MOST, Found, Slo, least, rate_per_s, slo, time_s
from producer.plan_station import Station, Traffic

PERCENTILES: Final = (50.0, 95.0, 99.0)
NEARLY: Final = 0.9
"""What is used to that part is what keeps a promise from being held."""

LONGEST_CALL_S: Final = 86_400.0
"""A longer call is a mistake, and its simulation would not end."""


def plan(
    rate: Annotated[str, typer.Option(help="What arrives: 50/s, 300/min, 2000/h, 1000000/d.")],
    promise: Annotated[str, typer.Option("--slo", help="From submit to the answer.")] = "p95<60s",
    models: Models = None,
    route: Annotated[
        str, typer.Option(help="Without --model: this route's models, as of `otherwise`.")
    ] = "default",
    latency: Annotated[
        list[str] | None,
        typer.Option(help="What a call takes in the mean: 8s, or MODEL=8s; repeatable."),
    ] = None,
    spread: Annotated[
        float, typer.Option(min=0.0, max=3.0, help="Standard deviation of the latency's logarithm.")
    ] = 0.6,
    latencies: Annotated[
        Path | None, typer.Option(help="Calls that were observed: a file of seconds, one a line.")
    ] = None,
    failures: Annotated[
        list[str] | None,
        typer.Option(
            help="The share of calls that fail: 5%, MODEL=5% or MODEL/ENDPOINT=100%; repeatable."
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="What an endpoint takes, though the catalog does not say so: 600/min, "
            "MODEL=600/min or MODEL/ENDPOINT=600/min; beyond it answers 429. Repeatable."
        ),
    ] = None,
    escalate: Annotated[
        list[str] | None,
        typer.Option(
            help="A cascade: the share of answers that is not accepted, 20% or MODEL=20%; "
            "repeatable."
        ),
    ] = None,
    batch: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of requests in the batch lane.")
    ] = 0.0,
    input_tokens: Annotated[int, typer.Option(min=0, help="Tokens of a request.")] = 1000,
    output_tokens: Annotated[int, typer.Option(min=0, help="Tokens of an answer.")] = 300,
    seed: Annotated[int, typer.Option(help="The same seed gives the same plan.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say how many worker processes a load needs, and what it costs.

    It simulates the yard: random arrivals, lanes, and the retries, failover, breakers and quotas
    of the catalog as the workers have them. No model is called and no broker is needed.
    """
    settings = load_settings()
    catalog = default_catalog(settings)
    chosen = chosen_models(catalog, models or (), route, cascades=bool(escalate))
    weather = weather_of(chosen, failures or (), limit or ())
    drafts = escalations(chosen, escalate or ())
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    times = given_latencies([model.name for model in chosen], latency or ())
    observed = None if latencies is None else Observed(read_times(latencies))
    stations = [
        Station(
            model.name,
            model.concurrency,
            latency_of(model, observed, times.get(model.name), spread, output_tokens),
            model.retry,
            model.timeout_s,
            weather[model.name],
            drafts[model.name],
            partial(quotas_of, model, catalog, {}),
            breaker=model.breaker,
        )
        for model in chosen
    ]
    traffic = Traffic(rate_per_s(rate), input_tokens + output_tokens, batch, settings.batch_share)
    wanted = slo(promise)
    found = least(stations, traffic, wanted, seed=seed)
    said = as_plan(found, wanted, traffic, chosen, usage)
    said["assumptions"] = assumptions(stations, traffic, usage)
    print_json(said) if as_json else show(said)
    if not found.ok:
        raise typer.Exit(FAILED)


def chosen_models(
    catalog: Catalog, names: Sequence[str], route: str, *, cascades: bool = False
) -> list[Model]:
    """Return the models that are tried in order. Raises `UsageError` and `UnknownName`."""
    if names:
        models = [catalog.model(name) for name in names]
        people = [model.name for model in models if model.is_people]
        if people:
            raise UsageError(f"{', '.join(people)}: people have no worker processes")
        return models
    target = catalog.route(route).otherwise
    every = [catalog.model(name) for name in target.models]
    models = [model for model in every if not model.is_people and model.disabled is None]
    if not models:
        raise UsageError(
            f"no model of route {route!r} can be called here: say which ones with --model"
        )
    if target.strategy is Strategy.CASCADE and len(models) > 1 and not cascades:
        raise UsageError(
            f"route {route!r} is a cascade: say with --escalate which share of the answers is not "
            "accepted"
        )
    alone = {Strategy.SINGLE, Strategy.CASCADE}
    if target.strategy not in alone and len(models) > 1:
        raise UsageError(
            f"route {route!r} is a {target.strategy}: plan its models one by one, with --model"
        )
    return models


def given_latencies(names: Sequence[str], given: Sequence[str]) -> dict[str, float]:
    """Return the mean latency by model. Raises `UsageError`."""
    times: dict[str, float] = {}
    for each in given:
        name, equals, time = each.rpartition("=")
        if equals and name not in names:
            raise UsageError(f"--latency {each}: the plan has the models {', '.join(names)}")
        for model in [name] if equals else [name for name in names if name not in times]:
            times[model] = time_s(time)
    return times


def latency_of(
    model: Model, observed: Observed | None, mean_s: float | None, spread: float, output_tokens: int
) -> Latency:
    """Return what is known of a model's calls: what was given, observed, or the catalog says.

    Raises `UsageError` for calls so long that no simulation of them ends.
    """
    if mean_s is None and observed is not None:
        return observed
    if mean_s is None:
        mean_s = model.latency_s + output_tokens / model.tokens_per_s
    if mean_s > LONGEST_CALL_S:
        raise UsageError(
            f"a call of {model.name} would take {mean_s:,.0f} s: a plan has a day at most"
        )
    return Lognormal(mean_s, spread)


def read_times(path: Path) -> tuple[float, ...]:
    """Read a file of seconds, one a line. Raises `UsageError`."""
    times = []
    # What is no text is no time either, and is told with its line.
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            time = float(line)
        except ValueError:
            time = math.nan
        if not 0 <= time < math.inf:
            raise UsageError(f"{path}:{number}: {line.strip()!r} is no time in seconds")
        times.append(time)
    if not times:
        raise UsageError(f"{path}: there is no time in it")
    return tuple(times)


def as_plan(
    found: Found, slo: Slo, traffic: Traffic, models: Sequence[Model], usage: Usage
) -> dict[str, Any]:
    """Return the plan as JSON values; money is in US dollars."""
    figures, rate = found.figures, traffic.rate_per_s
    rows: list[dict[str, Any]] = []
    for model, station in zip(models, figures.stations, strict=True):
        usd = station.answers * model.price.cost_usd(usage)
        rows.append(
            {
                "model": model.name,
                "processes": station.processes if found.ok else None,
                "concurrency": model.concurrency,
                "calls": round(station.calls, 4),
                "limited": round(station.limited, 4),
                "escalated": round(station.drafts, 4),
                "used": {use.what: round(use.used, 4) for use in station.uses},
                "usd_per_1000": round(1000 * usd, 6),
                "usd_per_hour": round(3600 * rate * usd, 4),
            }
        )
    first = figures.bottleneck
    return {
        "ok": found.ok,
        "why": "" if found.ok else why_not(figures, slo, first),
        "rate_per_s": rate,
        "slo": {"percent": slo.percent, "limit_s": slo.limit_s},
        "processes": sum(found.processes) if found.ok else None,
        "models": rows,
        **{f"p{percent:g}_s": finite(figures.percentile(percent)) for percent in PERCENTILES},
        "unanswered": round(figures.unanswered, 4),
        "bottleneck": {
            "model": first.model,
            "what": first.what,
            "used": round(first.used, 4),
            "full_at_per_s": round(rate / first.used, 2) if first.used else None,
        },
        "usd_per_1000": round(sum(row["usd_per_1000"] for row in rows), 6),
        "usd_per_hour": round(sum(row["usd_per_hour"] for row in rows), 4),
    }


def why_not(figures: Figures, slo: Slo, first: Use) -> str:
    """Return what keeps the promise from being held, however many processes there are."""
    if first.used >= NEARLY:
        return f"{first.model}: {first.what} is full"
    if figures.unanswered >= 1 - slo.percent / 100:
        return f"{figures.unanswered:.1%} get no answer: too many calls fail"
    if figures.percentile(slo.percent) >= slo.limit_s:
        return "the calls themselves take that long"
    return f"it takes more than {MOST:,} processes of a model: raise its concurrency"


def finite(time_s: float) -> float | None:
    """Return a time for JSON, which has no infinity."""
    return round(time_s, 3) if math.isfinite(time_s) else None


def show(said: dict[str, Any]) -> None:
    """Print the plan for people."""
    promise = f"p{said['slo']['percent']:g} < {said['slo']['limit_s']:g} s"
    load = f"{said['rate_per_s']:,.4g}/s"
    if said["ok"]:
        count = said["processes"]
        plain(f"{load} with {promise}: {count:,} worker process{'es' if count > 1 else ''}")
    else:
        plain(f"{load} with {promise}: not with any number of processes ({said['why']})")
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("model", overflow="fold")
    for column in ("processes", "calls/request", "in flight", "CPU", "$/1,000", "$/hour"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in said["models"]:
        table.add_row(
            Text(row["model"]),
            "-" if row["processes"] is None else f"{row['processes']:,}",
            f"{row['calls']:.3f}",
            "-" if row["processes"] is None else f"{row['used']['calls in flight']:.0%}",
            "-" if row["processes"] is None else f"{row['used']['CPU']:.1%}",
            f"{row['usd_per_1000']:,.4f}",
            f"{row['usd_per_hour']:,.2f}",
        )
    out.print(table)
    for row in said["models"]:
        for what, used in row["used"].items():
            if what.startswith("quota"):
                plain(f"{row['model']}: {what}: {used:.0%}")
        if row["limited"]:
            plain(f"{row['model']}: {row['limited']:.3f} calls of a request are answered with 429")
        if row["escalated"]:
            plain(f"{row['model']}: {row['escalated']:.1%} of the requests go on after its answer")
    times = ", ".join(
        f"p{percent:g} {said[f'p{percent:g}_s']:,.2f} s"
        if said[f"p{percent:g}_s"] is not None
        else f"p{percent:g} never"
        for percent in PERCENTILES
    )
    plain(f"submit to answer: {times}")
    if said["unanswered"]:
        plain(f"no answer: {said['unanswered']:.2%}")
    first = said["bottleneck"]
    if said["ok"] and first["full_at_per_s"]:
        plain(
            f"full first: {first['model']}, {first['what']} ({first['used']:.0%}), "
            f"at about {first['full_at_per_s']:,.4g}/s"
        )
    for line in said["assumptions"]:
        plain(f"assumes: {line}")
