"""The commands for experiments: `modelyard experiments list|back|again`."""

import time
from collections.abc import Callable
from typing import Annotated

import redis
import typer

from modelyard.address import broker_address
from modelyard.catalog import UnknownName
from modelyard.catalog_file import default_catalog
from modelyard.decision_ledger import BEGIN, last_id
from modelyard.settings import load_settings
from modelyard.standings import Standing, read_standing, stand, standings
from producer.broker import broker
from producer.display import err, plain, print_json
from producer.exit_codes import FAILED
from producer.experiment_display import show_experiment
from producer.options import AsJson
from producer.router_answer import ask_experiments

Name = Annotated[str, typer.Argument(help="The experiment's name in the catalog.")]

experiments = typer.Typer(
    help="See how experiments go, take one back or put it in force again.", no_args_is_help=True
)


@experiments.command("list")
def list_experiments(as_json: AsJson = False) -> None:
    """Say how the experiments of the catalog go: both arms with their figures, and the tests."""
    settings = load_settings()
    default_catalog(settings)
    broker_address(None, settings)
    said = ask_experiments()
    if as_json:
        print_json(said)
        return
    if not said:
        plain("the catalog has no experiments")
    for each in said:
        show_experiment(each)


@experiments.command()
def back(
    name: Name,
    why: Annotated[str | None, typer.Option(help="Kept with it, for those who ask.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take an experiment back: from the next half second on everybody gets the control."""
    known(name)
    with broker() as client:
        changed = change(client, name, lambda past: taken_back(past, why or ""))
    said(name, "taken back", changed, as_json)


@experiments.command()
def again(name: Name, as_json: AsJson = False) -> None:
    """Put an experiment that was taken back in force again. Its figures begin anew."""
    known(name)
    with broker() as client:
        changed = change(client, name, lambda past: in_force(past, last_id(client)))
    said(name, "in force", changed, as_json)


def known(name: str) -> None:
    """Raise `UnknownName` for an experiment that the catalog does not have."""
    names = {each.name for route in default_catalog().routes.values() for each in route.experiments}
    if name not in names:
        raise UnknownName("experiment", name, names)


def change(
    client: redis.Redis, name: str, to: Callable[[Standing | None], Standing | None]
) -> bool:
    """Set how an experiment stands; False if it stood like that before."""
    while True:
        raw = standings(client).get(name)
        standing = to(read_standing(name, raw) if raw is not None else None)
        if standing is None:
            return False
        # A router may have taken it back in between: then that is what is changed.
        if stand(client, name, standing, raw):
            return True


def taken_back(past: Standing | None, why: str) -> Standing | None:
    """Return how an experiment stands once it is taken back; None if it is."""
    if past is not None and past.is_back:
        return None
    after = past.after if past else BEGIN
    return Standing(state="taken back", at=time.time(), by="hand", why=why, after=after)


def in_force(past: Standing | None, after: str) -> Standing | None:
    """Return how an experiment stands once it is in force again; None if it is."""
    if past is None or not past.is_back:
        return None
    return Standing(state="in force", at=time.time(), by="hand", after=after)


def said(name: str, state: str, changed: bool, as_json: bool) -> None:
    """Print what was done."""
    if as_json:
        print_json({"name": name, "state": state, "changed": changed})
    elif changed:
        plain(f"experiment {name}: {state}")
    else:
        err.print(f"experiment {name}: it is {state} already", markup=False, highlight=False)
    if not changed:
        raise typer.Exit(FAILED)
