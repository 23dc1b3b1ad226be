"""The Anthropic adapter and its fake, beside Anthropic's own Python library."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import httpx
import pytest
from fakes import anthropic_api
from fakes.anthropic_api import AnthropicApi, error, problem, stream_of_message
from fakes.closed_types import Closed
from fakes.dialects import NOW, Speaker, asked
from fakes.matrix import COMMON, ROUNDS, TOOLS, URL, WEATHER, image, told, user, words
from fakes.server import Canned

from model_workers.providers.anthropic import AnthropicDialect
from model_workers.providers.anthropic_call import NATIVE, NO_SAMPLING
from model_workers.providers.base import Completion, Failure, Unsupported
from modelyard.catalog import Endpoint, Model
from modelyard.messages import Message, Request

anthropic = pytest.importorskip("anthropic", reason="the SDK of Anthropic is not installed")

from anthropic.types import ErrorResponse, RawMessageStreamEvent, StopReason  # noqa: E402
from anthropic.types import Message as SdkMessage  # noqa: E402
from anthropic.types import message_create_params as params  # noqa: E402

KEY = "sk-ant-secret-0123456789"
EVENTS = {"content-type": "text/event-stream"}
WHOLE = Closed(params.MessageCreateParamsNonStreaming)
STREAMED = Closed(params.MessageCreateParamsStreaming)
ANSWER, EVENT = Closed(SdkMessage), Closed(RawMessageStreamEvent)
ERROR = Closed(ErrorResponse)

REQUESTS: Mapping[str, Request] = {
    **{name: request for name, request in COMMON.items() if name != "sampling"},
    "image address": asked(user(words("What is it?"), image(URL))),
    "image of a tool": asked(
        *ROUNDS[:2], told("call_1", [image(URL)]), told("functions.weather:2"), tools=TOOLS
    ),
    "one at a time": asked(tools=TOOLS, parallel_tool_calls=False),
    "schema, effort and own": asked(
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
        reasoning_effort="max",
    ),
    "no thoughts": asked(reasoning_effort="none"),
    "budget": asked(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000),
    "budget after others' calls": asked(
        *ROUNDS[:4],
        tools=TOOLS,
        thinking={"type": "enabled", "budget_tokens": 1024},
        max_tokens=2000,
    ),
    "adaptive": asked(thinking={"type": "adaptive", "display": "omitted"}),
    "between tools": asked(thinking={"type": "between_tools"}, tools=TOOLS),
    "cached": asked(
        cache_control={"type": "ephemeral", "ttl": "1h"},
        tools=[{**WEATHER, "cache_control": {"type": "ephemeral"}}],
    ),
    "own tools": asked(
        tools=[WEATHER, {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    ),
    "about": asked(user="u-1", service_tier="default", inference_geo="us", container="c-1"),
    "about, too": asked(metadata={"user_id": "u-1"}, speed="fast", stop_sequences=["END"]),
    "diagnostics": asked(diagnostics={"previous_message_id": None}),
}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city_name": "Bern"}}
THOUGHT = {"type": "thinking", "thinking": "Bern, then.", "signature": "EqQBCgIYAhIk"}
HIDDEN = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3p"}
REFUSED = {"type": "refusal", "category": "cyber", "explanation": "No."}
text, message = anthropic_api.text, anthropic_api.message
ANSWERS: Mapping[str, dict[str, Any]] = {
    "text": message(text("Salve, mundus totus!")),
    "call": message(USE, stop_reason="tool_use"),
    "text and calls": message(
        text("Let me see."), USE, {**USE, "id": "toolu_2", "input": {}}, stop_reason="tool_use"
    ),
    "thoughts": message(THOUGHT, text("Sunny")),
    "thoughts and a call": message(THOUGHT, HIDDEN, text("So"), USE, stop_reason="tool_use"),
    "cut": message(text("Sal"), stop_reason="max_tokens"),
    "stopped": message(text("Sal"), stop_reason="stop_sequence", stop_sequence="END"),
    "refused": message(stop_reason="refusal", stop_details=REFUSED),
    "cached": message(
        text("Sal"),
        usage={
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 7,
            "cache_creation_input_tokens": 3,
        },
    ),
}


def dialect(version: str | None = NO_SAMPLING, *, stream: bool = False) -> AnthropicDialect:
    endpoint = Endpoint(base_url="https://api.anthropic.com", api_key=KEY, api_version=version)
    model = Model(
        name="claude",
        provider="anthropic",
        model="claude-sonnet-4-6",
        endpoints=(endpoint,),
        stream=stream,
    )
    return AnthropicDialect(model, endpoint)


SPEAKER = Speaker(dialect(), WHOLE.problem)


@pytest.fixture(scope="module")
def fake() -> Iterator[AnthropicApi]:
    with AnthropicApi(KEY) as api:
        yield api


@pytest.fixture(scope="module")
def client(fake: AnthropicApi) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=fake.base_url, api_key=KEY, max_retries=0) as sdk:
        yield sdk


class TestRequests:
    @pytest.mark.parametrize("name", REQUESTS)
    @pytest.mark.parametrize("stream", [False, True])
    def test_are_of_the_sdks_types_and_please_the_fake(self, name: str, stream: bool) -> None:
        body = json.loads(dialect(stream=stream).encode(REQUESTS[name]))
        assert (STREAMED if stream else WHOLE).problem(body) is None
        assert problem(body, NO_SAMPLING) is None

    @pytest.mark.parametrize("name", REQUESTS)
    def test_are_the_same_in_the_version_before(self, name: str) -> None:
        assert dialect(None).encode(REQUESTS[name]) == dialect().encode(REQUESTS[name])

    @pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
    def test_sampling_is_refused_where_the_version_has_none(self, name: str) -> None:
        request = asked(**{name: 1})
        with pytest.raises(Unsupported, match=f"{name}: API version 2026-10-21 has none"):
            dialect().encode(request)
        body = json.loads(dialect(None).encode(request))
        assert name in str(WHOLE.problem(body))
        assert name in str(problem(body, NO_SAMPLING))
        assert problem(body) is None

    def test_each_parameter_of_the_sdk_can_be_given(self) -> None:
        ours = {"model", "messages", "system", "max_tokens", "stream", "service_tier"}
        ours |= {"tools", "tool_choice"}
        headers = {"user_profile_id", "workspace_id"}
        theirs = set(get_type_hints(params.MessageCreateParamsStreaming))
        assert theirs - headers == (ours | set(NATIVE)) - {"top_k"}

    @pytest.mark.parametrize("stream", [False, True])
    def test_thoughts_that_were_read_go_back_as_they_came(self, stream: bool) -> None:
        whole = ANSWERS["thoughts and a call"]
        body = stream_of_message(whole) if stream else json.dumps(whole).encode()
        answer = dialect().read(200, EVENTS if stream else {}, body, NOW)
        assert isinstance(answer, Completion)
        turns = (
            Message(role="user", content="Weather?"),
            Message(role="assistant", content=answer.text, tool_calls=answer.tool_calls),
            Message(role="tool", tool_call_id="toolu_1", content="sunny"),
        )
        for thinking in ({"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1024}):
            own = {"tools": TOOLS, "thinking": thinking, "max_tokens": 2000}
            request = Request(messages=turns, params=own)
            sent = json.loads(dialect().encode(request))
            assert WHOLE.problem(sent) is None
            assert problem(sent) is None
            assert sent["messages"][1]["content"] == whole["content"]


class TestAnswers:
    @pytest.mark.parametrize("name", ANSWERS)
    def test_are_of_the_sdks_types(self, name: str) -> None:
        assert ANSWER.problem(ANSWERS[name]) is None
        for event in stream_of_message(ANSWERS[name]).decode().strip().split("\n\n"):
            said = json.loads(event.partition("\ndata: ")[2])
            if said["type"] != "ping":  # Anthropic sends it, and the SDK's reader leaves it out.
                assert EVENT.problem(said) is None

    @pytest.mark.parametrize("reason", get_args(StopReason))
    def test_each_stop_reason_of_the_sdk_means_something(self, reason: str) -> None:
        whole = message(text("Salve"), stop_reason=reason)
        assert ANSWER.problem(whole) is None
        means = SPEAKER.answered(whole).finish_reason
        known = {"stop", "length", "tool_calls", "content_filter"}
        assert means in known or (reason, means) == ("pause_turn", "pause_turn")
        nothing = SPEAKER.read(200, message(stop_reason=reason))
        assert isinstance(nothing, Failure) or nothing.text == ""

    @pytest.mark.parametrize(
        ("status", "type", "name", "kind"),
        [
            (400, "invalid_request_error", "BadRequestError", "permanent"),
            (401, "authentication_error", "AuthenticationError", "denied"),
            (402, "billing_error", "PaymentRequiredError", "denied"),
            (403, "permission_error", "PermissionDeniedError", "denied"),
            (404, "not_found_error", "NotFoundError", "denied"),
            (429, "rate_limit_error", "RateLimitError", "limited"),
            (500, "api_error", "InternalServerError", "retryable"),
            (504, "timeout_error", "GatewayTimeoutError", "retryable"),
            (529, "overloaded_error", "OverloadedError", "retryable"),
        ],
    )
    def test_errors_are_the_sdks(
        self, fake: AnthropicApi, client: Any, status: int, type: str, name: str, kind: str
    ) -> None:
        said = error(type, "No.")
        assert ERROR.problem(said) is None
        fake.script(Canned(status, said))
        with pytest.raises(getattr(anthropic, name)) as caught:
            client.messages.create(**json.loads(dialect().encode(COMMON["plain"])))
        assert caught.value.type == type
        assert SPEAKER.failed(status, said).kind == kind

    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("enforced_spend_limit_reached", 429, "denied"),
            ("contract_spend_limit_reached", 429, "denied"),
            ("ramp_limit_exceeded", 429, "limited"),
            ("organization_on_hold", 400, "denied"),
            ("cmek_key_disabled", 400, "denied"),
            ("cmek_key_network_blocked", 400, "denied"),
            ("cmek_key_unreachable", 503, "retryable"),
            ("linked_organization_spend_limit_reached", 402, "denied"),
            ("tool_name_conflict", 400, "permanent"),
        ],
    )
    def test_codes_of_errors_are_the_sdks(
        self, fake: AnthropicApi, client: Any, code: str, status: int, kind: str
    ) -> None:
        said = error("invalid_request_error", "No.", details={"error_code": code})
        fake.script(Canned(status, said))
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**json.loads(dialect().encode(COMMON["plain"])))
        # The SDK has a class for each code, with its status: another one would be the plain class.
        assert type(caught.value).__name__.lower() == code.replace("_", "") + "error"
        assert SPEAKER.failed(status, said).kind == kind


class TestClient:
    """Anthropic's client at the fake, and what our adapter makes of the same answers."""

    @pytest.mark.parametrize("name", REQUESTS)
    def test_can_ask_what_the_adapter_asks(
        self, fake: AnthropicApi, client: Any, name: str
    ) -> None:
        ours = dialect()
        body = json.loads(ours.encode(REQUESTS[name]))
        said = client.messages.create(**body)
        assert said.content[0].text.startswith("claude-sonnet-4-6 read")
        heard = fake.calls[-1]
        assert heard.body == body
        base = httpx.URL(fake.base_url)
        assert heard.path == ours.address(base).path
        assert heard.headers["anthropic-version"] == ours.headers(base)["anthropic-version"]

    def test_the_key_may_be_either_header(self, fake: AnthropicApi) -> None:
        ours, base = dialect(None), httpx.URL(fake.base_url)
        content = ours.encode(COMMON["plain"])
        headers = dict(ours.headers(base))
        address = str(ours.address(base))
        assert httpx.post(address, content=content, headers=headers).status_code == 200
        headers["authorization"] = f"Bearer {headers.pop('x-api-key')}"
        assert httpx.post(address, content=content, headers=headers).status_code == 200
        headers["authorization"] = "Bearer another"
        assert httpx.post(address, content=content, headers=headers).status_code == 401

    @pytest.mark.parametrize("name", ANSWERS)
    def test_hears_the_same_whole_and_streamed(
        self, fake: AnthropicApi, client: Any, name: str
    ) -> None:
        fake.script(Canned(200, ANSWERS[name]))
        fake.script(Canned(200, stream_of_message(ANSWERS[name]), EVENTS))
        body = json.loads(dialect().encode(COMMON["plain"]))
        whole = client.messages.create(**body)
        with client.messages.stream(**body) as stream:
            joined = stream.get_final_message()
        assert whole.to_dict() == ANSWERS[name]
        assert joined.to_dict(exclude_none=True) == whole.to_dict(exclude_none=True)

    @pytest.mark.parametrize("name", sorted(ANSWERS.keys() - {"refused"}))
    def test_reads_what_the_adapter_reads(self, name: str) -> None:
        theirs = SdkMessage.model_validate(ANSWERS[name])
        for body, headers in (
            (ANSWERS[name], None),
            (stream_of_message(ANSWERS[name]), EVENTS),
        ):
            ours = SPEAKER.answered(body, headers)
            texts = [block.text for block in theirs.content if block.type == "text"]
            assert ours.text == "".join(texts)
            asked_for = [
                (block.id, block.name, block.input)
                for block in theirs.content
                if block.type == "tool_use"
            ]
            assert asked_for == [
                (call.id, call.function.name, json.loads(call.function.arguments))
                for call in ours.tool_calls
            ]
            assert ours.usage.output_tokens == theirs.usage.output_tokens
            assert ours.provider_model == theirs.model
