"""The commands for people: `modelyard inbox list|show|answer|decline`."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final

import redis
import typer

from modelyard.address import broker_address
from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.connect import connect
from modelyard.inbox import PERSON, Inbox
from modelyard.inbox_events import tell
from modelyard.inbox_item import Item
from modelyard.names import queue_model
from modelyard.settings import Settings, load_settings
from modelyard.stranded import unserved_queues
from producer.display import err, plain, print_json
from producer.inbox_display import show_item, show_waiting
from producer.options import AsJson
from producer.output import UsageError

SILENT_S: Final = 10.0
"""A Redis that says nothing for so long is not there."""

inbox = typer.Typer(
    help="Answer the requests that wait for people: those of models with provider: people.",
    no_args_is_help=True,
)

Id = Annotated[str, typer.Argument(help="The request's id, as list has it.")]
By = Annotated[str, typer.Option(help="Who you are: the answer's provider_model.")]


@inbox.command("list")
def list_waiting(
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Only what waits for these people.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most, oldest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what waits for people: urgent requests first, then by age. There is no prompt in it."""
    with opened(models or ()) as (waiting, _, _):
        items = waiting.waiting(limit + 1)
        show_waiting(
            items[:limit],
            waiting.counts(),
            more=len(items) > limit,
            now=time.time(),
            as_json=as_json,
        )


@inbox.command()
def show(id: Id, as_json: AsJson = False) -> None:
    """Print one request whole, and what models answered before it came to people."""
    with opened() as (waiting, _, _):
        show_item(waiting.find(id), time.time(), as_json)


@inbox.command()
def answer(
    id: Id,
    text: Annotated[
        str, typer.Argument(help="The answer, or - to read standard input, as without one.")
    ] = "-",
    by: By = PERSON,
    as_json: AsJson = False,
) -> None:
    """Answer a request. Whoever waits for it gets the answer at once."""
    with opened() as (waiting, url, settings):
        if text == "-":
            waiting.find(id)  # before anybody types
            if sys.stdin.isatty():
                err.print("Write the answer and end it with Ctrl-D:")
            text = sys.stdin.read().strip()
        item = waiting.answer(id, text, by)
        tell(url, settings, item, end="task-succeeded", result=f"{by} answered", runtime=0.0)
    done(item, "answered", by, as_json)


@inbox.command()
def decline(
    id: Id,
    why: Annotated[str, typer.Option(help="Why nobody answers it: its client is told.")],
    by: By = PERSON,
    as_json: AsJson = False,
) -> None:
    """Say that nobody will answer a request: it becomes a dead letter (refused)."""
    with opened() as (waiting, url, settings):
        item = waiting.decline(id, why, by)
        told = {"exception": "RequestFailed(refused)", "traceback": ""}
        tell(url, settings, item, end="task-failed", **told)
    done(item, "declined", by, as_json)


@contextmanager
def opened(models: Sequence[str] = ()) -> Iterator[tuple[Inbox, str, Settings]]:
    """Give the inbox of some people models, or of all that there are, and where it is.

    What waits where no worker is, for a model that the catalog does not have, is people's, too:
    it may have been theirs, and nobody else answers it. Raises `UsageError` where there is nothing
    of people, `UnknownName`, `SettingsError` and `CatalogError`.
    """
    settings = load_settings()
    catalog = default_catalog(settings)
    people = [model.name for model in catalog.models if model.is_people]
    url = broker_address(None, settings)
    with connect(url, socket_timeout=SILENT_S, socket_connect_timeout=SILENT_S) as client:
        gone = gone_models(client, catalog)
        for name in models:
            if name not in gone and not catalog.model(name).is_people:
                raise UsageError(f"model {name!r} is no people's: its workers answer")
        if not people and not gone:
            raise UsageError(
                f"{settings.catalog_path} has no model with provider: people (MODELYARD_CATALOG)"
            )
        names = list(dict.fromkeys(models)) or [*people, *gone]
        yield Inbox(client, names, settings), url, settings


def gone_models(client: redis.Redis, catalog: Catalog) -> list[str]:
    """Return the models that the catalog does not have, under any name, and for which requests wait
    that no worker takes. Raises `redis.RedisError`.
    """
    names = {queue_model(queue) or "" for queue in unserved_queues(client, catalog)}
    return sorted(names.difference(catalog.aliases))


def done(item: Item, what: str, by: str, as_json: bool) -> None:
    """Say what was done."""
    if as_json:
        print_json({"id": item.id, "model": item.model, "by": by, what: True})
    else:
        plain(f"request {item.id}: {what}")
