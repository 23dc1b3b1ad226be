"""Whatever LiteLLM's config is, what is imported loads."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from litellm_configs import loaded

from modelyard.price_file import COMPATIBLE
from producer.import_litellm import STRATEGIES, translate
from producer.litellm_file import parse_config
from producer.output import UsageError

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
