"""`modelyard health`: whether a yard, one worker or a queue is well, as an exit code and as text.

Probes run this often, so what it does not need is not imported: the catalog and the settings only
when the whole yard is asked about, and Celery never.
"""

import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from modelyard.errors import ModelyardError, SettingsError
from modelyard.finding import Level
from modelyard.health import Limits, Report, Scope, Snapshot, judge
from modelyard.names import BATCH_PREFIX, model_queue
from modelyard.snapshot import open_client, problem_of, take_snapshot
from producer.options import AsJson

if TYPE_CHECKING:
    from modelyard.catalog import Catalog

UNHEALTHY: Final = 1
STYLES: Final = {
    Level.HEALTHY: "green",
    Level.WARNING: "yellow",
    Level.ALERT: "magenta",
    Level.UNHEALTHY: "red",
}

NO_BROKER: Final = (
    "no broker: set MODELYARD_BROKER_URL to a Redis address such as redis://localhost:6379/0"
)


def health(
    node: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this worker, e.g. router: the one on this host (router@%h)."
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-Q", help="Only whether this queue has a worker; repeatable."),
    ] = None,
    liveness: Annotated[
        bool,
        typer.Option(
            "--liveness",
            help="For a liveness probe: a broker that is away is not the node's fault.",
        ),
    ] = False,
    alerts_fail: Annotated[
        bool,
        typer.Option(
            "--alerts-fail",
            help="Exit code 1 for alerts, too: for whoever calls a person, never for a probe.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether the yard is well. Exit code 1 if it is not; alerts want a person and leave it 0.

    An alert is an endpoint that denies our calls (key, bill, spend limit), a model none of whose
    endpoints answers, a budget that is spent, a nearly full store of dead letters.
    """
    if liveness and node is None:
        raise typer.BadParameter("--liveness needs --node", param_hint="--liveness")
    if alerts_fail and (node is not None or queue):
        raise typer.BadParameter("only the whole yard has alerts", param_hint="--alerts-fail")
    scope = Scope(node and node_name(node), tuple(queue or ()))
    report = examine(scope)
    excused = liveness and bool(report.snapshot.broker.problem)
    if as_json:
        show_json(report)
    elif scope.yard:
        show_yard(report)
    else:
        show_scope(report)
    alarming = alerts_fail and report.level is Level.ALERT
    if (not report.healthy and not excused) or alarming:
        raise typer.Exit(UNHEALTHY)


def examine(scope: Scope) -> Report:
    """Ask the broker and judge what it says. Raises `SettingsError` and `CatalogError`."""
    if scope.node is not None and not scope.queues:
        snapshot = take_snapshot(broker_url(os.environ.get("MODELYARD_BROKER_URL")), scope)
        return judge(snapshot, snapshot.at, scope)
    # Half a second of imports, which a container's own probe does without.
    from modelyard.catalog_file import default_catalog  # noqa: PLC0415
    from modelyard.settings import load_settings  # noqa: PLC0415
    from modelyard.stranded import advice  # noqa: PLC0415

    settings = load_settings()
    catalog = default_catalog(settings)
    limits = Limits(settings.queue_limit, settings.dead_letter_limit)
    # People have no worker, and nothing is wrong with that.
    people, queues = (
        [
            model_queue(model.name, batch=batch)
            for model in catalog.models
            if model.is_people is are_people
            for batch in (False, True)
        ]
        for are_people in (True, False)
    )
    url = broker_url(settings.broker_url)
    snapshot = take_snapshot(url, scope, queues, settings.lease_s, apart=people)
    told = (replace(each, advice=advice(each.name, catalog)) for each in snapshot.queues)
    snapshot = replace(snapshot, queues=tuple(told))
    if scope.yard and not snapshot.broker.problem:
        snapshot = with_news(snapshot, url, catalog)
    return judge(snapshot, snapshot.at, scope, limits)


def with_news(snapshot: Snapshot, url: str, catalog: "Catalog") -> Snapshot:
    """Return the snapshot with what Redis knows of the catalog's endpoints and budgets."""
    import redis  # noqa: PLC0415

    from modelyard.news import read_news  # noqa: PLC0415

    try:
        with open_client(url) as client:
            return replace(snapshot, news=read_news(client, catalog))
    except (redis.RedisError, OSError) as error:
        return replace(snapshot, broker=replace(snapshot.broker, problem=problem_of(error)))


def broker_url(url: str | None) -> str:
    """Return the address, if it is set. Raises `SettingsError`."""
    if not url:
        raise SettingsError(NO_BROKER)
    return url


def node_name(name: str, host: str | None = None) -> str:
    """Return a node's whole name; `%h` is this host, and so is a name without one, as in Celery."""
    host = host or socket.gethostname()
    name = name.replace("%h", host)
    return name if "@" in name else f"{name}@{host}"


def show_json(report: Report) -> None:
    """Print one line of JSON."""
    from producer.output import print_line  # noqa: PLC0415

    print_line(report.as_json())


def show_scope(report: Report) -> None:
    """Print a line for what was asked about, and one for each finding: logs of probes are short."""
    from producer.output import standard_output  # noqa: PLC0415

    lines = [f"{each.about}: {each.level}: {each.message}" for each in report.findings]
    if not report.snapshot.broker.problem:
        for beat in report.snapshot.beats:
            if report.scope.node == beat.node and not lines:
                looked_s = report.now - beat.consumed_at
                lines.append(
                    f"{beat.node}: healthy: {report.states[beat.node]} {', '.join(beat.queues)}, "
                    f"{beat.in_flight} in flight, looked for messages {looked_s:.1f} s ago"
                )
        for name in report.scope.queues:
            nodes = report.consumers(name)
            if nodes:
                lines.append(f"{name}: healthy: consumed by {', '.join(nodes)}")
    with standard_output() as stream:
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()


def show_yard(report: Report) -> None:
    """Print tables of workers and queues, and below what was found."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from producer.output import console  # noqa: PLC0415

    out, snapshot = console(), report.snapshot
    if snapshot.beats:
        nodes = Table(box=box.SIMPLE, pad_edge=False)
        nodes.add_column("worker")
        nodes.add_column("state", no_wrap=True)
        for column in ("beat", "looked", "in flight", "MiB"):
            nodes.add_column(column, justify="right", no_wrap=True)
        for beat in snapshot.beats:
            nodes.add_row(
                Text(beat.node),
                Text(report.states[beat.node]),
                f"{report.now - beat.at:.0f} s",
                f"{report.now - beat.consumed_at:.0f} s",
                f"{beat.in_flight:,}/{beat.prefetch:,}" if beat.prefetch else f"{beat.in_flight:,}",
                "" if beat.rss_bytes is None else f"{beat.rss_bytes / 2**20:,.0f}",
            )
        out.print(nodes)
    if snapshot.queues:
        queues = Table(box=box.SIMPLE, pad_edge=False)
        queues.add_column("queue")
        for column in ("waiting", "limit", "oldest", "workers"):
            queues.add_column(column, justify="right", no_wrap=True)
        for queue in snapshot.queues:
            consumers = len(report.consumers(queue.name))
            if queue.length or consumers or not queue.name.startswith(BATCH_PREFIX):
                age = queue.submitted_at and report.now - queue.submitted_at
                queues.add_row(
                    Text(queue.name),
                    f"{queue.length:,}",
                    f"{report.limits.queue:,}" if report.limits.queue else "none",
                    "" if age is None else f"{age:,.0f} s",
                    f"{consumers:,}",
                )
        out.print(queues)
    if not snapshot.broker.problem:
        bound = f" of {report.limits.dead_letters:,}" if report.limits.dead_letters else ""
        out.print(
            f"{snapshot.claims:,} messages in workers' hands, "
            f"{snapshot.dead_letters:,}{bound} dead letters",
            highlight=False,
        )
    out.print(Text(report.level, style=STYLES[report.level]))
    for finding in report.findings:
        words = f"{finding.about}: {finding.message}"
        out.print(Text(f"  {words}", style=STYLES[finding.level]), soft_wrap=True)


app = typer.Typer(
    name="modelyard",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="`modelyard health` alone, without the imports of all the other commands.",
)
app.command()(health)


@app.callback()
def modelyard() -> None:
    """Keep `health` a command: an app with one command would take its name away."""


def main() -> None:
    """Run the command: `python -m producer.health health`, or what `producer.__main__` does."""
    try:
        app()
    except (ModelyardError, OSError):
        # What explains an error imports the client, and only an error needs it.
        from producer.exit_codes import explained  # noqa: PLC0415

        with explained():
            raise


if __name__ == "__main__":
    main()
