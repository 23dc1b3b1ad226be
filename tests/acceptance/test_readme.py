"""Every command and program in README and docs does what it says it does.

Each fenced block is run as it stands, page by page and in the page's order, in a folder that looks
like a checkout, beside a yard of `modelyard up`. What can't be run so is in `SPECIAL`, with the
reason and what is checked instead. A command that is in neither list fails.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from waiting import eventually

from modelyard import Client, Request
from modelyard.app import make_app
from modelyard.catalog_file import load_catalog
from modelyard.embedded_redis import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LIKE_A_CHECKOUT = ("Makefile", "config", "docker-compose.yml", "examples")

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
KINDS = {"bash", "python", "yaml", "json", "mermaid"}

RUN = (
    *("modelyard summarize", "modelyard batch run", "modelyard submit", "modelyard result"),
    *("modelyard explain", "modelyard models", "modelyard check", "modelyard health"),
    *("modelyard dead list", "modelyard dead show", "modelyard dead replay"),
    *("modelyard dead drop", "modelyard dead export", "modelyard inbox list"),
    *("modelyard experiments", "modelyard feedback", "modelyard ledger", "modelyard replay"),
    *("modelyard train", "modelyard evaluate", "modelyard budgets", "modelyard plan"),
    *("modelyard endpoints", "modelyard scale-metrics --once"),
    *("celery -A modelyard inspect", "celery -A modelyard control", "python examples/"),
    *("cp config/catalog.yaml ", "cat > ", "id=$(modelyard submit", "export MODELYARD_CATALOG="),
)
"""How the commands begin that run as they stand."""


@dataclass(frozen=True)
class Desk:
    """Where a reader sits: a folder, and an environment with a running yard."""

    folder: Path
    env: dict[str, str]

    def run(self, *command: str) -> str:
        """Run a command that must succeed and end, and return what it said."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (
            f"{shlex.join(command)}\nended with {done.returncode}:\n{done.stdout}"
        )
        return done.stdout


# What is not run as it stands


def target_exists(command: str, desk: Desk) -> None:
    """It takes minutes and CI runs it anyway: make says what it would do."""
    said = desk.run("make", "-n", "-C", str(ROOT), *shlex.split(command, comments=True)[1:])
    assert ".venv/bin/" in said


def options_are_right(command: str, desk: Desk) -> None:
    """It runs until it is stopped, and other tests start it: its options are read."""
    desk.run(*shlex.split(command, comments=True), "--help")


def inbox_command_is_right(command: str, desk: Desk) -> None:
    """Nothing waits for people here, and test_people.py answers: its options are read."""
    options_are_right(command.partition(" < ")[0], desk)


def starts_and_ends(command: str, desk: Desk) -> None:
    """It runs until it is stopped: it says that it is ready, and ends when told to."""
    process = subprocess.Popen(
        shlex.split(command, comments=True),
        cwd=desk.folder,
        env=desk.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(process.stdout,))
    reader.start()
    try:
        eventually(
            lambda: any(" ready." in line for line in lines) or process.poll() is not None,
            timeout_s=60,
            message=f"{command} is ready",
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        reader.join()
        process.stdout.close()
    assert process.returncode == 0, "".join(lines)


def storm_exists(command: str, desk: Desk) -> None:
    """It takes a minute, and other tests run storms: its options and the storm's name are read."""
    words = shlex.split(command, comments=True)
    module = subprocess.run(
        [sys.executable, *words[1:3], "--help"],
        cwd=ROOT / "tests",
        env=desk.env,
        capture_output=True,
        text=True,
        check=True,
    )
    said = re.sub(r"\s+", " ", module.stdout)
    for option in words[3:]:
        assert not option.startswith("--") or option in said
    assert re.search(rf"[{{,]{words[words.index('--storm') + 1]}[,}}]", said)


def services_exist(command: str, desk: Desk) -> None:
    """No Docker here, and test_compose.py runs the services: the names in it are read."""
    services = yaml.safe_load((desk.folder / "docker-compose.yml").read_text())["services"]
    scaled = re.findall(r"--scale (\S+)=\d+", command)
    assert set(scaled) <= services.keys()
    assert "FLOWER_BASIC_AUTH=" in command or "up" not in command.split()


def is_an_address(command: str, desk: Desk) -> None:
    """The reader's own broker: this test has another one."""
    url = shlex.split(command, comments=True)[1].partition("=")[2]
    make_app("readme", url, current=False).close()


def is_a_key_of_the_catalog(command: str, desk: Desk) -> None:
    """The reader's own key: with it, the models of the default catalog that want it are there."""
    name, _, value = shlex.split(command)[1].partition("=")
    path = ROOT / "config" / "catalog.yaml"
    without, with_key = load_catalog(path, {}), load_catalog(path, {name: value})
    assert len(with_key.live_models) > len(without.live_models)


def is_where_make_puts_it(command: str, desk: Desk) -> None:
    """The environment of this test is what it would activate."""
    assert command.split()[1] == ".venv/bin/activate"
    assert "-m venv --clear .venv" in (ROOT / "Makefile").read_text()


Check = Callable[[str, Desk], None]

SPECIAL: Sequence[tuple[str, Check]] = (
    (r"make \w+", target_exists),
    (r"modelyard up\b", options_are_right),
    (r"modelyard scale-metrics --host", options_are_right),
    (r"python -m chaos\b", storm_exists),
    (r"modelyard dead show\b", options_are_right),
    (r"modelyard inbox (show|answer|decline)\b", inbox_command_is_right),
    (r"modelyard worker (router|model)\b", starts_and_ends),
    (r"celery -A (router_worker|model_workers) worker\b", starts_and_ends),
    (r"celery -A modelyard flower\b", options_are_right),
    (r"(\w+=\S+ )?docker compose ", services_exist),
    (r"export MODELYARD_BROKER_URL=", is_an_address),
    (r"export OPENAI_API_KEY=", is_a_key_of_the_catalog),
    (r"\. \.venv/bin/activate$", is_where_make_puts_it),
)


# The blocks


def special(command: str) -> Check | None:
    """What to do with a command instead of running it; None: it is run."""
    return next((check for pattern, check in SPECIAL if re.match(pattern, command)), None)


def commands(block: str) -> Iterator[str]:
    """The commands of a shell block: here-documents and continued lines are one command."""
    lines = iter(block.splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        whole = [line]
        while whole[-1].endswith("\\"):
            whole.append(next(lines))
        if here := re.search(r"<<'(\w+)'", line):
            while whole[-1] != here[1]:
                whole.append(next(lines))
        yield "\n".join(whole)


def run_shell(block: str, desk: Desk) -> None:
    """Run a block as one script, without the commands that are checked in another way."""
    script = ["set -euo pipefail"]
    for command in commands(block):
        check = special(command)
        if check is not None:
            check(command, desk)
            continue
        assert command.startswith(RUN), f"this test does not know how to run: {command}"
        script.append(command)
    desk.run("bash", "-c", "\n".join(script))


def run_python(block: str, desk: Desk) -> None:
    """Run a block as a program."""
    desk.run(sys.executable, "-W", "error", "-c", block)


def load_yaml(block: str, desk: Desk) -> None:
    """Read a block as a catalog, with every variable in it set, or as what Kubernetes gets."""
    read = yaml.safe_load(block)
    if "apiVersion" in read:
        assert {"kind", "metadata", "spec"} <= read.keys()
        pods = read["spec"].get("template", {}).get("spec", {})
        for container in pods.get("containers", ()):
            options_are_right(shlex.join(container["args"]), desk)
        return
    if "groups" in read:
        alerts_are_right(read["groups"])
        return
    if "containers" in read:
        for container in read["containers"]:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    options_are_right(shlex.join(container[probe]["exec"]["command"]), desk)
        return
    path = desk.folder / "block.yaml"
    path.write_text(block)
    names = re.findall(r"\$\{(\w+)\}", block)
    catalog = load_catalog(path, dict.fromkeys(names, "value"))
    assert all(model.disabled is None for model in catalog.models)


def alerts_are_right(groups: Sequence[Mapping[str, Any]]) -> None:
    """Whether rules of Prometheus ask for metrics that there are."""
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules and all(rule.keys() >= {"alert", "expr"} for rule in rules)
    asked = {name for rule in rules for name in re.findall(r"modelyard_\w+", rule["expr"])}
    served = (ROOT / "producer" / "scale_prometheus.py").read_text()
    assert asked and all(f'"{name}"' in served for name in asked)


def decode_json(block: str, desk: Desk) -> None:
    """Read a block as a request, or as a report of the yard's health."""
    shown = json.loads(block)
    if "findings" in shown:
        said = json.loads(desk.run("modelyard", "health", "--json"))
        assert shown.keys() == said.keys()
        assert shown["nodes"][0].keys() == said["nodes"][0].keys()
        return
    Request.decode(TypeAdapter(dict[str, object]).validate_json(block))


def skip(block: str, desk: Desk) -> None:
    """A picture."""


RUNNERS: dict[str, Callable[[str, Desk], None]] = {
    "bash": run_shell,
    "python": run_python,
    "yaml": load_yaml,
    "json": decode_json,
    "mermaid": skip,
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: kind and text."""
    return BLOCK.findall(page.read_text())


# The tests


@pytest.fixture(scope="module")
def yard_env(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of a reader: our programs on PATH, no key, and a yard of `modelyard up`.

    `redis_server` says in one way where no Redis can be started; the yard has its own.
    """
    bin = str(Path(sys.executable).parent)
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MODELYARD_") and name != "OPENAI_API_KEY"
    }
    env |= {"PATH": os.pathsep.join([bin, env.get("PATH", "")]), "MODELYARD_SHUTDOWN_GRACE_S": "10"}
    state = tmp_path_factory.mktemp("state")
    up = subprocess.Popen(
        ["modelyard", "up", "--no-flower", "--json", "--state-dir", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert up.stdout is not None
    try:
        url = json.loads(up.stdout.readline())["broker_url"]
        with Client(url) as client:
            for model in ("local-small", "local-large"):
                client.submit("Summarize: One. Two.", models=[model]).result(60)
        yield {**env, "MODELYARD_BROKER_URL": url}
    finally:
        up.send_signal(signal.SIGTERM)
        said = up.communicate(timeout=60)
    assert up.returncode == 0, said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_can_be_done(page: Path, yard_env: dict[str, str], tmp_path: Path) -> None:
    for name in LIKE_A_CHECKOUT:
        (tmp_path / name).symlink_to(ROOT / name)
    desk = Desk(tmp_path, yard_env)
    for kind, text in blocks(page):
        RUNNERS[kind](text, desk)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text()
    assert {kind for kind, _ in blocks(page)} <= KINDS
    # An indented or unclosed fence would not be found, and so not be run.
    assert text.count("```") == 2 * len(blocks(page))


def test_a_command_that_nobody_knows_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="does not know how to run: frobnicate"):
        run_shell("frobnicate --all\n", Desk(tmp_path, dict(os.environ)))


def test_a_command_that_fails_is_not_passed_over(tmp_path: Path) -> None:
    desk = Desk(
        tmp_path, {**os.environ, "PATH": str(Path(sys.executable).parent) + ":/usr/bin:/bin"}
    )
    with pytest.raises(AssertionError, match="ended with 2"):
        run_shell("modelyard check nowhere.yaml\ncat > later </dev/null\n", desk)
    assert not (tmp_path / "later").exists()
    with pytest.raises(AssertionError, match="ended with 2"):
        run_shell("modelyard up --flowers\n", desk)


def test_the_readme_has_the_two_commands_and_a_picture() -> None:
    found = blocks(ROOT / "README.md")
    shell = [command for kind, text in found if kind == "bash" for command in commands(text)]
    assert [command.split("#")[0].strip() for command in shell[:2]] == ["make demo", "make test"]
    assert "mermaid" in {kind for kind, _ in found}
