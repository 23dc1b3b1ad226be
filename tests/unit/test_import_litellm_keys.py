"""Keys in LiteLLM's config: none is in a catalog, in a finding or in an error."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from litellm_configs import EVERYDAY, SECRET, imported, loaded, single, told

from producer.litellm_file import parse_config
from producer.output import UsageError


def test_a_literal_key_becomes_a_variable_and_is_told_nowhere(tmp_path: Path) -> None:
    done = imported(EVERYDAY)
    assert SECRET not in done.text
    assert SECRET not in repr(done.findings)
    claude = loaded(done, tmp_path, ANTHROPIC_API_KEY="set").model("claude")
    assert claude.live_endpoints
    assert "ANTHROPIC_API_KEY" in told(done)["model_list[3].litellm_params.api_key"]


def test_each_literal_key_has_a_variable_of_its_own() -> None:
    def params(key: str) -> dict[str, object]:
        return {"model_name": "m", "litellm_params": {"model": "openai/x", "api_key": key}}

    keys = ["os.environ/OPENAI_API_KEY", "sk-one", "sk-two", "sk-one"]
    done = imported(yaml.safe_dump({"model_list": [params(key) for key in keys]}))
    used = [each["api_key"] for each in yaml.safe_load(done.text)["models"][0]["endpoints"]]
    assert used == [
        "${OPENAI_API_KEY}",
        "${OPENAI_API_KEY_2}",
        "${OPENAI_API_KEY_3}",
        "${OPENAI_API_KEY_2}",
    ]


@pytest.mark.parametrize(
    "params",
    [
        {"api_base": f"https://user:{SECRET}@host/v1"},
        {"api_base": f"https://host/v1?key={SECRET}"},
        {"api_base": f"{SECRET}"},
        {"api_base": f"https://${SECRET}"},
        {"api_key": f"os.environ/{SECRET}"},
        {"api_key": f"{SECRET} "},
        {"azure_ad_token": SECRET},
        {"model": "bedrock/x", "aws_secret_access_key": SECRET, "aws_region_name": f"{SECRET}!"},
        {"model": "vertex_ai/gemini-x", "vertex_credentials": SECRET},
        {"model": "cohere/x", "api_key": SECRET},
        {"extra_headers": {"authorization": SECRET}},
        {f"api_key:{SECRET}": None},
        {"rpm": SECRET, "timeout": SECRET, "input_cost_per_token": SECRET, "max_retries": SECRET},
        {"litellm_credential_name": SECRET},
    ],
)
def test_no_finding_and_no_catalog_holds_a_key(params: dict[str, Any], tmp_path: Path) -> None:
    done = imported(single(**params))
    assert done.findings
    assert SECRET not in done.text
    assert SECRET not in repr(done.findings)
    loaded(done, tmp_path)


def test_openais_key_is_not_for_somebodys_own_server(tmp_path: Path) -> None:
    done = imported(single(api_base="http://gpu:8000/v1"))
    assert loaded(done, tmp_path).models[0].endpoints[0].disabled is None
    assert "without one" in told(done)["model_list[0].litellm_params.api_key"]


def test_an_error_of_yaml_does_not_quote_the_file() -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(f"model_list:\n - api_key: *{SECRET}\n".encode(), "config.yaml")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
