"""Models of the fake provider, as catalogs have them."""

import json
from typing import Any, Final

USUAL: Final[dict[str, Any]] = {
    "provider": "openai",
    "endpoints": [{"base_url": "${FAKE_URL}", "api_key": "${FAKE_KEY}"}],
    "context_tokens": 100_000,
    "concurrency": 20,
    "timeout_s": 20,
    "retry": {"calls": 2, "base_s": 0.01, "cap_s": 0.05, "patience_s": 2},
    # It does not open: what one test does to a model is nothing to the next.
    "breaker": {"failures": 1000, "cooldown_s": 0.01, "longest_s": 0.02, "denied_s": 0.01},
}


def fake_model(name: str, *, usd: float | None = None, **settings: Any) -> str:
    """Return an item of `models`, as text: as usual, but for these settings.

    `usd`: what a million tokens cost, those that go in and those that come out.
    """
    if usd is not None:
        settings["price"] = {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd}
    keys = (f"    {key}: {json.dumps(value)}\n" for key, value in (USUAL | settings).items())
    return f"  - name: {name}\n{''.join(keys)}"


def fake_models(*models: str) -> str:
    """Return the section of these models; a catalog needs `routes` too."""
    return f"models:\n{''.join(models)}"
