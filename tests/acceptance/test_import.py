"""`modelyard import`, as one uses it."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelyard.catalog_file import load_catalog

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "how-to" / "from-litellm.md").read_text()
SECRET = "sk-ant-T0psecret"
CONFIG = f"""\
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, rpm: 100}}
  - model_name: claude
    litellm_params:
      model: anthropic/claude-3-haiku-20240307
      api_key: {SECRET}
router_settings:
  fallbacks: [{{gpt-4o: [claude]}}]
general_settings:
  master_key: {SECRET}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def modelyard(
    *arguments: object, folder: Path | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-m", "producer", *map(str, arguments)],
        env=clean,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_a_config_becomes_a_catalog_that_check_accepts(config: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.yaml"
    done = modelyard("import", "litellm", config, "-o", catalog)

    assert "2 models, 3 routes" in done.stdout
    assert f"{config}:7: model_list[1].litellm_params.api_key:" in done.stderr
    assert "general_settings.master_key" in done.stderr
    assert "ANTHROPIC_API_KEY, OPENAI_API_KEY" in done.stderr
    said = json.loads(modelyard("check", catalog, "--json").stdout)
    assert said["ok"]
    assert list(said["models"]) == ["gpt-4o", "claude"]
    assert SECRET not in catalog.read_text()


@pytest.mark.parametrize("output", [(), ("-o", "-")])
def test_without_a_file_the_catalog_is_all_of_standard_output(
    config: Path, tmp_path: Path, output: tuple[str, ...]
) -> None:
    done = modelyard("import", "litellm", config, *output, folder=tmp_path)

    assert [each["name"] for each in yaml.safe_load(done.stdout)["models"]] == ["gpt-4o", "claude"]
    assert "2 models, 3 routes" in done.stderr
    assert list(tmp_path.iterdir()) == [config]


def test_for_programs_all_of_it_is_one_object(config: Path, tmp_path: Path) -> None:
    said = json.loads(modelyard("import", "litellm", config, "--json").stdout)

    assert said["models"] == ["gpt-4o", "claude"]
    assert said["routes"] == ["default", "gpt-4o", "claude"]
    assert said["variables"] == ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"]
    assert {"path", "line", "what"} == said["findings"][0].keys()
    assert said["file"] is None
    path = tmp_path / "catalog.yaml"
    path.write_text(said["catalog"])
    assert load_catalog(path, {"ANTHROPIC_API_KEY": "k"}).model("claude").live_endpoints


def test_a_file_that_is_there_is_overwritten_only_by_force(config: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text("mine")

    refused = modelyard("import", "litellm", config, "-o", catalog, code=2)
    assert "exists already" in refused.stderr
    assert catalog.read_text() == "mine"
    modelyard("import", "litellm", config, "-o", catalog, "--force")
    assert load_catalog(catalog, {}).models
    assert sorted(tmp_path.iterdir()) == [catalog, config]


def test_a_catalog_is_readable_for_whoever_may_read_new_files(config: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.yaml"
    modelyard("import", "litellm", config, "-o", catalog)
    assert stat.S_IMODE(catalog.stat().st_mode) == stat.S_IMODE(config.stat().st_mode)


def test_prices_come_from_a_price_map(config: Path, tmp_path: Path) -> None:
    prices, catalog = tmp_path / "prices.json", tmp_path / "catalog.yaml"
    prices.write_text('{"gpt-4o": {"input_cost_per_token": 2.5e-06, "max_input_tokens": 128000}}')
    done = modelyard("import", "litellm", config, "-o", catalog, "--prices", prices)

    assert load_catalog(catalog, {}).model("gpt-4o").price.input_usd_per_mtok == 2.5
    assert "model_list[1]: is not in the price file" in done.stderr


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("model_list: [", ":1: not valid YAML"),
        ("model_list: !!python/object:os.system x", ":1: tags"),
        ("models: []", ":1: model_list: is missing"),
        (f"a: 1\nmodel_list: &x {{api_key: {SECRET}, a: *x}}", ":2: nested too deeply"),
    ],
)
def test_a_wrong_config_is_exit_code_2_with_the_line(
    config: Path, tmp_path: Path, content: str, error: str
) -> None:
    config.write_text(content)
    catalog = tmp_path / "catalog.yaml"
    done = modelyard("import", "litellm", config, "-o", catalog, code=2)
    assert f"{config}{error}" in done.stderr
    assert not catalog.exists()


def test_wrong_paths_are_exit_code_2(config: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert "can't be read" in modelyard("import", "litellm", nowhere, code=2).stderr
    arguments = ("import", "litellm", config)
    assert "can't be read" in modelyard(*arguments, "--prices", nowhere, code=2).stderr
    assert "no folder" in modelyard(*arguments, "-o", nowhere / "c.yaml", code=2).stderr


def test_the_guides_example_does_what_the_guide_says(tmp_path: Path) -> None:
    written = re.search(r"cat > config.yaml <<'END'\n(.*?)^END$", GUIDE, re.DOTALL | re.MULTILINE)
    command = re.search(r"`(modelyard import litellm .*?)`", GUIDE)
    assert written
    assert command
    (tmp_path / "config.yaml").write_text(written[1])
    done = modelyard(*shlex.split(command[1])[1:], folder=tmp_path)

    for finding in re.findall(r"^> (.+)$", GUIDE, re.MULTILINE):
        assert finding.strip("`") in done.stderr + done.stdout
    assert load_catalog(tmp_path / "catalog.yaml", {}).routes["default"]
