"""The pages say what is there: links lead somewhere, references are complete and right."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from modelyard.budgets import Budget
from modelyard.catalog import Breaker, Endpoint, Model, Price, Probe, Quota, Quotas, Retry
from modelyard.plan import Accept, AnswerCache, Combine
from modelyard.routes import Cache, Experiment, Rollback, Route, Rule, Stage, When
from modelyard.settings import Settings
from producer.cli import app
from producer.commands import model_command, router_command

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
CATALOG = (ROOT / "docs" / "catalog.md").read_text()

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def sections(page: str, level: int) -> dict[str, str]:
    """A page's sections by heading, without the code marks."""
    parts = re.split(rf"^{'#' * level} (.+)$", page, flags=re.MULTILINE)
    return {
        name.replace("`", ""): text for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def table(section: str) -> dict[str, str]:
    """The second column of a section's table by the first, both without code marks."""
    cells = (
        line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")
    )
    return {
        row[0].strip(" |").replace("`", ""): row[1].strip(" |").replace("`", "") for row in cells
    }


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(CODE.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        if re.match(r"https?://", path):
            continue
        found = (page.parent / path).resolve() if path else page
        there = found.is_relative_to(ROOT) and found.exists()
        if not there or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in LINK.findall(CODE.sub("", page.read_text())):
            found = (page.parent / target.partition("#")[0]).resolve()
            waiting += [found] if found.suffix == ".md" and found.exists() else []
            waiting += found.glob("*.md") if found.is_dir() else []
    assert set(PAGES) <= reached


def commands(group: Any, path: tuple[str, ...] = ("modelyard",)) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


ALL_COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_the_options_of_a_command_are_all_there_with_their_defaults(name: str) -> None:
    documented = table(sections(COMMANDS, 2)[name])
    actual = {}
    for option in ALL_COMMANDS[name].params:
        if option.param_type_name == "option" and option.name != "help":
            both = " / ".join([*option.opts, *option.secondary_opts])
            one = ", ".join(sorted(option.opts, key=len, reverse=True))
            actual[both if option.secondary_opts else one] = option

    assert documented.keys() == actual.keys()
    for flags, option in actual.items():
        if option.required:
            assert documented[flags] == "required"
        elif not option.is_flag and option.default not in {None, ()}:
            default = getattr(option.default, "value", option.default)
            assert documented[flags] == str(default), flags


def test_no_command_is_documented_that_does_not_exist() -> None:
    headings = {name for name in sections(COMMANDS, 2) if name.startswith("modelyard ")}
    assert headings == ALL_COMMANDS.keys()


def test_every_setting_is_there_with_its_default() -> None:
    documented = table(sections(COMMANDS, 2)["Settings"])

    assert documented.keys() == {f"MODELYARD_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        said = documented[f"MODELYARD_{name.upper()}"]
        if isinstance(field.default, bool):
            assert said == str(field.default).lower(), name
        elif isinstance(field.default, int | float):
            assert float(said) == field.default, name
        elif field.default is not None:
            assert said == str(field.default)


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ("A model", Model),
        ("A budget", Budget),
        ("An endpoint", Endpoint),
        ("price", Price),
        ("retry", Retry),
        ("breaker", Breaker),
        ("probe", Probe),
        ("quota", Quota),
        ("quotas", Quotas),
        ("A route", Route),
        ("A rule", Rule),
        ("cache", Cache),
        ("answer_cache", AnswerCache),
        ("when", When),
        ("accept", Accept),
        ("combine", Combine),
        ("An experiment", Experiment),
        ("A stage", Stage),
        ("rollback", Rollback),
    ],
)
def test_every_key_of_the_catalog_is_there_with_its_default(
    section: str, part: type[BaseModel]
) -> None:
    documented = table(sections(CATALOG, 2)[section])
    fields = {field.alias or name: field for name, field in part.model_fields.items()}
    if part is Endpoint:  # what nobody writes
        del fields["disabled"], fields["key_name"]

    assert documented.keys() == fields.keys()
    for name, field in fields.items():
        if field.is_required():
            assert documented[name] == "required", name
        elif isinstance(field.default, bool):
            assert documented[name] == str(field.default).lower(), name
        elif isinstance(field.default, int | float):
            assert float(documented[name]) == field.default, name
        else:
            assert documented[name] != "required", name


def test_the_numbers_in_the_keywords_row_are_the_routers() -> None:
    from router_worker.features import HEAD_CHARS, TAIL_CHARS

    row = next(line for line in CATALOG.splitlines() if line.startswith("| `keywords`"))
    assert f"{HEAD_CHARS:,}" in row
    assert f"{TAIL_CHARS:,}" in row


def test_the_glossary_is_in_order() -> None:
    words = re.findall(
        r"^\| \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE
    )
    assert words == sorted(set(words))
    assert len(words) > 20


def test_the_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(page.name[:4]) for page in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_example_is_run_by_some_page() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    for example in (ROOT / "examples").glob("*.py"):
        assert f"python examples/{example.name}" in pages, example.name


def test_the_celery_commands_are_those_that_worker_prints() -> None:
    page = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    for command in (router_command(), model_command("local-small")):
        assert shlex.join(["celery", *command[3:]]) + "\n" in page
