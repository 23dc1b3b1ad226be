"""What a provider wants back with its own tool calls, unchanged: `ToolCall.opaque`.

Thinking models sign what they thought before a call, and some refuse the next turn without it. It
goes to the producer inside the call and comes back in the conversation, so nothing has to be
remembered here, and whoever sends `tool_calls` back as they came has done all there is to do.

It stands under the name of the model that wrote it, and no other one is told of it: another model,
or the same one at another provider, can't read it, and most refuse it. What each does without is
in its own table.
"""

import json
from collections.abc import Mapping
from typing import Any

from model_workers.providers.clean import encodable
from modelyard.catalog import Model
from modelyard.messages import ToolCall, check_encodable


def author(model: Model) -> str:
    """Return the name under which a model's own words stand.

    Another `provider` or `model` under the same name in the catalog is another author.
    """
    return f"{model.provider}:{model.name}:{model.provider_model}"


def seal(by: str, words: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a call carries of `words`; None if there are none, or they can't travel.

    Without an author (`by` is "") nothing is kept.
    """
    said = {key: value for key, value in words.items() if value}
    if not said or not by:
        return None
    try:
        sealed = {by: json.loads(encodable(json.dumps(said, ensure_ascii=False, allow_nan=False)))}
        check_encodable(sealed)
    except (ValueError, RecursionError):
        return None  # What is broken in itself would break the next turn, too.
    return sealed


def unseal(by: str, call: ToolCall) -> dict[str, Any]:
    """Return what the model `by` said with a call, or nothing if it was another one's."""
    words = (call.opaque or {}).get(by) if by else None
    return words if isinstance(words, dict) else {}


def blocks(words: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects under `key`; producers may have written what they like."""
    listed = words.get(key)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
