"""Bedrock's dialect, ready to be spoken in tests."""

import httpx

from fakes.bedrock_api import problem
from fakes.dialects import Speaker
from model_workers.providers.bedrock import BedrockDialect
from modelyard.catalog import Endpoint, Model

NOVA = "us.amazon.nova-lite-v1:0"
ROUTER = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1"
BASE = httpx.URL("https://bedrock-runtime.us-east-1.amazonaws.com")


def dialect(name: str = NOVA, key: str | None = None) -> BedrockDialect:
    endpoint = Endpoint(base_url=str(BASE), api_key=key)
    model = Model(name="nova", provider="bedrock", model=name, endpoints=(endpoint,))
    return BedrockDialect(model, endpoint)


SPEAKER = Speaker(dialect(), problem)
sent, refused = SPEAKER.sent, SPEAKER.refused
read, answered, failed = SPEAKER.read, SPEAKER.answered, SPEAKER.failed
