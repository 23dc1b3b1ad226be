"""What the Gemini dialect sends and understands, and how it gets its token."""

import asyncio
import json
import math
import sys
import threading
from types import ModuleType
from typing import Any

import httpx
import pytest
from fakes.requests import PNG, any_requests, good_requests
from fakes.vertex_api import Refused, answer, check_call, error, streamed
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.base import Completion, Failure, Unsupported
from model_workers.providers.gemini_answer import read_response
from model_workers.providers.gemini_call import UNSIGNED, encode_call
from model_workers.providers.google_token import GoogleToken
from model_workers.providers.vertex import Vertex, VertexDialect
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage

NOW = 1_800_000_000.0
FLASH = "gemini-2.5-flash"
NEWER = "gemini-3-pro-preview"
HELLO = Request.of("Hello")
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "47.5s"}
VERTEX = "https://europe-west4-aiplatform.googleapis.com"
HERE = "projects/p-1/locations/europe-west4"
MODEL = f"publishers/google/models/{FLASH}"
UNUSUAL = ("reasoning_effort", "service_tier", "user")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def request(*messages: dict[str, Any], **params: Any) -> Request:
    said = messages or ({"role": "user", "content": "Hello"},)
    return Request.model_validate({"messages": list(said), "params": params})


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def calls(*asked: tuple[str, str, str]) -> dict[str, Any]:
    listed = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in asked
    ]
    return {"role": "assistant", "tool_calls": listed}


def told(id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def encoded(given: Request, model: str = FLASH) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_call(model, given, selects="optimizer" in model))
    check_call(body, model)
    return body


def config(model: str = FLASH, **params: Any) -> Any:
    return encoded(request(**params), model)["generationConfig"]


def refused(given: Request, model: str = FLASH) -> str:
    with pytest.raises(Unsupported) as caught:
        encode_call(model, given)
    return str(caught.value)


def read(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_response(status, headers or {}, raw, FLASH, NOW)


def ended(reason: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return answer("", candidates=[{"content": {"parts": list(parts)}, "finishReason": reason}])


def endpoint(base_url: str = VERTEX, **more: Any) -> Endpoint:
    return Endpoint(base_url=base_url, **more)


def dialect(at: Endpoint, name: str = FLASH, **more: Any) -> VertexDialect:
    return VertexDialect(
        Model(name="gemini", provider="vertex", model=name, endpoints=(at,), **more), at
    )


def address(at: Endpoint, name: str = FLASH, **more: Any) -> str:
    return str(dialect(at, name, **more).address(httpx.URL(at.base_url)))


class TestAddress:
    def test_is_in_the_project_and_region(self) -> None:
        at = endpoint(project="p-1", region="europe-west4")
        assert address(at) == f"{VERTEX}/v1/{HERE}/{MODEL}:generateContent"
        assert (
            address(at, stream=True) == f"{VERTEX}/v1/{HERE}/{MODEL}:streamGenerateContent?alt=sse"
        )

    def test_takes_the_region_from_the_host_or_the_whole_world(self) -> None:
        assert f"/v1/{HERE}/" in address(endpoint(project="p-1"))
        everywhere = endpoint("https://aiplatform.googleapis.com", project="p-1")
        assert "/locations/global/" in address(everywhere)

    @pytest.mark.parametrize(
        ("name", "resource"),
        [
            ("google/gemini-2.5-flash", f"{HERE}/{MODEL}"),
            ("publishers/meta/models/llama", f"{HERE}/publishers/meta/models/llama"),
            ("endpoints/77", f"{HERE}/endpoints/77"),
            (
                "projects/9/locations/us-east1/endpoints/7",
                "projects/9/locations/us-east1/endpoints/7",
            ),
        ],
    )
    def test_a_name_with_a_slash_says_more(self, name: str, resource: str) -> None:
        at = endpoint(project="p-1", region="europe-west4")
        assert address(at, name) == f"{VERTEX}/v1/{resource}:generateContent"

    def test_a_key_needs_no_project(self) -> None:
        express = endpoint("https://aiplatform.googleapis.com", api_key="AIza-1")
        assert address(express) == f"https://aiplatform.googleapis.com/v1/{MODEL}:generateContent"
        host = "https://generativelanguage.googleapis.com"
        for base in (host, f"{host}/v1beta/"):
            at = endpoint(base, api_key="AIza-1")
            assert address(at) == f"{host}/v1beta/models/{FLASH}:generateContent"
            assert address(at, f"google/{FLASH}") == address(at)

    def test_a_model_optimizer_is_in_the_beta(self) -> None:
        at = endpoint(project="p-1", region="global")
        assert "/v1beta1/projects/" in address(at, "model-optimizer-exp-04-09")
        other = endpoint(project="p-1", region="global", api_version="v2")
        assert "/v2/projects/" in address(other, "model-optimizer-exp-04-09")

    @pytest.mark.parametrize("key", [None, "ya29.token"])
    def test_without_project_and_key_says_what_is_missing(self, key: str | None) -> None:
        with pytest.raises(ProviderError, match="give the endpoint `project`"):
            address(endpoint(api_key=key))

    def test_a_token_is_a_bearer_and_a_key_is_none(self) -> None:
        base = httpx.URL(VERTEX)
        token = dialect(endpoint(api_key="ya29.abc", project="p")).headers(base)
        key = dialect(endpoint(api_key="AIza-1", project="p")).headers(base)
        assert (token, key) == (
            {"authorization": "Bearer ya29.abc"},
            {"x-goog-api-key": "AIza-1"},
        )


class TestTurns:
    def test_system_turns_stand_apart(self) -> None:
        body = encoded(
            request(
                {"role": "system", "content": "Be brief."},
                user("Hi"),
                {"role": "assistant", "content": "Hello."},
                {"role": "developer", "content": "Be kind."},
                user([{"type": "text", "text": "How"}, {"type": "text", "text": "are you?"}]),
            )
        )
        assert body == {
            "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Hi"}]},
                {"role": "model", "parts": [{"text": "Hello."}]},
                {"role": "user", "parts": [{"text": "How"}, {"text": "are you?"}]},
            ],
        }

    def test_results_come_in_the_order_of_the_calls_and_before_what_is_said(self) -> None:
        body = encoded(
            request(
                user("Weather?"),
                calls(("a", "weather", '{"city": "Bern"}'), ("b", "now", "")),
                told("b", "noon"),
                told("a", "rain"),
                user("Well?"),
            )
        )
        assert body["contents"][1:] == [
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "weather", "args": {"city": "Bern"}}},
                    {"functionCall": {"name": "now", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "weather", "response": {"output": "rain"}}},
                    {"functionResponse": {"name": "now", "response": {"output": "noon"}}},
                ],
            },
            {"role": "user", "parts": [{"text": "Well?"}]},
        ]

    def test_newer_models_get_a_word_for_the_signature_they_ask_for(self) -> None:
        asked = request(
            user("?"), calls(("a", "f", "{}"), ("b", "f", "{}")), told("a", "1"), told("b", "2")
        )
        parts = encoded(asked, NEWER)["contents"][1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == [UNSIGNED, None]
        assert "thoughtSignature" not in json.dumps(encoded(asked, FLASH))

    @pytest.mark.parametrize(
        ("messages", "why"),
        [
            ([user("?"), calls(("a", "f", "[1]")), told("a", "1")], "JSON object only"),
            ([user("?"), calls(("a", "f", '{"a": NaN}')), told("a", "1")], "can't take the arg"),
            ([user("?"), calls(("a", "1f", "{}")), told("a", "1")], "begin with a letter"),
            ([user("?"), calls(("a", "f", "{}"))], "answered by one tool turn"),
            ([calls(("a", "f", "{}")), told("a", "1")], "user turn before"),
            ([{"role": "system", "content": "Hi"}], "needs a user turn"),
        ],
    )
    def test_what_it_would_not_take_is_refused_here(self, messages: Any, why: str) -> None:
        assert why in refused(request(*messages))

    def test_images_are_bytes_or_addresses_with_a_type(self) -> None:
        body = encoded(
            request(
                user([image(PNG), image("gs://b/a.JPG"), image("https://x.example/a.webp?v=2")])
            )
        )
        assert body["contents"][0]["parts"] == [
            {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "gs://b/a.JPG"}},
            {"fileData": {"mimeType": "image/webp", "fileUri": "https://x.example/a.webp?v=2"}},
        ]

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("https://x.example/picture", "told an image's type"),
            ("http://x.example/a.png", "https:// or gs://"),
            ("data:image/png;base64,?", "not base64"),
            ("data:image/bmp;base64,Qk0=", "image/bmp"),
            ("data:text/html;base64,Qk0=", "as data:image"),
        ],
    )
    def test_other_images_are_refused(self, url: str, why: str) -> None:
        assert why in refused(request(user([image(url)])))

    def test_one_detail_holds_for_all_images(self) -> None:
        low = request(user([image(PNG, detail="low"), image(PNG, detail="low")]))
        assert encoded(low)["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW"}
        mixed = request(user([image(PNG, detail="low"), image(PNG)]))
        assert "one detail for all images" in refused(mixed)


class TestParams:
    def test_what_has_another_name(self) -> None:
        assert config(
            max_completion_tokens=50,
            temperature=1.5,
            top_p=0.5,
            top_k=3,
            stop="END",
            seed=7,
            n=2,
            frequency_penalty=0.5,
            presence_penalty=-0.5,
            logprobs=True,
            top_logprobs=2,
        ) == {
            "maxOutputTokens": 50,
            "temperature": 1.5,
            "topP": 0.5,
            "topK": 3,
            "stopSequences": ["END"],
            "seed": 7,
            "candidateCount": 2,
            "frequencyPenalty": 0.5,
            "presencePenalty": -0.5,
            "responseLogprobs": True,
            "logprobs": 2,
        }

    def test_what_asks_for_nothing_is_left_out(self) -> None:
        neutral: dict[str, Any] = {
            "n": 1,
            "logprobs": False,
            "stream": False,
            "store": False,
            "user": None,
            "response_format": {"type": "text"},
            "parallel_tool_calls": True,
        }
        assert encoded(request(**neutral)) == encoded(HELLO)

    def test_json_and_schemas(self) -> None:
        assert config(response_format={"type": "json_object"}) == {
            "responseMimeType": "application/json"
        }
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
        named = {"name": "A", "strict": True, "schema": schema, "description": "An A."}
        assert config(response_format={"type": "json_schema", "json_schema": named}) == {
            "responseMimeType": "application/json",
            "responseJsonSchema": {"description": "An A.", **schema},
        }

    @pytest.mark.parametrize(
        ("model", "effort", "thinking"),
        [
            (FLASH, "none", {"thinkingBudget": 0}),
            (FLASH, "high", {"thinkingBudget": 24_576}),
            (NEWER, "minimal", {"thinkingLevel": "MINIMAL"}),
            ("gemini-flash-latest", "low", {"thinkingLevel": "LOW"}),
        ],
    )
    def test_reasoning_effort_is_thinking(self, model: str, effort: str, thinking: Any) -> None:
        assert config(model, reasoning_effort=effort) == {"thinkingConfig": thinking}

    def test_the_model_optimizer_is_told_a_preference(self) -> None:
        assert config("model-optimizer-exp-04-09", model_selection="cost") == {
            "modelConfig": {"featureSelectionPreference": "PRIORITIZE_COST"}
        }
        assert "only a model optimizer" in refused(request(model_selection="cost"))

    def test_its_own_parameters_are_passed_on_and_may_not_contradict(self) -> None:
        own: dict[str, Any] = {
            "generationConfig": {"thinkingConfig": {"thinkingBudget": 5}},
            "labels": {"a": "b"},
        }
        body = encoded(request(max_tokens=9, **own))
        assert body["generationConfig"] == {**own["generationConfig"], "maxOutputTokens": 9}
        assert body["labels"] == {"a": "b"}
        assert "give one of them" in refused(request(reasoning_effort="low", **own))

    @pytest.mark.parametrize(
        ("params", "named"),
        [
            ({"user": "ann"}, "user"),
            ({"metadata": {"a": "b"}}, "metadata"),
            ({"logit_bias": {"1": 2}}, "logit_bias"),
            ({"prediction": {}}, "prediction"),
            ({"functions": []}, "functions"),
            ({"temperature": 2.5}, "temperature"),
            ({"temperature": "hot"}, "temperature"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": 2**31}, "max_tokens"),
            ({"seed": 2**31}, "seed"),
            ({"n": 9}, "n"),
            ({"stop": list("abcdef")}, "stop"),
            ({"top_logprobs": 2}, "top_logprobs"),
            ({"response_format": {"type": "xml"}}, "response_format"),
            ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
            ({"reasoning_effort": "xhigh"}, "reasoning_effort"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
            ({"tools": [{"type": "custom"}]}, "tools"),
            ({"model_selection": "best"}, "model_selection"),
        ],
    )
    def test_what_it_lacks_is_refused_by_name(self, params: dict[str, Any], named: str) -> None:
        assert named in refused(request(**params))

    def test_effort_none_is_refused_where_thinking_can_t_be_turned_off(self) -> None:
        assert "minimal" in refused(request(reasoning_effort="none"), NEWER)
        assert "thinkingConfig" in refused(request(reasoning_effort="low"), "endpoints/7")

    def test_tools(self) -> None:
        body = encoded(request(tools=[TOOL, {"googleSearch": {}}]))
        assert body["tools"] == [
            {
                "functionDeclarations": [
                    {
                        "name": "weather",
                        "description": "Says the weather.",
                        "parametersJsonSchema": TOOL["function"]["parameters"],  # type: ignore[index]
                    }
                ]
            },
            {"googleSearch": {}},
        ]
        assert "toolConfig" not in body

    @pytest.mark.parametrize(
        ("choice", "calling"),
        [
            ("auto", {"mode": "AUTO"}),
            ("none", {"mode": "NONE"}),
            ("required", {"mode": "ANY"}),
            (
                {"type": "function", "function": {"name": "weather"}},
                {"mode": "ANY", "allowedFunctionNames": ["weather"]},
            ),
        ],
    )
    def test_tool_choice(self, choice: Any, calling: Any) -> None:
        body = encoded(request(tools=[TOOL], tool_choice=choice))
        assert body["toolConfig"] == {"functionCallingConfig": calling}

    def test_a_strict_function_is_validated(self) -> None:
        strict = {"type": "function", "function": {"name": "now", "strict": True}}
        body = encoded(request(tools=[strict]))
        assert body["tools"] == [{"functionDeclarations": [{"name": "now"}]}]
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}

    @given(any_requests(), st.sampled_from([FLASH, NEWER, "model-optimizer-1"]))
    def test_every_request_is_taken_or_refused_with_a_reason(
        self, given: Request, model: str
    ) -> None:
        try:
            body = json.loads(encode_call(model, given))
        except Unsupported as error:
            assert str(error).startswith("Gemini ")
        else:
            check_call(body, model)

    @given(good_requests(), st.sampled_from([FLASH, NEWER]))
    def test_what_is_usual_is_taken(self, given: Request, model: str) -> None:
        params = {key: value for key, value in given.params.items() if key not in UNUSUAL}
        encoded(given.model_copy(update={"params": params}), model)


class TestFake:
    """The fake refuses what would pass a careless one."""

    @pytest.mark.parametrize(
        "broken",
        [
            {"contents": []},
            {"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]},
            {"contents": [{"role": "user", "parts": [{"text": "a", "inlineData": {}}]}]},
            {"contents": [{"role": "user", "parts": [{"text": "a"}]}], "temperature": 1},
            {
                "contents": [{"role": "user", "parts": [{"text": "a"}]}],
                "generationConfig": {"maxOutputTokens": "5"},
            },
        ],
    )
    def test_refuses(self, broken: Any) -> None:
        with pytest.raises(Refused):
            check_call(broken)


class TestAnswer:
    def test_a_whole_one(self) -> None:
        found = read(
            {
                "candidates": [
                    {
                        "content": {
                            "role": "model",
                            "parts": [
                                {"text": "Let me think", "thought": True},
                                {"text": "Ave, ", "thoughtSignature": "c2ln"},
                                {"text": "munde."},
                            ],
                        },
                        "finishReason": "STOP",
                        "avgLogprobs": -0.5,
                        "safetyRatings": [],
                    }
                ],
                "usageMetadata": {
                    "promptTokenCount": 20,
                    "candidatesTokenCount": 5,
                    "thoughtsTokenCount": 30,
                    "cachedContentTokenCount": 8,
                    "totalTokenCount": 55,
                },
                "modelVersion": "gemini-2.5-flash-001",
                "createTime": "2026-01-01T00:00:00Z",
                "responseId": "r",
            }
        )
        assert found == Completion(
            text="Ave, munde.",
            provider_model="gemini-2.5-flash-001",
            usage=Usage(
                input_tokens=20, output_tokens=35, cached_input_tokens=8, reasoning_tokens=30
            ),
            confidence=math.exp(-0.5),
        )

    def test_calls_of_functions_have_ids_that_stay_and_differ(self) -> None:
        part = {"functionCall": {"name": "weather", "args": {"city": "Bern"}}}
        again = [read(ended("STOP", part, part)) for _ in range(2)]
        assert again[0] == again[1]
        assert again[0].finish_reason == "tool_calls"
        one, other = again[0].tool_calls
        assert one.function.name == "weather"
        assert json.loads(one.function.arguments) == {"city": "Bern"}
        later = read({**ended("STOP", part), "responseId": "r-2"}).tool_calls[0]
        assert len({one.id, other.id, later.id}) == 3

    def test_an_id_that_was_given_is_kept(self) -> None:
        found = read(ended("STOP", {"functionCall": {"id": "x1", "name": "now"}}))
        assert (found.tool_calls[0].id, found.tool_calls[0].function.arguments) == ("x1", "{}")

    @pytest.mark.parametrize(
        ("body", "kind", "words"),
        [
            ({"promptFeedback": {"blockReason": "SAFETY"}}, "refused", "blocked: SAFETY"),
            (ended("SAFETY"), "refused", "SAFETY"),
            (ended("PROHIBITED_CONTENT"), "refused", "PROHIBITED_CONTENT"),
            (ended("RECITATION", {"text": ""}), "refused", "RECITATION"),
            (ended("MALFORMED_FUNCTION_CALL"), "retryable", "broken"),
            (ended("MAX_TOKENS"), "permanent", "raise max_tokens"),
            (ended("STOP"), "retryable", "no text"),
            (ended("STOP", {"text": "hm", "thought": True}), "retryable", "no text"),
            (ended("OTHER"), "retryable", "OTHER"),
            (ended("TOO_MANY_TOOL_CALLS"), "permanent", "TOO_MANY_TOOL_CALLS"),
            (ended("STOP", {"functionCall": {"args": {}}}), "retryable", "without a name"),
            ({"candidates": []}, "retryable", "no candidates"),
            (b"<html>", "retryable", "not JSON"),
            ([], "retryable", "no object"),
            (error(503, "UNAVAILABLE", "overloaded"), "retryable", "error 503"),
        ],
    )
    def test_what_is_no_answer(self, body: Any, kind: str, words: str) -> None:
        found = read(body)
        assert isinstance(found, Failure)
        assert found.kind == kind
        assert words in found.message

    @pytest.mark.parametrize(
        ("reason", "finish"),
        [("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("LANGUAGE", "language")],
    )
    def test_half_a_text_is_one_that_says_why_it_ended(self, reason: str, finish: str) -> None:
        found = read(ended(reason, {"text": "Half"}))
        assert (found.text, found.finish_reason) == ("Half", finish)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        "candidates content parts text functionCall name args finishReason error "
                        "code promptFeedback blockReason usageMetadata avgLogprobs logprobsResult "
                        "chosenCandidates details violations".split()
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ),
        st.sampled_from([200, 400, 429, 500]),
        st.booleans(),
    )
    def test_any_json_is_understood_somehow(self, body: Any, status: int, stream: bool) -> None:
        raw = json.dumps(body).encode()
        headers = {"content-type": "text/event-stream"} if stream else {}
        if stream:
            raw = b"data: " + raw + b"\n\n"
        found = read_response(status, headers, raw, FLASH, NOW)
        assert isinstance(found, Completion | Failure)


class TestStream:
    def read(self, *pieces: dict[str, Any]) -> Any:
        canned = streamed(*pieces)
        return read(canned.body, headers=dict(canned.headers))

    def piece(self, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": list(parts), "role": "model"}, **more}]}

    def test_pieces_are_put_together(self) -> None:
        found = self.read(
            {**self.piece({"text": "Sal"}), "modelVersion": "v-1", "responseId": "r"},
            self.piece({"text": "hm", "thought": True}),
            self.piece({"text": "ve"}),
            {
                **self.piece({"text": ""}, finishReason="STOP"),
                "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2},
            },
        )
        assert found == Completion(
            text="Salve", provider_model="v-1", usage=Usage(input_tokens=3, output_tokens=2)
        )

    def test_one_that_ends_too_early_is_half_an_answer(self) -> None:
        found = self.read(self.piece({"text": "Sal"}))
        assert (found.kind, "half an answer" in found.message) == (FailureKind.RETRYABLE, True)

    def test_an_error_in_the_middle(self) -> None:
        limited = error(429, "RESOURCE_EXHAUSTED", "slow down", RETRY_INFO)
        found = self.read(self.piece({"text": "Sal"}), limited)
        assert (found.kind, found.retry_after_s, found.status) == (FailureKind.LIMITED, 47.5, 429)

    def test_a_blocked_prompt(self) -> None:
        found = self.read({"promptFeedback": {"blockReason": "OTHER"}})
        assert found.kind is FailureKind.REFUSED


QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"
KEY_INVALID = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.parametrize(
    ("status", "name", "words", "details", "kind"),
    [
        (429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later.", [], "limited"),
        (429, "RESOURCE_EXHAUSTED", "check your plan and billing details", [], "limited"),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded for requests per minute", [], "limited"),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded for requests per day", [], "denied"),
        (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", [], "denied"),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota",
            [{"@type": QUOTA, "violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}],
            "denied",
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota",
            [{"@type": QUOTA, "violations": [{"quotaId": "GenerateRequestsPerMinute"}]}],
            "limited",
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed.",
            [],
            "too_long",
        ),
        (400, "INVALID_ARGUMENT", "Request payload size exceeds the limit", [], "too_long"),
        (400, "INVALID_ARGUMENT", "Unknown name", [], "permanent"),
        (400, "INVALID_ARGUMENT", "API key not valid.", [KEY_INVALID], "denied"),
        (400, "FAILED_PRECONDITION", "User location is not supported.", [], "denied"),
        (401, "UNAUTHENTICATED", "no", [], "denied"),
        (403, "PERMISSION_DENIED", "no", [], "denied"),
        (404, "NOT_FOUND", "Publisher Model was not found", [], "denied"),
        (413, "", "too large", [], "too_long"),
        (418, "", "teapot", [], "permanent"),
        (499, "CANCELLED", "cancelled", [], "retryable"),
        (500, "INTERNAL", "oh", [], "retryable"),
        (503, "UNAVAILABLE", "overloaded", [], "retryable"),
        (504, "DEADLINE_EXCEEDED", "late", [], "retryable"),
    ],
)
def test_errors(status: int, name: str, words: str, details: list[Any], kind: str) -> None:
    body = error(status, name, words, *details)
    for form in (body, [body]):
        found = read(form, status)
        assert (found.kind, found.status) == (kind, status)
        assert words in found.message


def test_the_wait_is_that_of_the_error_or_of_the_headers() -> None:
    body = error(429, "RESOURCE_EXHAUSTED", "slow", RETRY_INFO)
    assert read(body, 429, {"retry-after": "3"}).retry_after_s == 47.5
    assert (
        read(error(429, "RESOURCE_EXHAUSTED", "slow"), 429, {"retry-after": "3"}).retry_after_s == 3
    )
    denied = error(429, "RESOURCE_EXHAUSTED", "requests per day", RETRY_INFO)
    assert read(denied, 429).retry_after_s is None


def test_a_redirect_is_not_followed() -> None:
    assert read(b"", 307, {"location": "https://x"}).kind is FailureKind.DENIED


# -- the token


class Google:
    """Stands for google-auth's credentials: each refresh gives the next token."""

    quota_project_id: str | None = None

    def __init__(self, *failures: Exception) -> None:
        self.token: str | None = None
        self.valid = False
        self.refreshed = 0
        self.gate = threading.Event()
        self.gate.set()
        self._failures = list(failures)

    def refresh(self, request: Any) -> None:
        assert self.gate.wait(10)
        self.refreshed += 1
        if self._failures:
            raise self._failures.pop(0)
        self.token, self.valid = f"ya29.{self.refreshed}", True


async def signed(token: GoogleToken) -> httpx.Headers:
    message = httpx.Request("POST", VERTEX)
    await token.sign(message, b"")
    return message.headers


class TestGoogleToken:
    async def test_is_renewed_when_it_is_about_to_run_out_and_not_before(self) -> None:
        google = Google()
        token = GoogleToken(lambda: (google, None))
        seen = [(await signed(token))["authorization"] for _ in range(2)]
        google.valid = False
        seen.append((await signed(token))["authorization"])
        assert seen == ["Bearer ya29.1", "Bearer ya29.1", "Bearer ya29.2"]

    async def test_many_calls_wait_for_one_renewal_and_giving_one_up_ends_none(self) -> None:
        google = Google()
        google.gate.clear()
        token = GoogleToken(lambda: (google, None))
        waiting = [asyncio.create_task(signed(token)) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        google.gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert {str(headers) for headers in found[1:]} == {str(await signed(token))}
        assert google.refreshed == 1

    async def test_says_which_project_is_billed(self) -> None:
        google = Google()
        google.quota_project_id = "p-9"
        headers = await signed(GoogleToken(lambda: (google, None)))
        assert headers["x-goog-user-project"] == "p-9"

    async def test_a_renewal_that_failed_is_tried_again_by_the_next_call(self) -> None:
        auth = google_auth(None)
        google = Google(auth["TransportError"]("no route"), auth["RefreshError"]("bad grant"))
        token = GoogleToken(lambda: (google, None))
        kinds = []
        for _ in range(2):
            with pytest.raises(ProviderError, match="no Google access token") as caught:
                await signed(token)
            kinds.append(caught.value.kind)
        assert kinds == [FailureKind.RETRYABLE, FailureKind.DENIED]
        assert (await signed(token))["authorization"] == "Bearer ya29.3"


def google_auth(credentials: Google | None) -> dict[str, Any]:
    """Return stand-ins of google-auth's modules, and of its errors."""
    base = type("GoogleAuthError", (Exception,), {"retryable": False})
    errors = {
        name: type(name, (base,), {})
        for name in ("TransportError", "RefreshError", "DefaultCredentialsError")
    }
    auth = ModuleType("google.auth")
    transport = ModuleType("google.auth.transport.requests")
    transport.Request = object  # type: ignore[attr-defined]

    def default(scopes: list[str]) -> tuple[Google, str]:
        assert scopes == ["https://www.googleapis.com/auth/cloud-platform"]
        if credentials is None:
            raise errors["DefaultCredentialsError"]("Your default credentials were not found.")
        return credentials, "p-1"

    auth.default = default  # type: ignore[attr-defined]
    modules = {
        "google": ModuleType("google"),
        "google.auth": auth,
        "google.auth.transport": ModuleType("google.auth.transport"),
        "google.auth.transport.requests": transport,
    }
    return {"modules": modules, **errors}


async def complete(**fields: Any) -> Completion:
    """Call Vertex AI without a key; the answer says which token came."""

    def handle(call: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answer(call.headers["authorization"]))

    at = endpoint(project="p-1", region="europe-west4", **fields)
    model = Model(name="gemini", provider="vertex", model=FLASH, endpoints=(at,))
    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return await Vertex(model, at, client).complete(HELLO)


class TestWithoutAKey:
    async def test_the_default_credentials_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, module in google_auth(Google())["modules"].items():
            monkeypatch.setitem(sys.modules, name, module)
        assert (await complete()).text == "Bearer ya29.1"
        assert (await complete(api_key="ya29.own")).text == "Bearer ya29.own"

    async def test_there_may_be_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, module in google_auth(None)["modules"].items():
            monkeypatch.setitem(sys.modules, name, module)
        with pytest.raises(ProviderError, match="default credentials were not found") as caught:
            await complete()
        assert caught.value.kind is FailureKind.DENIED

    async def test_google_auth_may_be_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "google.auth", None)
        with pytest.raises(ProviderError, match=r"pip install modelyard\[vertex\]") as caught:
            await complete()
        assert caught.value.kind is FailureKind.DENIED
