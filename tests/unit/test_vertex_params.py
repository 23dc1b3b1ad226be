"""What becomes of the parameters of a request to Gemini."""

import json
from typing import Any

import pytest
from fakes.requests import any_requests, good_requests
from fakes.vertex_api import check_call
from fakes.vertex_words import FLASH, HELLO, NEWER, TOOL, UNUSUAL, config, encoded, refused, request
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.base import Unsupported
from model_workers.providers.gemini_call import encode_call
from modelyard.messages import Request


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
