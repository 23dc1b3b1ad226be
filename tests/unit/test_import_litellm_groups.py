"""Entries of one name in LiteLLM's config: one model, or several that are tried in turn."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from litellm_configs import EVERYDAY, chains, imported, loaded, told

from producer.litellm_deployment import Deployments
from producer.litellm_file import parse_config
from producer.litellm_notes import Notes
from producer.litellm_parts import parts_of


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
