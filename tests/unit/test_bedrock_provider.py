"""What the Bedrock provider sends, and what it makes of every kind of answer."""

import json
from typing import Any

import pytest
from fakes.bedrock_api import answer, problem
from fakes.bedrock_words import BASE, NOVA, ROUTER, answered, dialect, failed, read, refused, sent
from fakes.requests import PNG, WEATHER, any_requests, broken, good_requests
from hypothesis import given

from model_workers.providers.base import Completion, Failure, Unsupported
from modelyard.errors import FailureKind
from modelyard.messages import Request, ToolCall, Usage

QUESTION = {"role": "user", "content": "Weather?"}
CALLING = {
    "role": "assistant",
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"}
INVALID = "ValidationException"


class TestAddress:
    def test_the_model_is_one_part_of_the_path(self) -> None:
        assert dialect().address(BASE).raw_path == b"/model/us.amazon.nova-lite-v1:0/converse"
        assert dialect(ROUTER).address(BASE).raw_path == (
            b"/model/arn:aws:bedrock:us-east-1:123456789012:default-prompt-router"
            b"%2Fanthropic.claude:1/converse"
        )

    def test_a_key_is_a_bearer_token(self) -> None:
        assert dialect(key="bedrock-api-key-1").headers(BASE) == {
            "authorization": "Bearer bedrock-api-key-1"
        }
        assert dialect().headers(BASE) == {}


class TestTurns:
    def test_alternate_and_system_turns_stand_apart(self) -> None:
        assert sent(
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One"},
            {"role": "user", "content": "Two"},
            {"role": "assistant", "content": "Yes"},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "Three"},
        ) == {
            "system": [{"text": "Be short."}],
            "messages": [
                {"role": "user", "content": [{"text": "One"}, {"text": "Two"}]},
                {"role": "assistant", "content": [{"text": "Yes"}]},
                {"role": "user", "content": [{"text": "Three"}]},
            ],
        }

    def test_calls_of_tools_and_their_results(self) -> None:
        body = sent(QUESTION, CALLING, QUESTION, RESULT, tools=[WEATHER])
        use = {"toolUseId": "call_1", "name": "weather", "input": {"city": "Bern"}}
        result = {"toolUseId": "call_1", "content": [{"text": "Sunny"}]}
        assert body["messages"][1:] == [
            {"role": "assistant", "content": [{"toolUse": use}]},
            {"role": "user", "content": [{"toolResult": result}, {"text": "Weather?"}]},
        ]

    def test_images_are_bytes(self) -> None:
        part = {"type": "image_url", "image_url": {"url": PNG}}
        image = {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}
        body = sent({"role": "user", "content": [part]})
        assert body["messages"][0]["content"] == [{"image": image}]

    def test_an_image_at_an_address_is_refused(self) -> None:
        part = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
        assert "data:image" in refused({"role": "user", "content": [part]})

    def test_the_user_has_to_begin(self) -> None:
        assert "user turn" in refused({"role": "assistant", "content": "Hi"}, QUESTION)

    def test_calls_without_the_tools_are_refused(self) -> None:
        assert "give the tools" in refused(QUESTION, CALLING, RESULT)


class TestParams:
    @pytest.mark.parametrize(
        ("params", "body"),
        [
            (
                {"max_tokens": 9, "temperature": 0, "top_p": 0.5, "stop": "END"},
                {
                    "inferenceConfig": {
                        "maxTokens": 9,
                        "temperature": 0,
                        "topP": 0.5,
                        "stopSequences": ["END"],
                    }
                },
            ),
            (
                {"max_tokens": 9, "inferenceConfig": {"temperature": 1}},
                {"inferenceConfig": {"maxTokens": 9, "temperature": 1}},
            ),
            (
                {"metadata": {"tenant": "acme"}, "user": "u-1"},
                {"requestMetadata": {"tenant": "acme", "user": "u-1"}},
            ),
            ({"reasoning_effort": "high"}, {"outputConfig": {"effort": "high"}}),
            ({"service_tier": "flex"}, {"serviceTier": {"type": "flex"}}),
            ({"service_tier": "auto", "n": 1, "stream": True, "logprobs": False}, {}),
            ({"guardrailConfig": {"guardrailIdentifier": "a1", "guardrailVersion": "1"}},) * 2,
            ({"additionalModelRequestFields": {"top_k": 5}},) * 2,
            ({"parallel_tool_calls": False, "tool_choice": "none"}, {}),
            (
                {"anthropic_beta": ["a-1"], "additionalModelRequestFields": {"top_k": 5}},
                {"additionalModelRequestFields": {"top_k": 5, "anthropic_beta": ["a-1"]}},
            ),
        ],
    )
    def test_are_said_in_its_own_words(self, params: Any, body: dict[str, Any]) -> None:
        assert sent(**params) == {**sent(), **body}

    def test_a_schema_is_json_within_json(self) -> None:
        schema = {"type": "object"}
        asked = {"name": "city", "strict": True, "schema": schema}
        format = sent(response_format={"type": "json_schema", "json_schema": asked})
        (told,) = format["outputConfig"]["textFormat"]["structure"].values()
        assert (json.loads(told["schema"]), told["name"]) == (schema, "city")

    @pytest.mark.parametrize(
        ("choice", "said"),
        [
            ("auto", {"auto": {}}),
            ("required", {"any": {}}),
            ({"type": "function", "function": {"name": "weather"}}, {"tool": {"name": "weather"}}),
            ({"any": {}}, {"any": {}}),
            (None, None),
        ],
    )
    def test_whether_a_tool_has_to_be_called(self, choice: Any, said: Any) -> None:
        config = sent(tools=[WEATHER, {"cachePoint": {"type": "default"}}], tool_choice=choice)[
            "toolConfig"
        ]
        assert config.get("toolChoice") == said
        assert config["tools"] == [
            {"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}},
            {"cachePoint": {"type": "default"}},
        ]

    def test_tools_that_must_not_be_called_are_not_told(self) -> None:
        assert "toolConfig" not in sent(tools=[WEATHER], tool_choice="none")
        why = refused(QUESTION, CALLING, RESULT, tools=[WEATHER], tool_choice="none")
        assert "tool_choice" in why

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"temperature": 1.5}, ["temperature", "0 to 1"]),
            ({"seed": 7}, ["seed", "additionalModelRequestFields"]),
            ({"top_k": 7}, ["top_k", "additionalModelRequestFields"]),
            ({"logprobs": True}, ["logprobs"]),
            ({"n": 2}, ["'n'"]),
            ({"parallel_tool_calls": False, "tools": [WEATHER]}, ["parallel_tool_calls"]),
            ({"response_format": {"type": "json_object"}}, ["json_schema"]),
            ({"reasoning_effort": "none"}, ["reasoning_effort"]),
            ({"service_tier": "scale"}, ["service_tier", "flex"]),
            ({"metadata": {"who": "Ünal"}}, ["metadata", "who"]),
            ({"metadata": {str(n): "" for n in range(17)}}, ["metadata", "16"]),
            ({"max_tokens": 9, "inferenceConfig": {"maxTokens": 8}}, ["inferenceConfig.maxTokens"]),
            ({"tools": [{"type": "web_search", "name": "a"}]}, ["tools[0]"]),
            ({"anthropic_beta": ["a b"]}, ["anthropic_beta"]),
            (
                {"anthropic_beta": ["a"], "additionalModelRequestFields": {"anthropic_beta": []}},
                ["additionalModelRequestFields.anthropic_beta"],
            ),
        ],
    )
    def test_what_it_lacks_is_refused_by_name(
        self, params: dict[str, Any], words: list[str]
    ) -> None:
        why = refused(**params)
        assert all(word in why for word in ["Bedrock", *words])

    @given(any_requests())
    def test_what_is_sent_is_taken(self, request: Request) -> None:
        try:
            content = dialect().encode(request)
        except Unsupported as why:
            assert "Bedrock" in str(why)
        else:
            assert problem(json.loads(content)) is None

    @given(good_requests())
    def test_what_it_has_is_never_refused(self, request: Request) -> None:
        assert problem(json.loads(dialect().encode(request))) is None


class TestAnswer:
    def test_text_and_all_the_tokens(self) -> None:
        usage = {
            "inputTokens": 3,
            "outputTokens": 9,
            "totalTokens": 132,
            "cacheReadInputTokens": 100,
            "cacheWriteInputTokens": 20,
        }
        thought = {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "EqQ"}}}
        cited = {"citationsContent": {"content": [{"text": "ve"}], "citations": []}}
        assert answered(answer(thought, {"text": "Sal"}, cited, usage=usage)) == Completion(
            text="Salve",
            provider_model=NOVA,
            usage=Usage(
                input_tokens=123, output_tokens=9, cached_input_tokens=100, cache_write_tokens=20
            ),
        )

    def test_a_router_says_which_model_it_chose(self) -> None:
        chosen = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku"
        trace = {"promptRouter": {"invokedModelId": chosen}}
        assert answered(answer({"text": "Salve"}, trace=trace)).provider_model == chosen

    def test_calls_of_tools(self) -> None:
        use = {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Bern"}}
        own = {"toolUseId": "t2", "name": "search", "input": {}, "type": "server_tool_use"}
        body = answer({"toolUse": use}, {"toolUse": own}, stopReason="tool_use")
        completion = answered(body)
        assert completion.tool_calls == (ToolCall.of("tooluse_1", "weather", '{"city": "Bern"}'),)
        assert (completion.text, completion.finish_reason) == ("", "tool_calls")

    @pytest.mark.parametrize(
        ("reason", "means"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("of_tomorrow", "of_tomorrow"),
        ],
    )
    def test_why_it_ended(self, reason: str, means: str) -> None:
        completion = answered(answer({"text": "Salve"}, stopReason=reason))
        assert completion.finish_reason == means

    @pytest.mark.parametrize(
        ("reason", "content", "kind"),
        [
            ("guardrail_intervened", [{"text": "Sorry."}], FailureKind.REFUSED),
            ("content_filtered", [], FailureKind.REFUSED),
            ("malformed_tool_use", [{"text": "So"}], FailureKind.RETRYABLE),
            ("malformed_model_output", [], FailureKind.RETRYABLE),
            ("max_tokens", [], FailureKind.PERMANENT),
            ("model_context_window_exceeded", [], FailureKind.TOO_LONG),
        ],
    )
    def test_what_is_no_answer(
        self, reason: str, content: list[dict[str, Any]], kind: FailureKind
    ) -> None:
        assert failed(200, answer(*content, stopReason=reason)).kind == kind

    @given(broken(answer({"text": "So"}, {"toolUse": {"name": "a", "input": {}}}, trace={})))
    def test_of_any_shape_has_an_outcome(self, body: Any) -> None:
        assert isinstance(read(200, body), Completion | Failure)
        assert isinstance(read(400, body), Failure)

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b""])
    def test_what_can_not_be_read_is_tried_again(self, body: bytes) -> None:
        assert failed(200, body).kind == FailureKind.RETRYABLE


class TestError:
    @pytest.mark.parametrize(
        ("status", "type", "said", "kind"),
        [
            (400, INVALID, "Input is too long for requested model.", "too_long"),
            (
                400,
                INVALID,
                "The model returned the following errors: prompt is too long: 9 > 8 maximum",
                "too_long",
            ),
            (
                400,
                INVALID,
                "This model's maximum context length is 8192 tokens. Please reduce the length",
                "too_long",
            ),
            (413, "RequestEntityTooLargeException", "", "too_long"),
            (400, INVALID, "A conversation must alternate", "permanent"),
            (400, INVALID, "The provided model identifier is invalid.", "denied"),
            (
                400,
                INVALID,
                "Invocation of model ID a with on-demand throughput isn’t supported.",
                "denied",
            ),
            (400, "ServiceQuotaExceededException", "Too many requests, try again.", "limited"),
            (400, "ServiceQuotaExceededException", "Your account has no quota.", "denied"),
            (403, "AccessDeniedException", "You don't have access to the model", "denied"),
            (403, "ExpiredTokenException", "The security token is expired", "denied"),
            (404, "ResourceNotFoundException", "No such model", "denied"),
            (408, "ModelTimeoutException", "Slow", "retryable"),
            (424, "ModelErrorException", "Broken", "retryable"),
            (429, "ThrottlingException", "Too many tokens, please wait", "limited"),
            (429, "ModelNotReadyException", "Warming up", "retryable"),
            (500, "InternalServerException", "Oops", "retryable"),
            (503, "ServiceUnavailableException", "Later", "retryable"),
            (422, "OfTomorrowException", "No", "permanent"),
        ],
    )
    def test_means(self, status: int, type: str, said: str, kind: str) -> None:
        in_header = failed(status, {"message": said}, {"x-amzn-errortype": f"{type}:http://a.b/"})
        in_body = failed(status, {"__type": f"com.amazon.a#{type}", "Message": said})
        assert (in_header.kind, in_header.status) == (kind, status)
        assert in_header == in_body

    def test_says_how_long_to_wait(self) -> None:
        headers = {"retry-after": "7", "x-amzn-errortype": "ThrottlingException"}
        assert failed(429, {"message": "Slow"}, headers).retry_after_s == 7

    def test_of_a_signature_keeps_what_was_signed_to_itself(self) -> None:
        said = (
            "The signature we calculated is another one.\n\nThe Canonical String for "
            "this request should have been\n'POST\nx-amz-security-token:IQoJsecret'"
        )
        failure = failed(403, {"message": said}, {"x-amzn-errortype": "InvalidSignatureException"})
        assert failure.message == (
            "HTTP 403 InvalidSignatureException: The signature we calculated is another one."
        )
