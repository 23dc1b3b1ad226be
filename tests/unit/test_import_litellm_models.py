"""What a model of LiteLLM's config is in a catalog: its provider, address, limits and price."""

from pathlib import Path
from typing import Any

import pytest
from litellm_configs import EVERYDAY, imported, loaded, single, told

from modelyard.price_file import COMPATIBLE, Prices


def test_what_a_model_has(tmp_path: Path) -> None:
    catalog = loaded(imported(EVERYDAY), tmp_path)
    claude, azure = catalog.model("claude"), catalog.model("gpt-4o")

    assert claude.price.input_usd_per_mtok == 3
    assert claude.price.output_usd_per_mtok == 15
    assert claude.context_tokens == 200_000
    assert (claude.timeout_s, claude.retry.calls) == (300, 5)
    assert (azure.timeout_s, azure.retry.calls) == (60, 3), "the router's, where it has none"
    assert (azure.breaker.failures, azure.breaker.window_s, azure.breaker.cooldown_s) == (4, 60, 30)


@pytest.mark.parametrize("prefix", COMPATIBLE)
def test_an_openai_compatible_provider_has_its_address_and_key(prefix: str, tmp_path: Path) -> None:
    model = loaded(imported(single(model=f"{prefix}/some/model")), tmp_path).models[0]
    assert (model.provider, model.model) == ("openai", "some/model")
    assert model.endpoints[0].base_url == COMPATIBLE[prefix]
    assert str(model.endpoints[0].disabled).endswith("_API_KEY")


@pytest.mark.parametrize(
    ("params", "provider", "model", "url", "region"),
    [
        ({"model": "gpt-4o"}, "openai", "gpt-4o", "https://api.openai.com/v1", None),
        (
            {"model": "claude-3-haiku-20240307"},
            *("anthropic", "claude-3-haiku-20240307", "https://api.anthropic.com", None),
        ),
        (
            {"model": "x", "custom_llm_provider": "groq"},
            *("openai", "x", "https://api.groq.com/openai/v1", None),
        ),
        (
            {"model": "hosted_vllm/qwen", "api_base": "http://gpu:8000/v1/"},
            *("openai", "qwen", "http://gpu:8000/v1", None),
        ),
        ({"model": "ollama_chat/phi"}, "openai", "phi", "http://localhost:11434/v1", None),
        (
            {"model": "bedrock/converse/anthropic.claude-v2:1", "aws_region_name": "eu-west-1"},
            "bedrock",
            "anthropic.claude-v2:1",
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
            "eu-west-1",
        ),
        (
            {"model": "bedrock/us-west-2/meta.llama3"},
            *("bedrock", "meta.llama3", "https://bedrock-runtime.us-west-2.amazonaws.com"),
            "us-west-2",
        ),
        (
            {"model": "vertex_ai/gemini-2.5-pro", "vertex_project": "p"},
            *("vertex", "gemini-2.5-pro", "https://us-central1-aiplatform.googleapis.com"),
            "us-central1",
        ),
    ],
)
def test_providers_are_told_by_their_prefix(
    params: dict[str, Any],
    provider: str,
    model: str,
    url: str,
    region: str | None,
    tmp_path: Path,
) -> None:
    found = loaded(imported(single(**params)), tmp_path).models[0]
    assert (found.provider, found.model) == (provider, model)
    assert (found.endpoints[0].base_url, found.endpoints[0].region) == (url, region)


def test_what_has_no_provider_here_goes_through_litellm(tmp_path: Path) -> None:
    done = imported(single(model="cohere/command-r", api_key="os.environ/COHERE"))
    model = loaded(done, tmp_path).models[0]
    assert (model.provider, model.model, model.endpoints) == ("litellm", "cohere/command-r", ())
    assert "provider litellm" in told(done)["model_list[0].litellm_params.model"]
    assert "COHERE" in told(done)["model_list[0].litellm_params.api_key"]


def test_of_vertex_only_gemini_is_called_without_litellm(tmp_path: Path) -> None:
    done = imported(single(model="vertex_ai/claude-sonnet-4", vertex_project="p"))
    model = loaded(done, tmp_path).models[0]
    assert (model.provider, model.model) == ("litellm", "vertex_ai/claude-sonnet-4")
    assert "environment" in told(done)["model_list[0].litellm_params.vertex_project"]


def test_credentials_and_defaults_of_other_sections_count(tmp_path: Path) -> None:
    done = imported("""
        model_list:
          - model_name: m
            litellm_params: {model: openai/x, litellm_credential_name: mine}
        credential_list:
          - credential_name: mine
            credential_values: {api_key: os.environ/MINE, api_base: "https://mine.example/v1"}
        router_settings:
          default_litellm_params: {timeout: 7, temperature: 1}
    """)
    model = loaded(done, tmp_path, MINE="k").models[0]
    assert (model.live_endpoints[0].base_url, model.timeout_s) == ("https://mine.example/v1", 7)
    assert "router_settings.default_litellm_params.temperature" in told(done)


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    done = imported("""
        base: &base {api_base: "http://gpu:8000/v1", rpm: 5}
        model_list:
          - {model_name: a, litellm_params: {<<: *base, model: hosted_vllm/a}}
          - {model_name: b, litellm_params: {<<: *base, model: hosted_vllm/b, rpm: 6}}
    """)
    catalog = loaded(done, tmp_path)
    assert [m.endpoints[0].quota.requests_per_min for m in catalog.models] == [5, 6]


def test_prices_come_from_the_price_file_where_the_config_has_none(tmp_path: Path) -> None:
    prices = Prices(
        "prices.json",
        {
            "azure/gpt-4o": {"input_cost_per_token": 2.5e-6, "max_input_tokens": 64_000},
            "claude-sonnet-4": {"input_cost_per_token": 99},
        },
    )
    done = imported(EVERYDAY, prices)
    catalog = loaded(done, tmp_path)

    azure = catalog.model("gpt-4o")
    assert azure.price.input_usd_per_mtok == 2.5, "by its base_model: a deployment has any name"
    assert azure.context_tokens == 64_000
    assert catalog.model("claude").price.input_usd_per_mtok == 3
    assert "price file" in told(done)["model_list[4]"]
