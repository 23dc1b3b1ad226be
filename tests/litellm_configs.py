"""Configs of LiteLLM's proxy, and what is imported of them."""

import textwrap
from pathlib import Path
from typing import Any

import yaml

from modelyard.catalog import Catalog
from modelyard.catalog_file import load_catalog
from modelyard.price_file import Prices
from producer.import_litellm import Imported, translate
from producer.litellm_file import parse_config

SECRET = "sk-proj-T0psecret"

EVERYDAY = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://eu.openai.azure.com/
      api_key: os.environ/AZURE_EU_KEY
      api_version: 2024-10-21
      rpm: 900
      tpm: 150000
    model_info: {id: eu-1, base_model: azure/gpt-4o}
  - model_name: gpt-4o
    litellm_params: {model: azure/gpt-4o-eu, api_base: os.environ/US_BASE, rpm: 100}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, max_parallel_requests: 20}
  - model_name: claude
    litellm_params:
      model: anthropic/claude-sonnet-4-20250514
      api_key: sk-proj-T0psecret
      timeout: 300
      max_retries: 4
      temperature: 0.2
    model_info: {input_cost_per_token: 3e-6, output_cost_per_token: 0.000015,
                 max_input_tokens: 200000, supports_vision: true}
  - model_name: local
    litellm_params: {model: ollama/llama3.2, api_base: "http://gpu:11434"}
router_settings:
  routing_strategy: usage-based-routing-v2
  num_retries: 2
  timeout: 60
  allowed_fails: 3
  cooldown_time: 30
  fallbacks: [{gpt-4o: [claude]}]
  context_window_fallbacks: [{claude: [local]}]
  model_group_alias: {gpt-4: gpt-4o, hidden: {model: claude, hidden: true}}
  redis_host: redis.internal
  redis_password: sk-proj-T0psecret
litellm_settings:
  drop_params: true
  cache: true
  callbacks: [langfuse]
  default_fallbacks: [local]
general_settings:
  master_key: sk-proj-T0psecret
  database_url: postgresql://me:sk-proj-T0psecret@db/litellm
environment_variables:
  LANGFUSE_SECRET_KEY: sk-proj-T0psecret
"""


def imported(text: str, prices: Prices | None = None) -> Imported:
    """Read a config and return what comes of it."""
    return translate(parse_config(textwrap.dedent(text).encode(), "config.yaml"), prices)


def loaded(done: Imported, folder: Path, **environ: str) -> Catalog:
    """Return the catalog that was written, as a yard with these variables has it."""
    path = folder / "catalog.yaml"
    path.write_text(done.text)
    return load_catalog(path, environ)


def told(done: Imported) -> dict[str, str]:
    """Return what was said, by its place in the config."""
    return {each.path: each.what for each in done.findings}


def single(**params: Any) -> str:
    """Return a config of one deployment."""
    entry = {"model_name": "m", "litellm_params": {"model": "openai/gpt-4o", **params}}
    return yaml.safe_dump({"model_list": [entry]})


def chains(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """Return the models of each route, in the order in which they are tried."""
    return {name: route.otherwise.models for name, route in catalog.routes.items()}
