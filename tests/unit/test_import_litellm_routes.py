"""LiteLLM's names, fallbacks and strategies as routes."""

from pathlib import Path

import pytest
import yaml
from litellm_configs import EVERYDAY, chains, imported, loaded, single, told

from producer.import_litellm import STRATEGIES


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
