"""Anthropic's dialect, ready to be spoken in tests."""

from typing import Any

from fakes.anthropic_api import problem
from fakes.dialects import Speaker
from model_workers.providers.anthropic import AnthropicDialect
from modelyard.catalog import Endpoint, Model

ENDPOINT = Endpoint(base_url="https://api.anthropic.com", api_key="sk-ant-secret-0123456789")


def dialect(endpoint: Endpoint = ENDPOINT, **changes: Any) -> AnthropicDialect:
    model = Model(
        name="claude",
        provider="anthropic",
        model="claude-sonnet-4-5",
        endpoints=(endpoint,),
        max_output_tokens=700,
        **changes,
    )
    return AnthropicDialect(model, endpoint)


SPEAKER = Speaker(dialect(), problem)
sent, refused = SPEAKER.sent, SPEAKER.refused
read, answered, failed = SPEAKER.read, SPEAKER.answered, SPEAKER.failed
