"""What `modelyard check` warns of: what workers here can't do, and what they would not look at."""

from typing import Any

import pytest

from model_workers.complaints import complaints
from modelyard.catalog import Catalog


def told(*models: dict[str, Any], without: tuple[str, ...] = ()) -> list[str]:
    """The warnings about these models where these modules are not installed."""
    names = [model.setdefault("name", f"m{number}") for number, model in enumerate(models, 1)]
    catalog = Catalog.model_validate(
        {"models": list(models), "routes": {"default": {"otherwise": names}}}
    )
    return complaints(catalog, lambda module: module not in without)


def model(provider: str, *endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    placed = [{"base_url": "http://h/v1", **each} for each in endpoints]
    return {"provider": provider, "endpoints": placed, **more}


BOTO, GOOGLE = "botocore.auth", "google.auth.transport.requests"


def test_nothing_is_said_of_what_is_as_it_should_be() -> None:
    assert not told(
        model("openai", {"api_key": "k"}, {"region": "eu"}, regions=["eu"]),
        model("azure", {"api_version": "2024-10-21"}),
        model("anthropic", {"api_version": "2023-06-01"}),
        model("bedrock", {"region": "eu-west-1"}),
        model("vertex", {"region": "global", "project": "p", "api_version": "v1beta1"}),
        model("litellm", {"api_version": "2024-10-21"}),
        {"provider": "litellm", "model": "mistral/x"},
        {"provider": "python", "entry_point": "json:dumps"},
        {"provider": "extractive"},
        {"provider": "people"},
    )


@pytest.mark.parametrize(
    ("provider", "module", "package"),
    [("bedrock", BOTO, "botocore"), ("vertex", GOOGLE, "google-auth[requests]")],
)
def test_calls_without_a_key_need_a_package(provider: str, module: str, package: str) -> None:
    one = model(
        provider,
        {"api_key": "k", "region": "r", "name": "a"},
        {"region": "r", "name": "b"},
        {"disabled": "A_KEY", "region": "r", "name": "c"},
    )
    (warning,) = told(one, without=(module,))
    assert warning == (
        f"model 'm1', endpoint 2: calls without an api_key need {package}, which is not installed "
        f"here: pip install '{package}'"
    )


def test_litellm_has_to_be_installed() -> None:
    without = ("litellm",)
    assert told({"provider": "litellm"}, without=without) == [
        "model 'm1': litellm is not installed here: pip install litellm"
    ]
    assert not told(model("litellm", {"disabled": "A_KEY"}), without=without)


@pytest.mark.parametrize(
    ("provider", "key"),
    [
        ("openai", "project"),
        ("openai", "api_version"),
        ("azure", "project"),
        ("anthropic", "project"),
        ("bedrock", "project"),
        ("bedrock", "api_version"),
        ("litellm", "project"),
    ],
)
def test_fields_that_a_provider_does_not_use(provider: str, key: str) -> None:
    assert told(model(provider, {key: "x"})) == [
        f"model 'm1', endpoint 1: provider {provider!r} does not use {key!r}"
    ]


def test_an_endpoints_own_provider_is_what_is_judged() -> None:
    mixed = model(
        "openai",
        {"provider": "azure", "api_version": "2024-10-21", "name": "a"},
        {"api_version": "2024-10-21", "name": "b"},
        {"provider": "bedrock", "region": "r", "name": "c"},
        {"provider": "litellm", "name": "d"},
    )
    assert told(mixed, without=("litellm", BOTO)) == [
        "model 'm1': litellm is not installed here: pip install litellm",
        "model 'm1', endpoint 2: provider 'openai' does not use 'api_version'",
        "model 'm1', endpoint 3: calls without an api_key need botocore, which is not installed "
        "here: pip install 'botocore'",
    ]


@pytest.mark.parametrize("provider", ["openai", "azure", "anthropic", "litellm"])
def test_a_region_that_no_request_can_ask_for(provider: str) -> None:
    (warning,) = told(model(provider, {"region": "us"}, regions=["eu"]))
    assert warning.startswith("model 'm1', endpoint 1: 'region' is not used")
    assert "'us'" in warning


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere.at.all:run", "can't be imported: ModuleNotFoundError"),
        ("json:no_such", "can't be imported: AttributeError"),
        ("json:__name__", "is no function but a str"),
        ("json", "is not written as module:name"),
    ],
)
def test_an_entry_point_that_can_t_be_had(place: str, words: str) -> None:
    (warning,) = told({"provider": "python", "entry_point": place})
    assert warning.startswith(f"model 'm1': entry_point {place!r} {words}")


def test_what_is_installed_here_is_found() -> None:
    models = [model("bedrock", {"region": "r"}), model("vertex", {"region": "r"})]
    for each, one in enumerate(models):
        one["name"] = f"m{each}"
    catalog = Catalog.model_validate(
        {"models": models, "routes": {"default": {"otherwise": ["m0"]}}}
    )
    assert complaints(catalog) == []
