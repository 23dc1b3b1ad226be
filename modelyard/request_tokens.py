"""How many tokens of a request's input are not its text, estimated."""

import json
from typing import Any, Final

from modelyard.messages import Request
from modelyard.tokens import estimate_tokens

IMAGE_TOKENS: Final = 1_000
"""Of a large image the providers make some 750 to 1,600, of a small one fewer:
https://platform.openai.com/docs/guides/images-vision#calculating-costs
"""

TOLD: Final = ("tools", "functions", "response_format")
"""The parameters that the model reads."""


def tokens_beside_text(request: Request) -> int:
    """Return about how many tokens tools, calls of them, schemas and images take."""
    tokens = 0
    for name in TOLD:
        if name in request.params:
            tokens += json_tokens(request.params[name])
    for message in request.messages:
        for call in message.tool_calls:
            tokens += estimate_tokens(call.function.name) + estimate_tokens(call.function.arguments)
            if call.opaque is not None:
                tokens += json_tokens(call.opaque)
        if not isinstance(message.content, str):
            tokens += IMAGE_TOKENS * len(message.images)
    return tokens


def json_tokens(value: Any) -> int:
    """Return about how many tokens a value is as JSON."""
    return estimate_tokens(json.dumps(value, ensure_ascii=False, default=str))
