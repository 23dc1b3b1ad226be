"""Turns with tools through real workers: what a model signed comes back to it, and to no other.

The fakes refuse a turn as their originals do: Gemini 3 a call without its signature or with one of
somebody else's, Claude in thinking mode a turn that does not begin with its thoughts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.anthropic_api import AnthropicApi, message
from fakes.requests import WEATHER
from fakes.server import Canned
from fakes.vertex_api import OWN, VertexApi
from fakes.vertex_api import answer as says
from workers import KEY, Workers, workers

from modelyard import Client, Message, Request
from modelyard.messages import Answer

CATALOG = """
models:
  - name: gemini
    provider: vertex
    model: gemini-3-pro
    endpoints: [{base_url: "${GEMINI_URL}/v1beta", api_key: "${FAKE_KEY}"}]
    retry: {calls: 1}
  - name: claude
    provider: anthropic
    model: claude-x
    max_output_tokens: 4000
    endpoints: [{base_url: "${CLAUDE_URL}", api_key: "${FAKE_KEY}"}]
    retry: {calls: 1}
routes:
  default: {otherwise: [gemini, claude]}
"""
THOUGHT = {"type": "thinking", "thinking": "Bern, then.", "signature": "EqQBCgIYAhIM"}
PARAMS: dict[str, Any] = {"tools": [WEATHER]}
THINKS = {**PARAMS, "thinking": {"type": "enabled", "budget_tokens": 1024}}


@pytest.fixture
def gemini() -> Iterator[VertexApi]:
    with VertexApi(KEY) as api:
        yield api


@pytest.fixture
def claude() -> Iterator[AnthropicApi]:
    with AnthropicApi(KEY) as api:
        yield api


@pytest.fixture
def yard(
    tmp_path: Path, redis_url: str, gemini: VertexApi, claude: AnthropicApi
) -> Iterator[Workers]:
    env = {"GEMINI_URL": gemini.base_url, "CLAUDE_URL": claude.base_url}
    with workers(tmp_path, redis_url, catalog=CATALOG, env=env) as yard:
        yard.start_router()
        yard.start_pool("gemini")
        yard.start_pool("claude")
        yield yard


def calls_a_tool(gemini: VertexApi, claude: AnthropicApi) -> None:
    """Both answer their next call with a signed call of a tool."""
    part = {"functionCall": {"name": "weather", "args": {}}, "thoughtSignature": OWN}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
    gemini.script(Canned(body=says("", candidates=[candidate])))
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    claude.script(Canned(body=message(THOUGHT, use, stop_reason="tool_use")))


def next_turn(said: Answer, **fields: Any) -> Request:
    """What a producer asks next, who sends tool calls back as they came."""
    return Request(
        messages=(
            Message(role="user", content="Weather?"),
            Message(role="assistant", content=said.text, tool_calls=said.tool_calls),
            *(
                Message(role="tool", tool_call_id=call.id, content="Sunny")
                for call in said.tool_calls
            ),
        ),
        **fields,
    )


def ask(client: Client, request: Request) -> Answer:
    answer = client.submit(request).result(60)
    assert all(attempt.kind is None for attempt in answer.attempts), answer.attempts
    return answer


def test_each_model_goes_on_with_its_own_calls_and_with_those_of_the_other(
    yard: Workers, gemini: VertexApi, claude: AnthropicApi
) -> None:
    calls_a_tool(gemini, claude)
    with yard.client() as client:
        of_gemini = ask(client, Request.of("Weather?", models=("gemini",), params=PARAMS))
        of_claude = ask(client, Request.of("Weather?", models=("claude",), params=THINKS))
        for said in (of_gemini, of_claude):
            ask(client, next_turn(said, models=("gemini",), params=PARAMS))
            ask(client, next_turn(said, models=("claude",), params=THINKS))

    own, foreign = (call.body["contents"][1]["parts"][0] for call in gemini.calls[1:])
    assert own["thoughtSignature"] == OWN
    assert foreign["thoughtSignature"] not in (OWN, None)
    foreign, own = (call.body for call in claude.calls[1:])
    assert (foreign["thinking"]["type"], own["thinking"]["type"]) == ("disabled", "enabled")
    assert own["messages"][1]["content"][0] == THOUGHT
