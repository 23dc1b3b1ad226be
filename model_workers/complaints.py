"""What a catalog asks for that workers of this environment can't do, or would not look at."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.entry_point import EntryPointError, load_function

IGNORED: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("project", "api_version"),
    "azure": ("project",),
    "anthropic": ("project",),
    "bedrock": ("project", "api_version"),
    "litellm": ("project",),
}
"""Fields of an endpoint that a provider does not look at."""

SIGNED: Final[Mapping[str, tuple[str, str]]] = {
    "bedrock": ("botocore.auth", "botocore"),
    # google-auth comes without it, unless it is asked for.
    "vertex": ("google.auth.transport.requests", "google-auth[requests]"),
}
"""By provider, the module that calls without an api_key need, and what has it."""

ADDRESSED: Final = frozenset({"bedrock", "vertex"})
"""Providers whose calls tell a region, or go to one."""


def is_there(module: str) -> bool:
    """Return whether a module can be imported; litellm, which takes seconds, is only looked for."""
    if module == "litellm":
        return importlib.util.find_spec(module) is not None
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def complaints(catalog: Catalog, is_there: Callable[[str], bool] = is_there) -> list[str]:
    """Return in words what is wrong, model by model. Entry points are imported."""
    return [told for model in catalog.models for told in _of_model(model, is_there)]


def _of_model(model: Model, is_there: Callable[[str], bool]) -> Iterator[str]:
    name = f"model {model.name!r}"
    providers = {model.at(each).provider for each in model.live_endpoints} or {model.provider}
    if "litellm" in providers and model.disabled is None and not is_there("litellm"):
        yield f"{name}: litellm is not installed here: pip install litellm"
    if model.entry_point is not None:
        try:
            load_function(model.entry_point)
        except EntryPointError as error:
            yield f"{name}: entry_point {model.entry_point!r} {error}"
    for number, endpoint in enumerate(model.endpoints, 1):
        for told in _of_endpoint(model.at(endpoint), endpoint, is_there):
            yield f"{name}, endpoint {number}: {told}"


def _of_endpoint(
    model: Model, endpoint: Endpoint, is_there: Callable[[str], bool]
) -> Iterator[str]:
    for key in IGNORED.get(model.provider, ()):
        if getattr(endpoint, key) is not None:
            yield f"provider {model.provider!r} does not use {key!r}"
    region = endpoint.region
    if region is not None and model.provider not in ADDRESSED and region not in model.regions:
        yield (
            f"'region' is not used: no request that asks for {region!r} comes to this model, "
            "as its 'regions' do not list it"
        )
    # What is disabled for lack of a key will be called with it.
    if model.provider in SIGNED and endpoint.api_key is None and endpoint.disabled is None:
        module, package = SIGNED[model.provider]
        if not is_there(module):
            yield (
                f"calls without an api_key need {package}, which is not installed here: "
                f"pip install '{package}'"
            )
