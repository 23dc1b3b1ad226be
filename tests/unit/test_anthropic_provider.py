"""What the Anthropic provider sends."""

import json
from typing import Any

import httpx
import pytest
from fakes.anthropic_api import problem, text
from fakes.anthropic_words import dialect, refused, sent
from fakes.requests import PNG, WEATHER, any_requests, good_requests
from hypothesis import given

from model_workers.providers.base import Unsupported
from modelyard.catalog import Endpoint
from modelyard.messages import Request


def calling(*ids: str) -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city": "Bern"}'}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "tool_calls": calls}


def result(id: str, said: str = "Sunny") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": said}


class TestAddress:
    @pytest.mark.parametrize(
        "base",
        ["https://claude.example", "https://claude.example/", "https://claude.example/v1"],
    )
    def test_is_the_same_with_and_without_the_version(self, base: str) -> None:
        address = dialect().address(httpx.URL(base))
        assert str(address) == "https://claude.example/v1/messages"

    def test_the_key_and_the_version_are_headers(self) -> None:
        base = httpx.URL("https://api.anthropic.com")
        assert dialect().headers(base) == {
            "x-api-key": "sk-ant-secret-0123456789",
            "anthropic-version": "2023-06-01",
        }
        other = Endpoint(base_url="https://claude.example", api_version="2031-01-01")
        assert dialect(other).headers(base) == {"anthropic-version": "2031-01-01"}


class TestBetas:
    def test_are_a_header_of_the_call(self) -> None:
        betas = ["interleaved-thinking-2025-05-14", "context-1m-2025-08-07"]
        request = Request.of("Salve", params={"anthropic_beta": [*betas, betas[0]]})
        assert dialect().headers_of(request) == {"anthropic-beta": ",".join(betas)}
        assert sent(anthropic_beta=betas) == sent()

    @pytest.mark.parametrize("betas", [None, []])
    def test_without_any_there_is_no_header(self, betas: Any) -> None:
        assert dialect().headers_of(Request.of("a", params={"anthropic_beta": betas})) == {}

    @pytest.mark.parametrize(
        "betas",
        ["context-1m", [1], [""], ["a,b"], ["a\r\nx-api-key: b"], ["Ünal"], {"a": 1}, [None]],
    )
    def test_what_is_no_name_is_refused(self, betas: Any) -> None:
        assert "anthropic_beta" in refused(anthropic_beta=betas)


class TestTurns:
    def test_a_question_has_the_models_own_output_limit(self) -> None:
        assert sent({"role": "user", "content": "Salve"}) == {
            "model": "claude-sonnet-4-5",
            "max_tokens": 700,
            "messages": [{"role": "user", "content": [text("Salve")]}],
        }

    def test_system_turns_go_to_the_top_and_turns_of_a_side_together(self) -> None:
        body = sent(
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One"},
            {"role": "user", "content": "Two"},
            {"role": "developer", "content": "In Latin."},
            {"role": "assistant", "content": "Yes"},
            {"role": "assistant", "content": " "},
            {"role": "user", "content": "Three"},
        )
        assert body["system"] == [text("Be short."), text("In Latin.")]
        assert body["messages"] == [
            {"role": "user", "content": [text("One"), text("Two")]},
            {"role": "assistant", "content": [text("Yes")]},
            {"role": "user", "content": [text("Three")]},
        ]

    def test_results_of_tools_come_first_in_the_users_turn(self) -> None:
        body = sent(
            {"role": "user", "content": "Weather?"},
            calling("a", "b"),
            {"role": "user", "content": "Quick!"},
            result("b", ""),
            result("a"),
        )
        use = {"type": "tool_use", "name": "weather", "input": {"city": "Bern"}}
        assert body["messages"][1:] == [
            {"role": "assistant", "content": [{**use, "id": "a"}, {**use, "id": "b"}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "b"},
                    {"type": "tool_result", "tool_use_id": "a", "content": [text("Sunny")]},
                    text("Quick!"),
                ],
            },
        ]

    def test_an_id_of_another_provider_is_made_fit_on_both_sides(self) -> None:
        body = sent({"role": "user", "content": "Weather?"}, calling("f.x:0/1"), result("f.x:0/1"))
        asked, answered = (turn["content"][0] for turn in body["messages"][1:])
        assert asked["id"] == answered["tool_use_id"] != "f.x:0/1"

    def test_an_id_that_comes_again_is_another_one_each_time(self) -> None:
        rounds = [calling("call_0"), result("call_0")] * 3
        body = sent({"role": "user", "content": "Weather?"}, *rounds)
        asked = [turn["content"][0]["id"] for turn in body["messages"][1::2]]
        answered = [turn["content"][0]["tool_use_id"] for turn in body["messages"][2::2]]
        assert asked == answered
        assert len(set(asked)) == 3

    def test_images_are_sent_as_bytes_or_by_address(self) -> None:
        address = "https://images.example/a.png"
        parts = [
            {"type": "image_url", "image_url": {"url": PNG}},
            {"type": "text", "text": "and"},
            {"type": "image_url", "image_url": {"url": address, "detail": "high"}},
        ]
        data = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
        assert sent({"role": "user", "content": parts})["messages"][0]["content"] == [
            {"type": "image", "source": data},
            text("and"),
            {"type": "image", "source": {"type": "url", "url": address}},
        ]

    def test_a_beginning_of_the_answer_ends_without_a_blank(self) -> None:
        body = sent({"role": "user", "content": "Q"}, {"role": "assistant", "content": "It is \n"})
        assert body["messages"][-1]["content"] == [text("It is")]

    @pytest.mark.parametrize(
        ("messages", "word"),
        [
            ([{"role": "system", "content": "Be short."}], "needs a user turn"),
            ([{"role": "user", "content": "Q"}, calling("a")], "'a'"),
            ([{"role": "user", "content": "Q"}, result("a")], "'a'"),
            ([{"role": "user", "content": "Q"}, calling("a"), result("a"), result("a")], "'a'"),
            ([{"role": "user", "content": "Q"}, calling("a", "a"), result("a")], "another id"),
            ([{"role": "user", "content": "Q", "name": "ann"}], "no name"),
        ],
    )
    def test_a_talk_that_it_would_refuse_is_not_sent(
        self, messages: list[dict[str, Any]], word: str
    ) -> None:
        assert word in refused(*messages)

    @pytest.mark.parametrize(
        ("image", "word"),
        [
            ({"url": "http://images.example/a.png"}, "https://"),
            ({"url": "data:image/bmp;base64,Qk0="}, "'bmp'"),
            ({"url": "data:image/png;base64,%%%"}, "not base64"),
            ({"url": PNG, "detail": "low"}, "detail"),
        ],
    )
    def test_an_image_that_it_can_not_show_is_not_sent(
        self, image: dict[str, Any], word: str
    ) -> None:
        part = {"type": "image_url", "image_url": image}
        assert word in refused({"role": "user", "content": [part]})


class TestParams:
    @pytest.mark.parametrize(
        ("params", "body"),
        [
            ({"max_completion_tokens": 50, "max_tokens": 50}, {"max_tokens": 50}),
            ({"temperature": 1, "top_p": 0.5}, {"temperature": 1, "top_p": 0.5}),
            ({"stop": "END"}, {"stop_sequences": ["END"]}),
            ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
            ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
            ({"reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
            ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
            ({"service_tier": "default"}, {"service_tier": "standard_only"}),
            ({"top_k": 5, "thinking": {"type": "adaptive"}},) * 2,
            ({"cache_control": {"type": "ephemeral"}},) * 2,
            ({"n": 1, "logprobs": False, "stream": True, "seed": None, "store": False}, {}),
            ({"response_format": {"type": "text"}, "tool_choice": "none"}, {}),
        ],
    )
    def test_are_said_in_its_own_words(self, params: Any, body: dict[str, Any]) -> None:
        plain = sent()
        assert sent(**params) == {**plain, **body}

    def test_a_schema_is_the_format_beside_a_native_effort(self) -> None:
        schema = {"type": "object", "additionalProperties": False}
        asked = {"name": "city", "description": "A city", "strict": True, "schema": schema}
        body = sent(
            response_format={"type": "json_schema", "json_schema": asked},
            output_config={"effort": "max"},
        )
        assert body["output_config"] == {
            "effort": "max",
            "format": {"type": "json_schema", "schema": {**schema, "description": "A city"}},
        }

    def test_tools_and_the_choice_among_them(self) -> None:
        function = {
            "name": "weather",
            "description": "Of today",
            "parameters": {"type": "object", "properties": {}},
            "strict": True,
        }
        own = {"type": "web_search_20250305", "name": "web_search"}
        body = sent(
            tools=[{"type": "function", "function": function}, own],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            parallel_tool_calls=False,
        )
        assert body["tools"] == [
            {
                "name": "weather",
                "description": "Of today",
                "input_schema": {"type": "object", "properties": {}},
                "strict": True,
            },
            own,
        ]
        assert body["tool_choice"] == {
            "type": "tool",
            "name": "weather",
            "disable_parallel_tool_use": True,
        }

    @pytest.mark.parametrize(
        ("choice", "parallel", "said"),
        [
            ("auto", True, {"type": "auto"}),
            ("required", None, {"type": "any"}),
            ("none", False, {"type": "none"}),
            (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
            ({"type": "any"}, None, {"type": "any"}),
            (None, None, None),
        ],
    )
    def test_whether_a_tool_has_to_be_called(self, choice: Any, parallel: Any, said: Any) -> None:
        body = sent(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=parallel)
        assert body.get("tool_choice") == said

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"temperature": 1.5}, ["temperature", "0 to 1", "1.5"]),
            ({"temperature": "hot"}, ["temperature", "number"]),
            ({"seed": 7}, ["seed", "leave it out"]),
            ({"logprobs": True}, ["logprobs"]),
            ({"n": 2}, ["'n'", "several times"]),
            ({"frequency_penalty": 0.5}, ["frequency_penalty"]),
            ({"max_tokens": 0}, ["max_tokens"]),
            ({"max_tokens": 5, "max_completion_tokens": 6}, ["max_tokens", "one of them"]),
            ({"response_format": {"type": "json_object"}}, ["response_format", "json_schema"]),
            ({"reasoning_effort": "minimal"}, ["reasoning_effort", "low"]),
            ({"reasoning_effort": "none", "thinking": {"type": "adaptive"}}, ["thinking"]),
            ({"metadata": {"tenant": "acme"}}, ["metadata", "user_id"]),
            ({"stop": " "}, ["stop", "blanks"]),
            ({"stop": "A", "stop_sequences": ["B"]}, ["stop_sequences", "one of them"]),
            ({"tool_choice": "required"}, ["tool_choice", "no tools"]),
            ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, ["tools[0]"]),
            ({"tools": [WEATHER, WEATHER]}, ["same name"]),
            ({"functions": []}, ["functions", "use tools"]),
            ({"temprature": 1}, ["temprature"]),
        ],
    )
    def test_what_it_lacks_is_refused_by_name(
        self, params: dict[str, Any], words: list[str]
    ) -> None:
        why = refused(**params)
        assert all(word in why for word in ["Anthropic", *words])

    def test_what_json_can_not_hold_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            dialect().encode(Request.of("Salve", params={"top_k": float("nan")}))

    def test_a_model_that_streams_asks_for_events(self) -> None:
        body = json.loads(dialect(stream=True).encode(Request.of("Salve")))
        assert body["stream"] is True
        assert problem(body) is None

    @given(any_requests())
    def test_what_is_sent_is_taken(self, request: Request) -> None:
        try:
            content = dialect().encode(request)
        except Unsupported as why:
            assert "Anthropic" in str(why)
        else:
            assert problem(json.loads(content)) is None

    @given(good_requests())
    def test_what_it_has_is_never_refused(self, request: Request) -> None:
        assert problem(json.loads(dialect().encode(request))) is None
