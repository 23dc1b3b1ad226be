"""The addresses that follow from a provider and a region. Pure."""

from collections.abc import Mapping
from typing import Any


def with_address(provider: str, endpoint: Any) -> Any:
    """Return an endpoint's fields with the address that follows from its provider and region.

    `provider` is the model's; the endpoint's own counts before it.
    """
    if not isinstance(endpoint, Mapping) or endpoint.get("base_url"):
        return endpoint
    provider = str(endpoint.get("provider") or provider)
    region = endpoint.get("region")
    url = None
    if provider == "anthropic":
        url = "https://api.anthropic.com"
    elif provider == "bedrock" and region:
        url = f"https://bedrock-runtime.{region}.amazonaws.com"
    elif provider == "vertex" and region:
        prefix = "" if region == "global" else f"{region}-"
        url = f"https://{prefix}aiplatform.googleapis.com"
    return {**endpoint, "base_url": url} if url else endpoint
