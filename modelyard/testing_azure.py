"""Azure OpenAI's addresses and keys as the fake provider knows them: all pure.

Reference: https://learn.microsoft.com/azure/ai-foundry/openai/reference
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from modelyard.testing_messages import ApiError

_PATH: Final = re.compile(r"/openai/(?:deployments/([^/]+)|v1)/chat/completions")
_DATED: Final = re.compile(r"\d{4}-\d\d-\d\d(-preview)?", re.ASCII)
_UNDATED: Final = ("v1", "preview", "latest")
_TOKEN: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

_NOT_FOUND: Final = ApiError(404, "Resource not found", "404")
_NO_VERSION: Final = ApiError(400, "API version not supported", "BadRequest")
_DENIED: Final = ApiError(
    401,
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a "
    "valid key for an active subscription and use a correct regional API endpoint for your "
    "resource.",
    "401",
)


@dataclass(frozen=True, slots=True)
class AzureCall:
    """Where a call is posted to; `deployment` is None where the body's `model` names it."""

    deployment: str | None


def read_azure_path(raw_path: str, version: str | None) -> AzureCall | ApiError | None:
    """Return what a path and its `api-version` ask for; None if it is no path of Azure's."""
    if not raw_path.startswith("/openai/"):
        return None
    found = _PATH.fullmatch(raw_path)
    if found is None:
        return _NOT_FOUND
    if found[1] is None:
        return AzureCall(None) if version in (None, *_UNDATED) else _NO_VERSION
    if version is None:
        return _NOT_FOUND
    return AzureCall(unquote(found[1])) if _DATED.fullmatch(version) else _NO_VERSION


def check_azure_key(call: AzureCall, headers: Mapping[str, str], key: str) -> ApiError | None:
    """Return why a call may not be made. A token of Entra ID comes as a bearer; a key does so only
    at the address without a dated version.
    """
    if headers.get("api-key") == key and not _TOKEN.fullmatch(key):
        return None
    bearer_ok = call.deployment is None or _TOKEN.fullmatch(key) is not None
    return None if bearer_ok and headers.get("authorization") == f"Bearer {key}" else _DENIED


def unknown_deployment() -> ApiError:
    """Return the error for a deployment that the resource does not have."""
    text = (
        "The API deployment for this resource does not exist. If you created the deployment within "
        "the last 5 minutes, please wait a moment and try again."
    )
    return ApiError(404, text, "DeploymentNotFound")
