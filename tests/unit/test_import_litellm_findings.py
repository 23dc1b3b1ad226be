"""What of LiteLLM's config has no counterpart in a catalog is said, and only that."""

import math
from pathlib import Path

import pytest
from litellm_configs import EVERYDAY, imported, loaded, single, told

from producer.output import UsageError


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


def test_a_key_that_is_given_twice_is_said() -> None:
    done = imported(single() + "router_settings: {num_retries: 1, num_retries: 2}\n")
    assert told(done) == {"router_settings.num_retries": "is given twice: the last one counts"}
