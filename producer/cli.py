"""The command line: `modelyard`. Each command parses its arguments and calls what does the work."""

import json
import logging
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from modelyard import __version__
from modelyard.catalog_doubts import doubts
from modelyard.catalog_file import default_catalog, load_catalog
from modelyard.client import Client, Handle
from modelyard.endpoint_labels import left_out
from modelyard.errors import (
    BrokerError,
    CatalogError,
    InvalidRequest,
    ModelyardError,
    RequestFailed,
    RequestRevoked,
    ResultTimeout,
)
from modelyard.messages import Answer, Lane
from modelyard.plan import Decision
from modelyard.settings import load_settings
from modelyard.submission import prepare
from producer.autoscale import Scale
from producer.batch import BatchOptions
from producer.batch import run as run_batch
from producer.budgets import budgets
from producer.commands import model_command, router_command
from producer.dead import dead
from producer.display import (
    err,
    plain,
    print_json,
    show_addresses,
    show_answer,
    show_catalog,
    show_decision,
    show_models,
    show_no_answer,
)
from producer.document_summary import INSTRUCTION
from producer.endpoints import endpoints
from producer.exit_codes import FAILED, IN_SHORT, WRONG, explained
from producer.experiments import experiments
from producer.feedback import feedback
from producer.health import health
from producer.import_command import importing
from producer.inbox import inbox
from producer.learn import evaluate, train
from producer.ledger import ledger
from producer.options import (
    AsJson,
    DataClass,
    DeadlineS,
    MaxCost,
    MaxLatency,
    Models,
    Processes,
    QualityFloor,
    Region,
    RetryFailed,
    Route,
    Timeout,
    Window,
)
from producer.plan_command import plan
from producer.queues import model_states
from producer.replay import replay
from producer.router_answer import ask_models, ask_providers
from producer.run import WINDOW
from producer.scale_metrics import scale_metrics
from producer.summarize import SummarizeOptions
from producer.summarize import run as run_summarize
from producer.window import candidates
from producer.yard import Addresses, Yard
from producer.yard_log import logged_to

PATIENCE_S: Final = 10.0
"""For how long a submit tries to reach the broker."""
SILENT_S: Final = 2.0
"""After how long it says so."""

app = typer.Typer(
    name="modelyard",
    help="A classification yard for model requests: a durable queue that routes each request "
    "to the model that fits it.",
    epilog=IN_SHORT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
worker = typer.Typer(
    help="Run one worker (prints the celery command that it runs).", no_args_is_help=True
)
batch = typer.Typer(
    help="Work through a file of requests in the OpenAI Batch format.", no_args_is_help=True
)
app.add_typer(batch, name="batch")
app.add_typer(dead, name="dead")
app.add_typer(importing, name="import")
app.add_typer(inbox, name="inbox")
app.add_typer(experiments, name="experiments")
app.add_typer(ledger, name="ledger")
app.add_typer(worker, name="worker")
app.command()(budgets)
app.command()(endpoints)
app.command()(evaluate)
app.command()(feedback)
app.command()(health)
app.command()(plan)
app.command()(replay)
app.command()(scale_metrics)
app.command()(train)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        plain(f"modelyard {__version__}")
        raise typer.Exit


@app.callback()
def modelyard(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Do nothing: what there is to do is in the commands."""


@app.command()
def up(
    state_dir: Annotated[
        Path | None, typer.Option(help="Where Redis and the logs are kept (MODELYARD_STATE_DIR).")
    ] = None,
    flower: Annotated[bool, typer.Option(help="Run Flower, to watch the queues.")] = True,
    flower_port: Annotated[int, typer.Option(help="Flower's port, if it is free.")] = 5555,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes per model.")] = 1,
    max_processes: Annotated[
        int | None, typer.Option(min=1, help="As many per model when much waits for it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole yard on this machine until Ctrl-C: Redis, router, a pool per model, Flower."""
    settings = load_settings()
    catalog = default_catalog(settings)
    off = [model for model in catalog.models if model.disabled is not None]
    if not catalog.live_models and not any(model.is_people for model in catalog.models):
        raise InvalidRequest(f"no model of the catalog can be called here ({catalog.summary()})")
    yard = Yard(
        settings.broker_url,
        state_dir or settings.state_dir,
        [model.name for model in catalog.live_models],
        flower=flower,
        flower_port=flower_port,
        processes=processes,
        catalog=settings.catalog,
        scale=Scale(catalog, max_processes, batch_share=settings.batch_share)
        if max_processes
        else None,
        follows=catalog,
    )

    def ready(addresses: Addresses) -> None:
        stack.enter_context(logged_to(yard.log_dir / "yard.log"))
        if addresses.flower and urlsplit(addresses.flower).port != flower_port:
            err.print(f"port {flower_port} is taken: Flower is at {addresses.flower}")
        for model in off:
            err.print(f"{model.name} is off: {model.disabled}", markup=False, highlight=False)
        show_addresses(addresses, as_json)

    def notice(line: str) -> None:
        err.print(line, markup=False, highlight=False, soft_wrap=True)

    with ExitStack() as stack:
        yard.run(ready, threading.Event(), notice=notice)


@app.command()
def summarize(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders, globs: .txt .md .html .pdf"),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write JSON lines here.")
    ] = None,
    instruction: Annotated[str, typer.Option(help="What is asked of the model.")] = INSTRUCTION,
    route: Annotated[str, typer.Option(help="The route whose rules decide.")] = "default",
    models: Models = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest summary.")] = None,
    retry_failed: RetryFailed = False,
    window: Window = WINDOW,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Summarize documents.

    With -o, running the same command again resumes, even after kill -9.

    Without MODELYARD_BROKER_URL it brings up a yard for the run and takes it down.
    """
    raise typer.Exit(
        run_summarize(
            SummarizeOptions(
                paths=paths,
                output=output,
                as_json=as_json,
                instruction=instruction,
                route=route,
                models=tuple(models or ()),
                max_tokens=max_tokens,
                retry_failed=retry_failed,
                window=window,
                processes=processes,
            )
        )
    )


@batch.command("run")
def batch_run(
    input: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Requests, one a line.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Answers go here, failures to OUT.errors.jsonl.")
    ],
    route: Annotated[
        str, typer.Option(help="The route for lines whose model is 'auto'.")
    ] = "default",
    retry_failed: RetryFailed = False,
    window: Window = WINDOW,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Work through a batch file.

    Running the same command again resumes, even after kill -9.

    Without MODELYARD_BROKER_URL it brings up a yard for the run and takes it down.
    """
    raise typer.Exit(
        run_batch(
            BatchOptions(
                input=input,
                output=output,
                as_json=as_json,
                route=route,
                retry_failed=retry_failed,
                window=window,
                processes=processes,
            )
        )
    )


@app.command()
def submit(
    text: Annotated[str, typer.Argument(help="The request's text, or - to read standard input.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and print it.")] = False,
    timeout_s: Timeout = None,
    route: Route = None,
    models: Models = None,
    lane: Annotated[Lane, typer.Option(help="How urgent it is.")] = Lane.INTERACTIVE,
    deadline_s: DeadlineS = None,
    quality_floor: QualityFloor = None,
    max_cost_usd: MaxCost = None,
    max_latency_s: MaxLatency = None,
    region: Region = None,
    data_class: DataClass = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--meta", help="KEY=VALUE, repeatable.")
    ] = None,
    id: Annotated[
        str | None, typer.Option(help="Its id: submitted again, it is not done again.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again gives the first id back.")
    ] = None,
    room_s: Annotated[
        float, typer.Option(help="For so many seconds, wait for room in a full queue.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Submit one request and print its id, or with --wait its answer."""
    if route or models:
        candidates(default_catalog(), route or "default", models or ())
    text = sys.stdin.read() if text == "-" else text
    limits = limits_of(
        quality_floor=quality_floor,
        max_cost_usd=max_cost_usd,
        max_latency_s=max_latency_s,
        region=region,
        data_class=data_class,
    )
    asked = prepare(text, {"limits": limits}, now=time.time(), deadline_s=None) if limits else text
    with Client(patience_s=PATIENCE_S) as yard:
        with said_if_slow(f"can't reach the broker, trying for {PATIENCE_S:g} s"):
            handle = yard.submit(
                asked,
                route=route,
                models=models,
                lane=lane,
                deadline_s=deadline_s,
                metadata=pairs(metadata or []),
                id=id,
                idempotency_key=idempotency_key,
                wait_s=room_s,
            )
        if not wait:
            print_json({"id": handle.id}) if as_json else plain(handle.id)
            return
        show_answer(answer_of(handle, timeout_s, as_json), as_json)


@app.command()
def result(
    id: Annotated[str, typer.Argument(help="The id that submit printed.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is there.")] = False,
    timeout_s: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Print the answer to a request that was submitted before."""
    with Client() as yard:
        handle = yard.handle(id)
        if not wait and not handle.done():
            if as_json:
                print_json({"id": id, "status": "pending"})
            else:
                err.print(f"request {id}: no outcome yet (or never heard of); --wait waits for it")
            raise typer.Exit(FAILED)
        show_answer(answer_of(handle, timeout_s, as_json), as_json)


@app.command()
def cancel(
    id: Annotated[str, typer.Argument(help="The id that submit printed.")],
    as_json: AsJson = False,
) -> None:
    """Cancel a request, in its queue or while it is called for."""
    with Client(patience_s=PATIENCE_S) as yard:
        won = yard.handle(id).cancel()
    if as_json:
        print_json({"id": id, "cancelled": won})
    elif won:
        plain(f"request {id}: cancelled")
    else:
        err.print(f"request {id}: it has its outcome already")
    if not won:
        raise typer.Exit(FAILED)


@app.command()
def explain(
    text: Annotated[str, typer.Argument(help="The request's text, or - to read standard input.")],
    route: Route = None,
    models: Models = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--meta", help="KEY=VALUE, repeatable.")
    ] = None,
    deadline_s: DeadlineS = None,
    quality_floor: QualityFloor = None,
    max_cost_usd: MaxCost = None,
    max_latency_s: MaxLatency = None,
    region: Region = None,
    data_class: DataClass = None,
    as_json: AsJson = False,
) -> None:
    """Say what the router would decide, and why. Nothing is sent and nothing is called."""
    request: dict[str, Any] = {"text": sys.stdin.read() if text == "-" else text}
    if metadata:
        request["metadata"] = pairs(metadata)
    if route is not None:
        request["route"] = route
    if models:
        request["models"] = models
    if deadline_s is not None:
        request["deadline"] = time.time() + deadline_s
    request["limits"] = limits_of(
        quality_floor=quality_floor,
        max_cost_usd=max_cost_usd,
        max_latency_s=max_latency_s,
        region=region,
        data_class=data_class,
    )
    # The router is a program of its own: its answer is what a worker would decide.
    run = subprocess.run(
        [sys.executable, "-m", "router_worker"],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if run.returncode not in {0, 1} or not run.stdout:
        raise ModelyardError(f"the router failed with exit code {run.returncode}")
    said = json.loads(run.stdout)
    if as_json:
        print_json(said)
    elif "error" in said:
        err.print(said["error"], style="red", markup=False, soft_wrap=True)
    else:
        show_decision(Decision.decode(said))
    raise typer.Exit(run.returncode)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the catalog's models, and their queues and workers if there is a broker."""
    settings = load_settings()
    states = model_states(default_catalog(settings), settings.broker_url)
    if as_json:
        print_json([state.as_json() for state in states])
    else:
        show_models(states, with_broker=settings.broker_url is not None)


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A catalog; default: the one in use.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a catalog and say what it holds. Nothing is started."""
    path = file or load_settings().catalog_path
    try:
        catalog = load_catalog(path, os.environ)
    except CatalogError as error:
        if as_json:
            print_json({"ok": False, "file": str(path), "problems": list(error.problems)})
        else:
            for problem in error.problems:
                err.print(problem, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(WRONG) from error
    learned = any(route.classifier or route.predictor for route in catalog.routes.values())
    warnings = doubts(catalog) + (ask_models(path) if learned else [])
    calls = any(model.provider not in {"extractive", "people"} for model in catalog.models)
    if calls or any(route.answer_caches for route in catalog.routes.values()):
        warnings += ask_providers(path)
    if as_json:
        print_json(
            {
                "ok": True,
                "file": str(path),
                "models": {model.name: model.disabled or "ok" for model in catalog.models},
                "endpoints_off": [
                    {"model": model.name, "endpoint": label, "missing": missing.split(", ")}
                    for model in catalog.models
                    for label, missing in left_out(model)
                ],
                "routes": list(catalog.routes),
                "warnings": warnings,
            }
        )
        return
    show_catalog(path, catalog)
    for warning in warnings:
        err.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)


@worker.command("router")
def worker_router() -> None:
    """Run a router worker."""
    become(router_command())


@worker.command("model")
def worker_model(
    names: Annotated[list[str], typer.Argument(help="Models that this worker serves.")],
) -> None:
    """Run a worker of one model's pool, or of several models'."""
    catalog = default_catalog()
    for name in names:
        model = catalog.model(name)
        if model.is_people:
            raise InvalidRequest(
                f"model {name!r} is people: they have no worker, they use `modelyard inbox`"
            )
        if model.disabled is not None:
            raise InvalidRequest(f"model {name!r} can't be called here: {model.disabled}")
    become(model_command(*names))


def answer_of(handle: Handle, timeout_s: float | None, as_json: bool) -> Answer:
    """Return the answer. Before an error is raised, programs are told of it as JSON, too."""
    try:
        return handle.result(timeout_s)
    except (RequestFailed, RequestRevoked, ResultTimeout, BrokerError) as error:
        if as_json:
            show_no_answer(handle.id, error)
        raise


@contextmanager
def said_if_slow(line: str) -> Iterator[None]:
    """Say something on standard error if what is done in this `with` takes long."""
    timer = threading.Timer(SILENT_S, lambda: err.print(line))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def become(command: list[str]) -> None:
    """Print the command and turn into it."""
    err.print(
        f"$ {shlex.join(['celery', *command[3:]])}", markup=False, highlight=False, soft_wrap=True
    )
    os.execv(command[0], command)  # noqa: S606 - our own command line


def pairs(given: list[str]) -> dict[str, str]:
    """Return KEY=VALUE arguments as a mapping. Raises `InvalidRequest`."""
    found = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"--meta takes KEY=VALUE, not {pair!r}")
        found[key] = value
    return found


def limits_of(**given: float | str | None) -> dict[str, float | str]:
    """Return what was given of the limits that a request's models must keep to."""
    return {name: limit for name, limit in given.items() if limit is not None}


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with explained():
        app()


if __name__ == "__main__":
    main()
