"""A catalog of one model that one endpoint answers for, as benchmarks of a single pool need it."""

import json
from typing import Any


def one_model(name: str, base_url: str, **settings: Any) -> str:
    """Return the catalog as text; `settings` are more keys of the model."""
    model = {"name": name, "provider": "openai", "endpoints": [{"base_url": base_url}], **settings}
    return json.dumps({"models": [model], "routes": {"default": {"otherwise": [name]}}}, indent=2)
