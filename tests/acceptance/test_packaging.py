"""The wheel and the editable install: both find their data and shadow nobody's modules."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelyard import __version__

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Installed:
    """A Python that has modelyard, and the folder that its default catalog must come from."""

    python: Path
    config: Path

    def run(self, *arguments: str, folder: Path) -> str:
        """Run `python ARGUMENTS` in `folder` and return its standard output."""
        return output(str(self.python), *arguments, folder=folder)

    def modelyard(self, *arguments: str, folder: Path) -> str:
        """Run the command `modelyard ARGUMENTS` in `folder` and return its standard output."""
        return output(str(self.python.with_name("modelyard")), *arguments, folder=folder)


def output(*command: str, folder: Path) -> str:
    """Run a command that must succeed, and return its standard output."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MODELYARD_", "PYTHON"))
    }
    ran = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{command}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    output(*build, folder=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    """The wheel."""
    (wheel,) = distributions.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def from_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A new virtual environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    output(sys.executable, "-m", "venv", "--without-pip", str(folder), folder=ROOT)
    python = folder / "bin" / "python"
    output(
        *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"),
        *("--no-deps", "--no-index", str(wheel)),
        folder=folder,
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    # The requirements are those of this environment. A folder that a .pth file adds has no .pth
    # files of its own, so the editable modelyard there is not seen.
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(python, packages / "modelyard" / "config")


@pytest.fixture(scope="module", params=["wheel", "editable install"])
def installed(request: pytest.FixtureRequest) -> Installed:
    """Each way of having modelyard."""
    if request.param == "wheel":
        from_wheel: Installed = request.getfixturevalue("from_wheel")
        return from_wheel
    return Installed(Path(sys.executable), ROOT / "config")


def test_the_wheel_holds_the_packages_and_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    top = {name.split("/", 1)[0] for name in names}

    assert top == {
        "modelyard",
        "producer",
        "router_worker",
        "model_workers",
        f"modelyard-{__version__}.dist-info",
    }
    assert {
        "modelyard/py.typed",
        "modelyard/config/catalog.yaml",
        "modelyard/config/redis.conf",
        "modelyard/config/flowerconfig.py",
    } <= set(names)
    assert not [name for name in names if "test_" in name]


def test_the_default_catalog_is_found_from_any_folder(installed: Installed, tmp_path: Path) -> None:
    said = json.loads(installed.modelyard("check", "--json", folder=tmp_path))

    assert said["ok"]
    assert Path(said["file"]).resolve() == (installed.config / "catalog.yaml").resolve()


def test_a_request_is_explained_from_any_folder(installed: Installed, tmp_path: Path) -> None:
    said = json.loads(installed.modelyard("explain", "Summarize: x", "--json", folder=tmp_path))

    assert said["intent"] == "summarize"
    assert said["plan"]["steps"]


def test_a_service_keeps_its_own_config_module(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("NAME = 'the service'\n")
    (tmp_path / "service.py").write_text(
        "from modelyard import Client\n"
        "import config\n"
        "with Client('redis://localhost:1/0') as yard:\n"
        "    print(config.NAME, type(yard).__module__)\n"
    )

    assert installed.run("service.py", folder=tmp_path) == "the service modelyard.client\n"


def test_importing_modelyard_imports_nothing_heavy(installed: Installed, tmp_path: Path) -> None:
    loaded = installed.run(
        "-c", "import sys, modelyard; print(*sorted(sys.modules))", folder=tmp_path
    ).split()

    assert "modelyard" in loaded
    assert not {"celery", "kombu", "redis", "httpx", "pydantic", "yaml"} & set(loaded)


def test_there_is_no_config_module(from_wheel: Installed, tmp_path: Path) -> None:
    find = "from importlib.util import find_spec; print(find_spec('config'))"

    assert from_wheel.run("-c", find, folder=tmp_path) == "None\n"
