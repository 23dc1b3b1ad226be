"""The command that takes another program's configuration: `modelyard import`."""

import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from modelyard.catalog_file import load_catalog
from modelyard.errors import CatalogError, ModelyardError
from modelyard.price_file import read_prices
from modelyard.wording import counted
from producer.dead_export import give_name
from producer.display import err, plain, print_json
from producer.import_litellm import Imported, translate
from producer.litellm_file import read_config
from producer.options import AsJson
from producer.output import OutputFailed, UsageError, check_output_path, standard_output

importing = typer.Typer(
    help="Make a catalog of another program's configuration.", no_args_is_help=True
)


@importing.callback()
def importing_from() -> None:
    """Do nothing: what there is to do is in the commands. Without this, one command is no group."""


@importing.command()
def litellm(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="LiteLLM's config.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the catalog here; - is standard output."),
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="LiteLLM's price map: for models without costs.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a catalog that does what a config of LiteLLM does, and say what has no counterpart.

    Keys are not copied: those that stand in the config become ${NAME}.
    """
    path = None if output is None or str(output) == "-" else output
    if path is not None and not force and os.path.lexists(path):
        raise UsageError(f"{path} exists already: give another name, or --force to overwrite it")
    imported = translate(read_config(config), None if prices is None else read_prices(prices))
    check_loads(imported.text)
    if path is not None:
        write(path, imported.text, force=force)
    elif not as_json:
        with standard_output() as stream:
            stream.flush()
            stream.buffer.write(imported.text.encode())
            stream.buffer.flush()
    if as_json:
        said = {**asdict(imported), "catalog": imported.text, "file": path and str(path)}
        del said["text"]
        print_json(said)
    else:
        show(config, path, imported)


def show(config: Path, path: Path | None, imported: Imported) -> None:
    """Say what has no counterpart, on standard error, and what was made."""
    for each in imported.findings:
        told = f"{config}:{each.line}: {each.path}: {each.what}"
        err.print(told, markup=False, highlight=False, soft_wrap=True)
    if imported.variables:
        told = f"environment variables of the catalog: {', '.join(imported.variables)}"
        err.print(told, markup=False, highlight=False, soft_wrap=True)
    told = (
        f"{counted(len(imported.models), 'model')}, {counted(len(imported.routes), 'route')}, "
        f"{counted(len(imported.findings), 'finding')}"
    )
    if path is None:
        err.print(told, markup=False, highlight=False, soft_wrap=True)
    else:
        plain(f"{path}: {told}")


def check_loads(text: str) -> None:
    """Raise `ModelyardError` if this is no catalog: nothing is written then."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "catalog.yaml"
        draft.write_bytes(text.encode())
        try:
            load_catalog(draft, {})
        except CatalogError as error:
            told = str(error).replace(f"{draft}:", "line ")
            raise ModelyardError(
                f"the catalog that this config amounts to is refused; nothing was written\n{told}"
            ) from error


def write(path: Path, text: str, *, force: bool) -> None:
    """Write the catalog: all of it, or nothing. Raises `UsageError`, `OutputFailed`."""
    check_output_path(path)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        if force:
            draft.replace(path)
        else:
            give_name(draft, path)
    except OSError as error:
        raise OutputFailed(f"{path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
