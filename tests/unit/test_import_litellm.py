"""LiteLLM's config as a catalog: what maps to what, what is said of the rest, and no key told."""

import math
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.catalog import Catalog
from modelyard.catalog_file import load_catalog
from modelyard.price_file import COMPATIBLE, Prices
from producer.import_litellm import STRATEGIES, Imported, translate
from producer.litellm_deployment import Deployments
from producer.litellm_file import MAX_BYTES, parse_config
from producer.litellm_notes import Notes
from producer.litellm_parts import parts_of
from producer.output import UsageError

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
    return translate(parse_config(textwrap.dedent(text).encode(), "config.yaml"), prices)


def loaded(done: Imported, folder: Path, **environ: str) -> Catalog:
    path = folder / "catalog.yaml"
    path.write_text(done.text)
    return load_catalog(path, environ)


def told(done: Imported) -> dict[str, str]:
    return {each.path: each.what for each in done.findings}


def single(**params: Any) -> str:
    entry = {"model_name": "m", "litellm_params": {"model": "openai/gpt-4o", **params}}
    return yaml.safe_dump({"model_list": [entry]})


def chains(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    return {name: route.otherwise.models for name, route in catalog.routes.items()}


# What maps to what


def test_entries_of_one_name_are_endpoints_of_one_model(tmp_path: Path) -> None:
    done = imported(EVERYDAY)
    catalog = loaded(done, tmp_path, AZURE_EU_KEY="k", US_BASE="https://us.example")
    azure = catalog.model("gpt-4o")

    assert (azure.provider, azure.model) == ("azure", "gpt-4o-eu")
    first, second, third = azure.endpoints
    assert (first.base_url, first.name) == ("https://eu.openai.azure.com", "eu-1")
    assert first.api_version == "2024-10-21"
    assert (first.quota.requests_per_min, first.quota.tokens_per_min) == (900, 150_000)
    assert second.quota.requests_per_min == 100
    assert second.base_url == "https://us.example"
    assert second.disabled == "AZURE_API_KEY", "the variable in which LiteLLM looks by itself"
    assert (first.provider, first.model, second.model) == (None, None, None)
    assert (third.provider, third.model) == ("openai", "gpt-4o")
    assert third.quota.concurrency == 20
    assert third.base_url == "https://api.openai.com/v1"
    assert azure.balance == "lowest_used"
    assert done.models == ("gpt-4o", "claude", "local")
    assert "model_list[2]" not in told(done)


def test_weights_are_those_of_all_providers_of_a_name(tmp_path: Path) -> None:
    done = imported("""
        model_list:
          - {model_name: m, litellm_params: {model: azure/a, api_base: "https://a.example", rpm: 9}}
          - {model_name: m, litellm_params: {model: openai/x, rpm: 2}}
          - {model_name: m, litellm_params: {model: azure/b, api_base: "https://b.example", rpm: 4}}
    """)
    model = loaded(done, tmp_path).model("m")

    found = [(model.at(each).provider, model.at(each).model) for each in model.endpoints]
    assert found == [("azure", "a"), ("openai", "x"), ("azure", "b")], "in the file's order"
    assert [each.weight for each in model.endpoints] == [9, 2, 4]
    assert [each.quota.requests_per_min for each in model.endpoints] == [9, 2, 4]


@pytest.mark.parametrize(
    ("params", "info", "key"),
    [
        ({"input_cost_per_token": 2e-6}, {}, "price"),
        ({}, {"input_cost_per_token": 2e-6}, "price"),
        ({}, {"max_input_tokens": 8_000}, "context_tokens"),
        ({"max_tokens": 500}, {}, "max_output_tokens"),
        ({}, {"supports_vision": False}, "supports_vision"),
    ],
)
def test_what_can_t_be_one_model_is_tried_in_turn_and_said(
    params: dict[str, Any], info: dict[str, Any], key: str, tmp_path: Path
) -> None:
    said = {"input_cost_per_token": 1e-6, "max_input_tokens": 128_000, "supports_vision": True}
    first = {"model": "azure/a", "api_base": "https://a.example", "max_tokens": 1_000}
    entries = [
        {"model_name": "m", "litellm_params": first, "model_info": said},
        {"model_name": "m", "litellm_params": {"model": "openai/x", **params}, "model_info": info},
        {"model_name": "m", "litellm_params": {"model": "openai/y", "max_tokens": 1_000}},
    ]
    done = imported(yaml.safe_dump({"model_list": entries}))
    catalog = loaded(done, tmp_path)

    assert chains(catalog)["m"] == ("m", "m-2")
    assert told(done)["model_list[1]"] == (
        f"has another {key} than 'm': it is model 'm-2', tried after 'm' and not beside it"
    )
    assert [each.model for each in catalog.model("m").endpoints] == [None, "y"]
    assert told(done)["model_list[2]"] == "has no price: the one of model 'm' counts"


def test_deployments_at_one_address_are_told_apart_by_their_names(tmp_path: Path) -> None:
    done = imported("""
        model_list:
          - {model_name: m, litellm_params: {model: azure/a, api_base: "https://a.example"}}
          - {model_name: m, litellm_params: {model: azure/b, api_base: "https://a.example"}}
          - model_name: m
            litellm_params: {model: azure/c, api_base: "https://a.example"}
            model_info: {id: third}
          - {model_name: m, litellm_params: {model: azure/d, api_base: "https://d.example"}}
          - {model_name: n, litellm_params: {model: azure/a, api_base: "https://a.example"}}
          - {model_name: n, litellm_params: {model: azure/a, api_base: "https://a.example"}}
    """)
    catalog = loaded(done, tmp_path)

    assert [each.label for each in catalog.model("m").endpoints] == ["a", "b", "third", "d.example"]
    assert [each.name for each in catalog.model("n").endpoints] == ["", ""]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["openai/x", "groq/y", "azure/z", "cohere/w"]),
            st.sampled_from([None, 1, 2]),
            st.sampled_from([None, 1e-6, 2e-6]),
            st.booleans(),
        ),
        min_size=1,
        max_size=7,
    )
)
def test_each_entry_is_in_one_model_of_its_order_and_its_price(
    entries: list[tuple[str, int | None, float | None, bool]],
) -> None:
    deployments = []
    for number, (model, order, cost, placed) in enumerate(entries):
        params: dict[str, Any] = {"model": model}
        params |= {} if order is None else {"order": order}
        params |= {} if cost is None else {"input_cost_per_token": cost}
        params |= {"api_base": f"http://h{number}/v1"} if placed else {}
        deployments.append({"model_name": "m", "litellm_params": params})
    config = parse_config(yaml.safe_dump({"model_list": deployments}).encode(), "config.yaml")
    found = list(Deployments(Notes(config), None).read())
    parts = parts_of(found)

    assert sorted(each.loc for part in parts for each in part.deployments) == [
        each.loc for each in found
    ]
    assert [part.order for part in parts] == sorted(part.order for part in parts)
    for part in parts:
        assert {each.order for each in part.deployments} == {part.order}
        kinds = {each.kind for each in part.deployments}
        assert len(kinds) == 1 or all(placed for _, _, placed in kinds)
        # Entries of one provider and name are one model whatever they say, as in one group.
        first = {each.kind: each for each in reversed(part.deployments)}
        prices = [each.settings.get("price") for each in first.values()]
        said = [price for price in prices if price is not None]
        assert len(kinds) == 1 or all(price == said[0] for price in said)


def test_what_may_differ_within_a_model_is_the_first_entrys(tmp_path: Path) -> None:
    done = imported("""
        model_list:
          - {model_name: m, litellm_params: {model: openai/x, timeout: 5}}
          - {model_name: m, litellm_params: {model: groq/y, timeout: 6}}
    """)
    model = loaded(done, tmp_path).model("m")

    assert (model.timeout_s, len(model.endpoints)) == (5, 2)
    assert "another timeout_s" in told(done)["model_list[1]"]


def test_what_litellm_calls_without_an_address_is_no_endpoint(tmp_path: Path) -> None:
    done = imported("""
        model_list:
          - {model_name: m, litellm_params: {model: openai/x}}
          - {model_name: m, litellm_params: {model: cohere/y}}
          - {model_name: m, litellm_params: {model: cohere/z, api_base: "https://z.example"}}
          - {model_name: n, litellm_params: {model: cohere/y}}
          - {model_name: n, litellm_params: {model: openai/x}}
    """)
    catalog = loaded(done, tmp_path)

    assert chains(catalog)["m"] == ("m", "m-2")
    assert [each.provider for each in catalog.model("m").endpoints] == [None, "litellm"]
    assert told(done)["model_list[1]"].startswith("has no api_base")
    assert chains(catalog)["n"] == ("n", "n-2")
    assert told(done)["model_list[4]"].startswith("has an api_base, unlike 'n'")


def test_what_a_model_has(tmp_path: Path) -> None:
    catalog = loaded(imported(EVERYDAY), tmp_path)
    claude, azure = catalog.model("claude"), catalog.model("gpt-4o")

    assert claude.price.input_usd_per_mtok == 3
    assert claude.price.output_usd_per_mtok == 15
    assert claude.context_tokens == 200_000
    assert (claude.timeout_s, claude.retry.calls) == (300, 5)
    assert (azure.timeout_s, azure.retry.calls) == (60, 3), "the router's, where it has none"
    assert (azure.breaker.failures, azure.breaker.window_s, azure.breaker.cooldown_s) == (4, 60, 30)


def test_fallbacks_and_aliases_are_routes_and_the_first_is_the_default(tmp_path: Path) -> None:
    found = chains(loaded(imported(EVERYDAY), tmp_path))

    assert found == {
        "default": ("gpt-4o", "claude", "local"),
        "gpt-4o": ("gpt-4o", "claude", "local"),
        "claude": ("claude", "local"),
        "local": ("local",),
        "gpt-4": ("gpt-4o", "claude", "local"),
        "hidden": ("claude", "local"),
    }


def test_a_fallback_may_be_for_all_and_name_a_deployment(tmp_path: Path) -> None:
    done = imported("""
        model_list:
          - {model_name: a, litellm_params: {model: openai/a}}
          - {model_name: b, litellm_params: {model: openai/b}, model_info: {id: deployment-b}}
          - {model_name: c, litellm_params: {model: openai/c}}
        litellm_settings:
          fallbacks: [{"*": [c]}, {a: [deployment-b, nobody]}, {nobody: [a]}]
          content_policy_fallbacks: [{b: [a]}]
    """)
    found = chains(loaded(done, tmp_path))

    assert found["a"] == ("a", "b", "c"), "what a fallback falls back to comes after it"
    assert found["b"] == ("b", "c", "a")
    assert told(done)["litellm_settings.fallbacks[1].a[1]"] == "is no model_name here: left out"
    assert told(done)["litellm_settings.fallbacks[2].nobody"] == "is no model_name here: left out"


@pytest.mark.parametrize(("theirs", "ours"), STRATEGIES.items())
def test_every_strategy_has_a_balance(theirs: str, ours: str, tmp_path: Path) -> None:
    done = imported(f"""
        model_list:
          - {{model_name: m, litellm_params: {{model: openai/x, api_base: "http://a/v1"}}}}
          - {{model_name: m, litellm_params: {{model: openai/x, api_base: "http://b/v1"}}}}
        router_settings: {{routing_strategy: {theirs}}}
    """)
    model = loaded(done, tmp_path).model("m")

    assert model.balance == ours
    assert len(model.endpoints) == 2
    said = "router_settings.routing_strategy" in told(done)
    assert said == (theirs == "cost-based-routing")


def test_the_cheapest_of_several_models_is_chosen_by_the_route(tmp_path: Path) -> None:
    text = """
        model_list:
          - {model_name: m, litellm_params: {model: openai/x}}
          - {model_name: m, litellm_params: {model: groq/y}}
          - {model_name: n, litellm_params: {model: mistral/z}}
        router_settings: {routing_strategy: cost-based-routing, FALLBACKS}
    """
    alone = loaded(imported(text.replace("FALLBACKS", "")), tmp_path)
    assert alone.routes["m"].otherwise.choose == "cheapest"
    # A cheap fallback must not go first.
    behind = loaded(imported(text.replace("FALLBACKS", "fallbacks: [{m: [n]}]")), tmp_path)
    assert behind.routes["m"].otherwise.choose == "given"
    assert behind.routes["m"].otherwise.models == ("m", "m-2", "n")


def test_a_strategy_that_nobody_knows_is_a_finding(tmp_path: Path) -> None:
    done = imported(single() + "router_settings: {routing_strategy: lar1}\n")
    assert "balance: weighted" in told(done)["router_settings.routing_strategy"]
    loaded(done, tmp_path)


@pytest.mark.parametrize(
    ("shares", "weights"),
    [
        (({"weight": 9, "rpm": 1}, {"weight": 1, "rpm": 5}), [9, 1]),
        (({"rpm": 900}, {"rpm": 10}), [900, 10]),
        (({"tpm": 4_000_000}, {"tpm": 1_000_000}), [1e6, 250_000]),
        (({"weight": 1}, {"weight": 0}), [1, 1e-6]),
        (({}, {}), [1, 1]),
    ],
)
def test_a_shuffle_is_weighted_as_litellm_weighs_it(
    shares: tuple[dict[str, float], ...], weights: list[float], tmp_path: Path
) -> None:
    entries = [
        {
            "model_name": "m",
            "litellm_params": {"model": "openai/x", "api_base": f"http://h{number}/v1", **share},
        }
        for number, share in enumerate(shares)
    ]
    model = loaded(imported(yaml.safe_dump({"model_list": entries})), tmp_path).model("m")
    assert [endpoint.weight for endpoint in model.endpoints] == weights


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


def test_deployments_with_an_order_are_tried_in_it(tmp_path: Path) -> None:
    catalog = loaded(
        imported("""
        model_list:
          - {model_name: m, litellm_params: {model: openai/late, order: 2}}
          - {model_name: m, litellm_params: {model: openai/early, order: 1}}
    """),
        tmp_path,
    )
    assert [model.model for model in catalog.models] == ["early", "late"]
    assert chains(catalog)["m"] == ("m", "m-2")


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


@pytest.mark.parametrize("name", ["openai/gpt 4", "größe", "x" * 100, "-", "a@b"])
def test_a_name_that_no_model_can_have_is_changed_and_stays_the_routes(
    name: str, tmp_path: Path
) -> None:
    entry = {"model_name": name, "litellm_params": {"model": "openai/x"}}
    done = imported(yaml.safe_dump({"model_list": [entry]}))
    catalog = loaded(done, tmp_path)
    assert chains(catalog)[name] == (catalog.models[0].name,)
    assert "model_list[0].model_name" in told(done)


def test_numbers_of_models_do_not_take_the_names_of_others(tmp_path: Path) -> None:
    catalog = loaded(
        imported("""
        model_list:
          - {model_name: m, litellm_params: {model: openai/x, order: 1}}
          - {model_name: m, litellm_params: {model: openai/y, order: 2}}
          - {model_name: m-2, litellm_params: {model: openai/z}}
    """),
        tmp_path,
    )
    assert catalog.model("m-2").model == "z"
    assert chains(catalog)["m"] == ("m", "m-3")


# Prices


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


# What has no counterpart


def test_what_has_no_counterpart_is_said_with_its_place_and_line() -> None:
    done = imported(EVERYDAY)
    said = told(done)

    for path in (
        "router_settings.redis_host",
        "router_settings.context_window_fallbacks",
        "litellm_settings.drop_params",
        "litellm_settings.cache",
        "litellm_settings.callbacks",
        "general_settings.master_key",
        "general_settings.database_url",
        "environment_variables",
        "model_list[3].litellm_params.temperature",
        "model_list[3].litellm_params.api_key",
        "model_list[3].model_info",
    ):
        assert said[path]
    lines = EVERYDAY.splitlines()
    for each in done.findings:
        last = each.path.rpartition(".")[2].partition("[")[0]
        assert last in lines[each.line - 1] or each.path.endswith("]"), each


def test_what_maps_is_not_among_the_findings() -> None:
    done = imported(
        single(rpm=5, tpm=6, weight=2, timeout=3, max_retries=1, api_key="os.environ/K")
        + "router_settings: {num_retries: 2, enable_pre_call_checks: true}\n"
    )
    assert done.findings == ()
    assert done.variables == ("K",)


@pytest.mark.parametrize("model", ["openai/*", "*"])
def test_a_wildcard_is_a_finding_and_alone_an_error(model: str) -> None:
    with pytest.raises(
        UsageError, match=r"no model can be imported\nmodel_list.0.: stands for any"
    ):
        imported(single(model=model))


def test_what_is_not_chat_is_left_out() -> None:
    done = imported("""
        model_list:
          - {model_name: e, litellm_params: {model: openai/e}, model_info: {mode: embedding}}
          - {model_name: c, litellm_params: {model: openai/c}, model_info: {mode: chat}}
    """)
    assert done.models == ("c",)
    assert "model_list[0].model_info.mode" in told(done)


@pytest.mark.parametrize("value", [0, -1, "many", math.inf, True, [1], "os.environ/RPM", 1e300])
def test_a_number_that_is_none_is_left_out_and_said(value: object, tmp_path: Path) -> None:
    done = imported(single(rpm=value, timeout=value, max_parallel_requests=value))
    model = loaded(done, tmp_path).models[0]
    assert model.endpoints[0].quota.is_none
    assert model.timeout_s == 120
    for key in ("rpm", "timeout", "max_parallel_requests"):
        assert f"model_list[0].litellm_params.{key}" in told(done)


# Keys


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


# Files that are wrong, or hostile


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "config.yaml:1: must be a mapping with model_list"),
        ("- a", "config.yaml:1: must be a mapping"),
        ("a: 1", "config.yaml:1: model_list: is missing"),
        ("a: 1\nmodel_list: {}", "config.yaml:2: model_list: must be a list"),
        ("model_list: []", "no model can be imported"),
        ("model_list:\n- 1", r"config.yaml:2: model_list\[0\]: must be a mapping"),
        ("model_list:\n- {model_name: x}", r"config.yaml:2: .*'model' is missing"),
        ("model_list:\n- {litellm_params: {}}", r"config.yaml:2: .*'model_name' is missing"),
        ("model_list: []\nrouter_settings: []", "config.yaml:2: router_settings: must be a map"),
        ("a: 1\nb: [", "config.yaml:2: not valid YAML"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "config.yaml:2: tags"),
        ("a: 1\nb: !env KEY", "config.yaml:2: tags"),
        ("a: 1\nb: &x [*x]", "config.yaml:2: nested too deeply or too large"),
        ("a: 1\nb: " + "[" * 100, "config.yaml:2: not valid YAML: nested too deeply"),
        ("a: 1\n? [b]\n: c", "config.yaml:2: a key must be a plain word"),
        ("a: 1\nb: *nowhere", "config.yaml:2: not valid YAML"),
        ("a: 1\nb: 2024-99-99", "not valid YAML: a value"),
        ('a: 1\nb: "\\ud800"', "config.yaml:2: an escape"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: 1\nb: \x07", "config.yaml:2: not valid YAML: a control character"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        translate(parse_config(text.encode(), "config.yaml"))


def test_aliases_that_unfold_to_millions_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(UsageError, match="too large"):
        parse_config("\n".join(lines).encode(), "config.yaml")


def test_keys_that_are_doubled_do_not_hide_from_the_limit() -> None:
    lines = ["a0: &a0 {x: 1}"]
    merged = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9)]
    with pytest.raises(UsageError, match="too large"):
        parse_config("\n".join(lines + merged).encode(), "config.yaml")


def test_what_is_too_long_or_no_utf8_is_refused() -> None:
    with pytest.raises(UsageError, match="more than"):
        parse_config(b"#" * (MAX_BYTES + 1), "config.yaml")
    with pytest.raises(UsageError, match=r"config.yaml:2: not UTF-8"):
        parse_config(b"a: 1\nb: \xff", "config.yaml")


def test_an_error_of_yaml_does_not_quote_the_file() -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(f"model_list:\n - api_key: *{SECRET}\n".encode(), "config.yaml")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_that_is_given_twice_is_said() -> None:
    done = imported(single() + "router_settings: {num_retries: 1, num_retries: 2}\n")
    assert told(done) == {"router_settings.num_retries": "is given twice: the last one counts"}


# Whatever the config


names = st.one_of(
    st.sampled_from(["m", "m-2", "gpt-4o", "default", "gpt 4", "openai/x", "<<", "null", "1"]),
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), min_size=1
    ),
)
prefixes = st.sampled_from(
    [
        "",
        *(f"{prefix}/" for prefix in COMPATIBLE),
        "azure/",
        "anthropic/",
        "bedrock/",
        "cohere/",
        "vertex_ai/",
        "vertex_ai/gemini-",
        "ollama/",
        "hosted_vllm/",
        "bedrock/eu-west-1/",
    ]
)
numbers = st.one_of(
    st.integers(-5, 10**13),
    st.floats(),
    st.text(max_size=3),
    st.booleans(),
    st.none(),
    st.just("os.environ/N"),
)
addresses = st.sampled_from(
    [
        "http://h",
        "https://h:8080/v1/",
        "http://h:99999",
        "ftp://h",
        "http://[",
        "os.environ/BASE",
        "https://a:b@h",
        "https://h?k=v",
        "${X}",
        "",
        "os.environ/",
        "https://héé/",
        "http://h/ x",
    ]
)
texts = st.one_of(st.sampled_from(["os.environ/KEY", "sk-1", "", "eu-west-1"]), st.text())
params = st.fixed_dictionaries(
    {"model": st.tuples(prefixes, names).map("".join)},
    optional={
        **dict.fromkeys(
            (
                "rpm",
                "tpm",
                "weight",
                "order",
                "max_parallel_requests",
                "timeout",
                "max_retries",
                "num_retries",
                "max_tokens",
                "cooldown_time",
                "input_cost_per_token",
            ),
            numbers,
        ),
        **dict.fromkeys(("api_base", "aws_bedrock_runtime_endpoint"), addresses),
        **dict.fromkeys(
            (
                "api_key",
                "api_version",
                "aws_region_name",
                "vertex_project",
                "vertex_location",
                "custom_llm_provider",
            ),
            texts,
        ),
    },
)
info = st.fixed_dictionaries(
    {},
    optional={
        "id": st.one_of(names, st.integers()),
        "mode": st.sampled_from(["chat", None, "completion"]),
        "max_input_tokens": numbers,
        "output_cost_per_token": numbers,
        "base_model": names,
    },
)
fallbacks = st.lists(st.dictionaries(names, st.lists(names, max_size=3), max_size=2), max_size=2)
shared = {
    **dict.fromkeys(
        ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"), fallbacks
    ),
    "default_fallbacks": st.lists(names, max_size=2),
    **dict.fromkeys(("num_retries", "allowed_fails", "cooldown_time"), numbers),
}
configs = st.fixed_dictionaries(
    {
        "model_list": st.lists(
            st.fixed_dictionaries(
                {"model_name": names, "litellm_params": params}, optional={"model_info": info}
            ),
            min_size=1,
            max_size=5,
        )
    },
    optional={
        "router_settings": st.fixed_dictionaries(
            {},
            optional={
                **shared,
                "routing_strategy": st.sampled_from([*STRATEGIES, "other"]),
                "timeout": numbers,
                "model_group_alias": st.dictionaries(names, names, max_size=2),
            },
        ),
        "litellm_settings": st.fixed_dictionaries({}, optional=shared),
    },
)


@given(config=configs)
@settings(max_examples=100, deadline=None)
def test_any_config_gives_a_catalog_that_loads(
    config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = yaml.safe_dump(config, allow_unicode=True).encode()
    try:
        done = translate(parse_config(content, "config.yaml"))
    except UsageError as error:
        # Names of blanks only are none, and * stands for any.
        assert "is missing" in str(error) or "no model can be imported" in str(error)
        return
    catalog = loaded(done, tmp_path_factory.getbasetemp())
    assert tuple(model.name for model in catalog.models) == done.models
    assert set(done.routes) == catalog.routes.keys() >= {"default"}
