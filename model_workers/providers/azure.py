"""Models behind Azure OpenAI: `providers.openai`, at Azure's addresses and with its errors.

A deployment is called by its name, the catalog's `model`. An endpoint whose `api_version` is a date
is called at `/openai/deployments/NAME/chat/completions?api-version=...`, any other at
`/openai/v1/chat/completions`. The answer names the model that ran, so for a deployment of the model
router it is the one that was chosen.

| what came, beside the table of `providers.openai` | kind |
| --- | --- |
| 400 `content_filter`, or `ResponsibleAIPolicyViolation` inside | REFUSED |
| 404 `DeploymentNotFound`, `Resource not found` | DENIED |
| 400 "API version not supported" | DENIED |
| 429 without Retry-After | LIMITED, with the wait that its text names |

Reference: https://learn.microsoft.com/azure/ai-foundry/openai/reference and, for the paths without
a dated version, https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import quote

import httpx

from model_workers.providers.base import Completion, Failure
from model_workers.providers.openai import OpenAIDialect
from model_workers.providers.over_http import OverHttp
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind

_DATED: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CALL: Final = "/chat/completions"
_DEPLOYMENT: Final = re.compile(r"/openai/deployments/[^/]+$")
_ENTRA_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_WAIT: Final = re.compile(r"(?:retry after|try again in) (\d{1,9}) (milli)?seconds?", re.IGNORECASE)


class AzureDialect(OpenAIDialect):
    """Chat completions of one deployment. A key that is a token of Entra ID (a JWT) is sent as one.

    `base_url` may be the resource's address, with or without `/openai`, `/openai/v1` or the whole
    path of a deployment, as the portal shows it.
    """

    def __init__(self, model: Model, endpoint: Endpoint) -> None:
        super().__init__(model, endpoint)
        self._version = endpoint.api_version

    def address(self, base: httpx.URL) -> httpx.URL:
        """Raises `ValueError` for the path of a deployment without an api_version."""
        path = base.raw_path.decode().partition("?")[0].rstrip("/").removesuffix(_CALL)
        version = self._version or base.params.get("api-version")
        dated = version is not None and _DATED.match(version) is not None
        if _DEPLOYMENT.search(path):
            if not dated:
                raise ValueError(
                    "base_url is that of a deployment: set the endpoint's api_version to a date "
                    "such as 2024-10-21"
                )
        elif path.endswith("/openai/v1"):
            version = None if dated else version  # The path without dates knows none.
        else:
            name = quote(self._model.provider_model, safe="")
            rest = f"/deployments/{name}" if dated else "/v1"
            path = f"{path.removesuffix('/openai')}/openai{rest}"
        others = base.params.remove("api-version")
        query = str(others.set("api-version", version) if version else others)
        return base.copy_with(raw_path=(path + _CALL + (f"?{query}" if query else "")).encode())

    def headers(self, base: httpx.URL) -> Mapping[str, str]:
        if not self._key or _ENTRA_TOKEN.fullmatch(self._key):
            return super().headers(base)
        return {"api-key": self._key}

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> Completion | Failure:
        outcome = super().read(status, headers, body, now)
        if not isinstance(outcome, Failure):
            return outcome
        if outcome.kind is FailureKind.LIMITED and not outcome.retry_after_s:
            return replace(outcome, retry_after_s=_wait_s(outcome))
        if status == 400 and "api version not supported" in outcome.message.lower():
            return replace(outcome, kind=FailureKind.DENIED)
        return outcome


def _wait_s(failure: Failure) -> float | None:
    """Return the wait that the text of a rate limit names, in seconds, if it names one."""
    found = _WAIT.search(failure.message)
    if found is None:
        return failure.retry_after_s
    return int(found[1]) / (1000 if found[2] else 1)


class Azure(OverHttp):
    """Calls one deployment at one Azure resource: `OverHttp` in `AzureDialect`."""

    dialect = AzureDialect
