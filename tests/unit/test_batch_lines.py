"""The OpenAI Batch format: what a line of the input becomes, and what an outcome becomes."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.messages import Answer, Attempt, Usage
from modelyard.plan import Decision, Plan, Step
from modelyard.routes import Route
from producer.batch import errors_path
from producer.batch_line import lines
from producer.openai_batch import (
    BadLine,
    answer_line,
    asked_digest,
    bad_line_id,
    bad_line_number,
    error_line,
    is_output,
    pinned,
    read_line,
    request_line_id,
)

CATALOG = Catalog(
    models=(
        Model(
            name="small",
            provider="openai",
            model="gpt-4o-mini",
            endpoints=(Endpoint(base_url="http://one.example/v1"),),
        ),
        Model(name="local", provider="extractive"),
    ),
    routes={"default": Route(otherwise=("small",)), "cheap": Route(otherwise=("local",))},
)

HELLO = {"role": "user", "content": "Hello"}


def test_a_providers_name_means_the_models_of_whose_endpoints_it_is_the_name() -> None:
    azure = {"base_url": "http://two.example", "provider": "azure", "model": "gpt-eu"}
    endpoints = [{"base_url": "http://one.example/v1"}, azure]
    model = {"name": "gpt", "provider": "openai", "model": "gpt-4o", "endpoints": endpoints}
    catalog = Catalog.model_validate(
        {"models": [model], "routes": {"default": {"otherwise": ["gpt"]}}}
    )
    assert pinned("gpt-eu", catalog) == pinned("gpt-4o", catalog) == ("gpt",)
    assert pinned("gpt-us", catalog) == ()


def raw(*, without: str = "", **values: Any) -> bytes:
    """A good line, but for what is said."""
    data = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "small", "messages": [HELLO]},
    } | values
    data.pop(without, None)
    return json.dumps(data).encode()


def body(**values: Any) -> bytes:
    return raw(body={"model": "small", "messages": [HELLO]} | values)


def read(line: bytes) -> Any:
    return read_line(line, 7, CATALOG, "default")


class TestReading:
    def test_a_line_becomes_a_request(self) -> None:
        harmless = {"stream": False, "n": 1, "tools": [], "tool_choice": "none"}
        line = read(body(temperature=0.5, max_tokens=9, modalities=["text"], **harmless))
        assert line.custom_id == "a"
        request = line.request
        assert request.text == "Hello"
        assert request.models == ("small",)
        assert request.params == {"temperature": 0.5, "max_tokens": 9}
        assert request.lane == "batch"

    @pytest.mark.parametrize(
        ("model", "route", "models"),
        [
            ("auto", "default", ()),
            ("", "default", ()),
            (None, "default", ()),
            ("route:cheap", "cheap", ()),
            ("local", "default", ("local",)),
            ("gpt-4o-mini", "default", ("small",)),
        ],
    )
    def test_the_model_says_who_decides(
        self, model: str | None, route: str, models: tuple[str, ...]
    ) -> None:
        request = read(body(model=model)).request
        assert (request.route, request.models) == (route, models)

    def test_text_parts_are_joined(self) -> None:
        parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        request = read(body(messages=[{"role": "user", "content": parts}])).request
        assert request.text == "one\ntwo"

    def test_images_and_tools_go_along(self) -> None:
        tools = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
        call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
        image = {"type": "image_url", "image_url": {"url": "https://pictures.test/cat.png"}}
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "When?"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "content": "noon", "tool_call_id": "c1"},
        ]
        request = read(body(messages=messages, tools=tools, tool_choice="auto")).request
        assert request.params == {"tools": tools, "tool_choice": "auto"}
        assert [shown.url for shown in request.messages[0].images] == [
            "https://pictures.test/cat.png"
        ]
        assert request.messages[1].tool_calls[0].function.name == "now"
        assert request.messages[2].tool_call_id == "c1"

    def test_a_byte_order_mark_is_no_mistake_on_the_first_line(self) -> None:
        assert read_line(b"\xef\xbb\xbf" + raw(), 1, CATALOG, "default").custom_id == "a"

    @pytest.mark.parametrize(
        ("line", "code", "message"),
        [
            (b"{", "invalid_json", "line 7: it is not JSON"),
            (b'{"a": 1\n', "invalid_json", "JSON: Expecting ',' delimiter at column 8"),
            (b"[]", "invalid_json", "must be an object"),
            (b"[" * 100_000, "invalid_json", "not JSON"),
            (b'{"custom_id": NaN}', "invalid_json", "NaN is no JSON"),
            (b"\xff\xfe{\x00", "invalid_encoding", "not UTF-8"),
            (raw(without="custom_id"), "invalid_custom_id", "custom_id is missing"),
            (raw(custom_id=5), "invalid_custom_id", "must be text"),
            (raw(custom_id=" "), "invalid_custom_id", "not empty"),
            (raw(method="GET"), "invalid_method", "must be POST"),
            (raw(url="/v1/embeddings"), "invalid_url", "/v1/chat/completions"),
            (raw(without="body"), "invalid_request", "body must be an object"),
            (body(messages=[]), "invalid_request", "not empty"),
            (body(messages=["hi"]), "invalid_request", "messages[0] must be an object"),
            (body(messages=[{"role": "user"}]), "invalid_request", "messages[0].content"),
            (body(messages=[HELLO | {"role": "boss"}]), "invalid_request", "role"),
            (body(messages=[HELLO | {"tool_calls": [1]}]), "invalid_request", "tool_calls"),
            (body(messages=[HELLO | {"content": " "}]), "invalid_request", "no text"),
            (body(stream=True), "invalid_request", "body.stream is not supported"),
            (body(n=2), "invalid_request", "body.n is not supported"),
            (body(functions=[{"name": "f"}]), "invalid_request", "body.functions"),
            (body(modalities=["text", "audio"]), "invalid_request", "body.modalities"),
            (body(audio={"voice": "alloy"}), "invalid_request", "body.audio"),
            (body(logprobs=True), "invalid_request", "body.logprobs"),
            (body(model="gigantic"), "model_not_found", "use one of small, local, or 'auto'"),
            (body(model=5), "model_not_found", "must be text"),
            (body(model="route:chep"), "model_not_found", "did you mean 'cheap'"),
            (body(user="\ud800"), "invalid_encoding", "surrogate"),
            (
                body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
                "invalid_request",
                "image_url",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, line: bytes, code: str, message: str) -> None:
        with pytest.raises(BadLine) as caught:
            read(line)
        assert caught.value.code == code
        assert str(caught.value).startswith("line 7: ")
        assert message in str(caught.value)

    def test_the_error_of_a_named_line_has_its_name(self) -> None:
        with pytest.raises(BadLine) as caught:
            read(raw(method="GET"))
        assert caught.value.custom_id == "a"

    @given(st.binary(max_size=200))
    def test_nothing_else_is_ever_raised(self, line: bytes) -> None:
        with pytest.raises(BadLine):
            read(line)


class TestWriting:
    def test_an_answer_is_a_chat_completion(self) -> None:
        answer = Answer(
            id="11111111-2222-3333-4444-555555555555",
            text="Hi",
            model="small",
            provider_model="gpt-4o-mini-2024",
            decision=Decision(
                route="default",
                intent="other",
                why="no rule matched",
                input_tokens=1,
                decided_at=1700000000.5,
                plan=Plan(steps=(Step(model="small"),)),
            ),
            usage=Usage(input_tokens=3, output_tokens=2),
            cost_usd=0.5,
            attempts=(Attempt(model="small", endpoint="e", started_at=0.0, duration_ms=1.0),),
        )
        line = answer_line("a", answer, "digest")
        assert is_output(line)
        assert (line["custom_id"], line["error"]) == ("a", None)
        assert line["response"]["status_code"] == 200
        assert line["response"]["request_id"] == answer.id
        body = line["response"]["body"]
        assert (body["object"], body["created"]) == ("chat.completion", 1700000000)
        assert body["choices"][0]["message"] == {
            "role": "assistant",
            "content": "Hi",
            "refusal": None,
        }
        assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        assert body["modelyard"]["cost_usd"] == 0.5
        assert asked_digest(line) == "digest"

    def test_an_error_line_tells_whether_it_was_a_request(self) -> None:
        never = error_line(bad_line_id(12), None, "invalid_json", "line 12: ...", "bad")
        failed = error_line(request_line_id("1-2-3"), "a", "exhausted", "...", "good")
        assert is_output(never)
        assert bad_line_number(never) == 12
        assert bad_line_number(failed) is None
        assert [asked_digest(line) for line in (never, failed)] == ["bad", "good"]


class TestLines:
    def test_blank_ones_are_counted_and_passed_over(self) -> None:
        assert list(lines(io.BytesIO(b"a\n\n \r\nb"), 10)) == [(1, b"a\n"), (4, b"b")]

    @given(st.lists(st.text("xyz", min_size=1, max_size=30), max_size=10), st.integers(1, 20))
    def test_a_long_one_is_cut_and_the_next_is_whole(self, texts: list[str], limit: int) -> None:
        content = "".join(f"{text}\n" for text in texts).encode()
        found = list(lines(io.BytesIO(content), limit))
        assert [number for number, _ in found] == list(range(1, len(texts) + 1))
        for (_, line), text in zip(found, texts, strict=True):
            assert line == f"{text}\n".encode()[: limit + 1]


def test_errors_lie_beside_the_output() -> None:
    assert errors_path(Path("a/out.jsonl")) == Path("a/out.errors.jsonl")
    assert errors_path(Path("a/out.v1.json")) == Path("a/out.v1.json.errors.jsonl")
