"""The commands for dead letters: `modelyard dead list|show|replay|drop|export`."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import redis
import typer

from modelyard.app import make_app
from modelyard.catalog import suggestion
from modelyard.catalog_file import default_catalog
from modelyard.connect import connect
from modelyard.dead_entries import Entry, Filter
from modelyard.dead_letters import PAGE, DeadLetters
from modelyard.errors import ModelyardError
from modelyard.replay import Edit
from modelyard.settings import Settings, load_settings
from producer.dead_display import Tally, said, show_entry, show_list, show_missing, show_tally
from producer.dead_export import line, new_file
from producer.dead_options import (
    Ids,
    Limit,
    Metadata,
    NewerThan,
    OlderThan,
    Reasons,
    Routes,
    TriedModels,
    chosen,
    seconds,
)
from producer.display import err, plain, print_json
from producer.exit_codes import FAILED
from producer.options import AsJson
from producer.output import UsageError, standard_output
from producer.window import candidates

SILENT_S: Final = 10.0
"""A Redis that says nothing for so long is not there."""

dead = typer.Typer(
    help="Look through the requests that could not be answered, and replay or drop them.",
    no_args_is_help=True,
)


@dead.command("list")
def list_letters(
    reasons: Reasons = None,
    models: TriedModels = None,
    routes: Routes = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    metadata: Metadata = None,
    ids: Ids = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first, and how many there are of each reason.

    There is no prompt in it.
    """
    which = meant(
        ids=ids,
        reasons=reasons,
        models=models,
        routes=routes,
        older_than=older_than,
        newer_than=newer_than,
        metadata=metadata,
        now=time.time(),
    )
    with store() as (letters, settings):
        entries = list(letters.find(which, newest_first=True, limit=limit + 1))
        show_list(
            entries[:limit],
            letters.by_reason(),
            most=settings.dead_letter_limit,
            more=len(entries) > limit,
            now=time.time(),
            as_json=as_json,
        )
    told_of(missing(which, {entry.id for entry in entries}, limit))


@dead.command()
def show(
    id: Annotated[str, typer.Argument(help="The request's id.")], as_json: AsJson = False
) -> None:
    """Print one dead letter: the whole request, the decision and every attempt."""
    with store() as (letters, _):
        entry = letters.get(id)
    if entry is None:
        said(f"there is no dead letter {id}: replayed or dropped before?")
        raise typer.Exit(FAILED)
    show_entry(entry, time.time(), as_json)


@dead.command()
def replay(
    reasons: Reasons = None,
    models: TriedModels = None,
    routes: Routes = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    metadata: Metadata = None,
    ids: Ids = None,
    limit: Limit = None,
    to_route: Annotated[
        str | None, typer.Option(help="Let this route's rules decide instead.")
    ] = None,
    to_models: Annotated[
        list[str] | None,
        typer.Option("--to-model", help="Use this model; several are tried in order."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Worthless after that: 90s, 15m, 2h, 3d."),
    ] = None,
    no_deadline: Annotated[
        bool, typer.Option("--no-deadline", help="Take its deadline away.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put the requests of dead letters onto the queue again, under the same ids.

    Whoever still waits for one gets its answer.

    Each is one step: after Ctrl-C or even kill -9 the same command goes on.
    """
    which = meant(
        ids=ids,
        reasons=reasons,
        models=models,
        routes=routes,
        older_than=older_than,
        newer_than=newer_than,
        metadata=metadata,
        now=time.time(),
    )
    edit = Edit(
        route=to_route,
        models=tuple(to_models or ()),
        deadline_s=None if deadline is None else seconds(deadline),
        no_deadline=no_deadline,
    )
    if to_route or to_models:
        candidates(default_catalog(), to_route or "default", to_models or ())
    tally = Tally(dry_run)
    with store() as (letters, settings):
        most = settings.queue_limit
        try:
            for fate in letters.replay(
                which,
                edit,
                limit=limit,
                most=most,
                dry_run=dry_run,
                on_full=lambda queue: said(
                    f"{queue}, or a model's queue behind it, has {most:,} requests "
                    "(MODELYARD_QUEUE_LIMIT): waiting for room"
                ),
            ):
                tally.add(fate)
                if ids:
                    tally.seen.add(fate.id)
            tally.missing = missing(which, tally.seen, limit)
        except (redis.RedisError, OSError, KeyboardInterrupt):
            tally.stopped = True
            raise
        finally:
            show_tally(tally, as_json)
    if tally.refused or tally.missing:
        raise typer.Exit(FAILED)


@dead.command()
def drop(
    reasons: Reasons = None,
    models: TriedModels = None,
    routes: Routes = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    metadata: Metadata = None,
    ids: Ids = None,
    limit: Limit = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good. Whoever waits for them has been told that they failed."""
    which = meant(
        ids=ids,
        reasons=reasons,
        models=models,
        routes=routes,
        older_than=older_than,
        newer_than=newer_than,
        metadata=metadata,
        now=time.time(),
    )
    with store() as (letters, _):
        if not yes:
            which = confirmed(letters, which, limit)
        dropped = 0
        seen: set[str] = set()
        for some in in_pages(letters.find(which, limit=limit)):
            dropped += letters.drop(some)
            if ids:
                seen.update(entry.id for entry in some)
    gone = missing(which, seen, limit)
    if as_json:
        print_json({"dropped": dropped, "missing": gone})
    else:
        plain(f"{dropped:,} dropped")
    told_of(gone)


@dead.command()
def export(
    output: Annotated[
        str, typer.Argument(metavar="OUT.jsonl", help="A new file, or - for standard output.")
    ],
    reasons: Reasons = None,
    models: TriedModels = None,
    routes: Routes = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    metadata: Metadata = None,
    ids: Ids = None,
    limit: Limit = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Delete what was exported when it is safe on disk.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write dead letters to a file, one a line, oldest first.

    The file is there whole or not at all. It has the prompts in it.
    """
    which = meant(
        ids=ids,
        reasons=reasons,
        models=models,
        routes=routes,
        older_than=older_than,
        newer_than=newer_than,
        metadata=metadata,
        now=time.time(),
    )
    if output == "-" and (drop or as_json):
        raise UsageError("--drop and --json need a file: - is standard output")
    with store() as (letters, _):
        entries = letters.find(which, limit=limit)
        if output == "-":
            told_of(missing(which, print_lines(entries), limit))
            return
        written: list[tuple[str, float]] = []
        with new_file(Path(output)) as file:
            for entry in entries:
                file.write(line(entry))
                written.append((entry.id, entry.died_at))
        dropped = letters.drop_those(written) if drop else 0
    gone = missing(which, {id for id, _ in written}, limit)
    if as_json:
        told = {"file": output, "exported": len(written), "dropped": dropped, "missing": gone}
        print_json(told)
    else:
        plain(f"{len(written):,} exported to {output}" + (f", {dropped:,} dropped" if drop else ""))
    told_of(gone)


def meant(**options: Any) -> Filter:
    """Return what the options of a command mean, see `chosen`: an alias means its model.

    Says which models and routes the catalog does not have. Raises `UsageError`.
    """
    which = chosen(**options)
    if not which.models and not which.routes:
        return which
    try:
        catalog = default_catalog()
    except ModelyardError:
        return which  # letters can be read where the catalog can't
    models = frozenset(catalog.aliases.get(name, name) for name in which.models)
    known = {"model": {model.name for model in catalog.models}, "route": set(catalog.routes)}
    for what, names in (("model", models), ("route", which.routes)):
        for name in sorted(names - known[what]):
            near = suggestion(name, known[what])
            said(f"the catalog has no {what} {name!r}{near}: only older letters can be of it")
    return replace(which, models=models)


@contextmanager
def store() -> Iterator[tuple[DeadLetters, Settings]]:
    """Give the dead letters of the yard that `MODELYARD_BROKER_URL` names."""
    settings = load_settings()
    with make_app("modelyard.dead", None, settings, current=False) as app:
        url: str = app.conf.broker_url
    with connect(url, socket_timeout=SILENT_S, socket_connect_timeout=SILENT_S) as client:
        yield DeadLetters(client), settings


def confirmed(letters: DeadLetters, which: Filter, limit: int | None) -> Filter:
    """Ask, and return what was agreed to: not what dies after the question."""
    count, latest = 0, -math.inf
    for entry in letters.find(which, limit=limit):
        count, latest = count + 1, max(latest, entry.died_at)
    # Not typer.confirm: it writes a space to standard output, where programs read.
    if count and err.input(
        f"Delete {count:,} dead letters for good? [y/N] ", markup=False
    ).strip().lower() not in {"y", "yes"}:
        raise typer.Abort
    return replace(which, before=min(which.before, math.nextafter(latest, math.inf)))


def missing(which: Filter, seen: set[str], limit: int | None) -> list[str]:
    """Return the ids that were asked for and not met; none if the limit may have cut them off."""
    if limit is not None and len(seen) >= limit:
        return []
    return [id for id in dict.fromkeys(which.ids) if id not in seen]


def told_of(ids: Sequence[str]) -> None:
    """Say which ids were asked for in vain; the command failed if there are any."""
    if ids:
        show_missing(ids)
        raise typer.Exit(FAILED)


def in_pages(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Yield so many at a time as one step may drop."""
    while some := list(islice(entries, PAGE)):
        yield some


def print_lines(entries: Iterator[Entry]) -> set[str]:
    """Write letters to standard output, and return their ids."""
    ids: set[str] = set()
    with standard_output() as stream:
        stream.flush()
        for entry in entries:
            stream.buffer.write(line(entry))
            ids.add(entry.id)
        stream.buffer.flush()
    return ids
