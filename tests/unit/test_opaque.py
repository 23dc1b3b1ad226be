"""What travels back with tool calls: whole to the model that wrote it, and to no other one.

Each conversation is read from one provider's answer, goes to the producer and back as JSON, and is
written for a provider, whose fake is as strict about it as the real one.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from fakes import anthropic_api, bedrock_api, vertex_api
from fakes.bedrock_stream import CONTENT_TYPE, frames_of
from fakes.requests import WEATHER
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.anthropic import AnthropicDialect
from model_workers.providers.azure import AzureDialect
from model_workers.providers.base import Completion
from model_workers.providers.bedrock import BedrockDialect
from model_workers.providers.gemini_call import UNSIGNED
from model_workers.providers.opaque import author, seal, unseal
from model_workers.providers.openai import OpenAIDialect
from model_workers.providers.over_http import Dialect
from model_workers.providers.vertex import VertexDialect
from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.messages import Answer, Message, Request, ToolCall
from modelyard.plan import Decision, Plan, Step
from modelyard.testing_messages import check_messages
from producer.openai_batch import answer_line, read_line

NOW = 1_800_000_000.0
AT = Endpoint(base_url="https://models.example/v1", api_key="a-key-0123456789", project="p")
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}
FRAMES = {"content-type": CONTENT_TYPE}
BUDGET = {"type": "enabled", "budget_tokens": 1024}


def model(provider: Any, name: str = "it", named: str = "m-1") -> Model:
    return Model(
        name=name, provider=provider, model=named, endpoints=(AT,), max_output_tokens=4_000
    )


CLAUDE = AnthropicDialect(model("anthropic"), AT)
BEDROCK = BedrockDialect(model("bedrock"), AT)
GEMINI = VertexDialect(model("vertex", named="gemini-3-pro"), AT)
DEEPSEEK = OpenAIDialect(model("openai"), AT)
AZURE = AzureDialect(model("azure"), AT)


def answered(dialect: Dialect, body: Any, headers: Mapping[str, str] = JSON) -> Completion:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    outcome = dialect.read(200, headers, content, NOW)
    assert isinstance(outcome, Completion), outcome
    return outcome


def next_turn(*answers: Completion, **params: Any) -> Request:
    """What a producer asks next, who sends tool calls back as they came, as JSON."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Weather?"}]
    for said in answers:
        calls = json.loads(json.dumps([call.encode() for call in said.tool_calls]))
        messages.append({"role": "assistant", "content": said.text, "tool_calls": calls})
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": "Sunny"} for call in calls
        ]
    params = {"tools": [WEATHER], **params}
    return Request.decode(Request.model_validate({"messages": messages, "params": params}).encode())


def sent(dialect: Dialect, request: Request) -> dict[str, Any]:
    """The body of a call; its provider's fake has nothing against it."""
    body: dict[str, Any] = json.loads(dialect.encode(request))
    if isinstance(dialect, AnthropicDialect):
        assert anthropic_api.problem(body) is None
    elif isinstance(dialect, BedrockDialect):
        assert bedrock_api.problem(body) is None
    elif isinstance(dialect, VertexDialect):
        vertex_api.check_call(body, dialect._model.provider_model)
    return body


def test_endpoints_of_one_model_are_one_author_only_if_they_are_alike() -> None:
    """Another provider, or another deployment, can't be told to read what one has signed."""
    places: list[dict[str, Any]] = [{}, {}, {"provider": "bedrock"}, {"model": "m-2"}]
    endpoints = [Endpoint(base_url=f"http://h{n}", **each) for n, each in enumerate(places)]
    one, alike, *others = (author(model("anthropic").at(each)) for each in endpoints)
    assert one == alike == author(model("anthropic"))
    assert len({one, *others}) == 3


# -- answers with thoughts in them

THINKING = {"type": "thinking", "thinking": "Bern, then.", "signature": "EqQBCgIYAhIM"}
AGAIN = {"type": "thinking", "thinking": "", "signature": "EqQBsecond"}
REDACTED = {"type": "redacted_thinking", "data": "EmwKAhgBEgy"}


def use(id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "weather", "input": {"city": "Bern"}}


CLAUDES = anthropic_api.message(
    THINKING,
    REDACTED,
    anthropic_api.text("Let me see."),
    use("toolu_1"),
    AGAIN,
    use("toolu_2"),
    stop_reason="tool_use",
)
PLAIN_CLAUDES = anthropic_api.message(use("toolu_9"), stop_reason="tool_use")
REASONING = {"reasoningText": {"text": "Bern, then.", "signature": "EqQBCgIYAhIM"}}
HIDDEN = {"redactedContent": base64.b64encode(b"hidden").decode()}


def bedrock_use(id: str) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": id, "name": "weather", "input": {"city": "Bern"}}}


BEDROCKS = bedrock_api.answer(
    {"reasoningContent": REASONING},
    {"reasoningContent": HIDDEN},
    {"text": "Let me see."},
    bedrock_use("tooluse_1"),
    stopReason="tool_use",
)


def gemini_call(signature: str | None = None) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": {"name": "weather", "args": {"city": "Bern"}}}
    return {**part, "thoughtSignature": signature} if signature else part


def geminis(*parts: dict[str, Any]) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts)}
    return vertex_api.answer("", candidates=[{"content": content, "finishReason": "STOP"}])


GEMINIS = geminis(gemini_call(vertex_api.OWN), gemini_call())


def deepseeks(**message: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city": "Bern"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    said = {"role": "assistant", "content": None, "tool_calls": [call], **message}
    return {"model": "m", "choices": [{"message": said, "finish_reason": "tool_calls"}]}


class TestAnthropic:
    def test_thoughts_go_back_before_the_calls_they_came_before(self) -> None:
        body = sent(CLAUDE, next_turn(answered(CLAUDE, CLAUDES), thinking=BUDGET))
        assert body["messages"][1]["content"] == CLAUDES["content"]
        assert body["thinking"] == BUDGET

    def test_thoughts_that_were_streamed_are_the_same(self) -> None:
        assert answered(CLAUDE, anthropic_events(), EVENTS) == answered(CLAUDE, CLAUDES)

    @pytest.mark.parametrize("thinking", [{"type": "adaptive"}, None])
    def test_claude_may_decide_by_itself_whether_to_think(self, thinking: Any) -> None:
        request = next_turn(
            answered(CLAUDE, PLAIN_CLAUDES), answered(CLAUDE, CLAUDES), thinking=thinking
        )
        body = sent(CLAUDE, request)
        assert body["messages"][3]["content"] == CLAUDES["content"]
        assert body.get("thinking") == thinking

    def test_without_thinking_no_thoughts_go_back(self) -> None:
        request = next_turn(answered(CLAUDE, CLAUDES), thinking={"type": "disabled"})
        kinds = [each["type"] for each in sent(CLAUDE, request)["messages"][1]["content"]]
        assert kinds == ["text", "tool_use", "tool_use"]

    @pytest.mark.parametrize(
        ("dialect", "body"), [(GEMINI, GEMINIS), (BEDROCK, BEDROCKS), (CLAUDE, PLAIN_CLAUDES)]
    )
    def test_calls_it_did_not_think_about_are_gone_on_with_without_thinking(
        self, dialect: Dialect, body: Any
    ) -> None:
        request = next_turn(answered(dialect, body), thinking=BUDGET)
        assert sent(CLAUDE, request)["thinking"] == {"type": "disabled"}

    def test_what_was_called_in_a_turn_before_does_not_count(self) -> None:
        asked = next_turn(answered(GEMINI, GEMINIS), thinking=BUDGET)
        more = Message(role="user", content="And tomorrow?")
        request = asked.model_copy(update={"messages": (*asked.messages, more)})
        assert sent(CLAUDE, request)["thinking"] == BUDGET

    def test_a_turn_goes_on_as_it_was_begun(self) -> None:
        request = next_turn(
            answered(CLAUDE, CLAUDES), answered(GEMINI, geminis(gemini_call())), thinking=BUDGET
        )
        assert sent(CLAUDE, request)["thinking"] == BUDGET

    def test_thoughts_that_no_call_follows_are_not_kept(self) -> None:
        body = anthropic_api.message(use("a"), THINKING, anthropic_api.text("So."))
        (call,) = answered(CLAUDE, body).tool_calls
        assert call.opaque is None


def anthropic_events() -> bytes:
    """The message above, in pieces."""
    start = anthropic_api.message(stop_reason=None)
    told: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    deltas = {"thinking": "thinking_delta", "signature": "signature_delta", "text": "text_delta"}
    for index, block in enumerate(CLAUDES["content"]):
        blank = {key: "" if key in deltas else value for key, value in block.items()}
        if "input" in block:
            blank["input"] = {}
        told.append({"type": "content_block_start", "index": index, "content_block": blank})
        pieces = [(kind, key, block[key]) for key, kind in deltas.items() if key in block]
        if "input" in block:
            pieces.append(("input_json_delta", "partial_json", json.dumps(block["input"])))
        for kind, key, value in pieces:
            for piece in (value[:3], value[3:]):
                delta = {"type": kind, key: piece}
                told.append({"type": "content_block_delta", "index": index, "delta": delta})
    usage = {"output_tokens": 5}
    told.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": usage})
    return anthropic_api.events(*told, {"type": "message_stop"})


THINKS: Any = {"additionalModelRequestFields": {"thinking": BUDGET, "top_k": 5}}


class TestBedrock:
    @pytest.mark.parametrize("stream", [False, True])
    def test_thoughts_go_back_before_the_calls_they_came_before(self, stream: bool) -> None:
        body: Any = b"".join(frames_of(BEDROCKS)) if stream else BEDROCKS
        said = answered(BEDROCK, body, FRAMES if stream else JSON)
        told = sent(BEDROCK, next_turn(said, **THINKS))
        assert told["messages"][1]["content"] == BEDROCKS["output"]["message"]["content"]
        assert told["additionalModelRequestFields"]["thinking"] == BUDGET

    def test_thoughts_without_a_signature_are_not_kept(self) -> None:
        plain = {"reasoningContent": {"reasoningText": {"text": "Hm"}}}
        body = bedrock_api.answer(plain, bedrock_use("a"), stopReason="tool_use")
        assert answered(BEDROCK, body).tool_calls[0].opaque is None

    def test_calls_it_did_not_think_about_are_gone_on_with_without_thinking(self) -> None:
        told = sent(BEDROCK, next_turn(answered(CLAUDE, CLAUDES), **THINKS))
        more = {"thinking": {"type": "disabled"}, "top_k": 5}
        assert told["additionalModelRequestFields"] == more


class TestGemini:
    def test_signatures_go_back_with_their_calls(self) -> None:
        second = base64.b64encode(b"sig 2").decode()
        first = answered(GEMINI, GEMINIS)
        other = answered(GEMINI, geminis(gemini_call(second)))
        contents = sent(GEMINI, next_turn(first, other))["contents"]
        assert signatures(contents) == [vertex_api.OWN, None, second]

    def test_signatures_that_were_streamed_are_the_same(self) -> None:
        body = f"data: {json.dumps(GEMINIS)}\n\n".encode()
        assert answered(GEMINI, body, EVENTS) == answered(GEMINI, GEMINIS)

    @pytest.mark.parametrize(
        ("dialect", "body"),
        [
            (CLAUDE, CLAUDES),
            (BEDROCK, BEDROCKS),
            (DEEPSEEK, deepseeks(reasoning_content="Hm")),
            (GEMINI, geminis(gemini_call())),
            (VertexDialect(model("vertex", named="gemini-3-flash"), AT), GEMINIS),
            (VertexDialect(model("vertex", "other", "gemini-3-pro"), AT), GEMINIS),
        ],
    )
    def test_calls_of_others_get_the_word_for_that(self, dialect: Dialect, body: Any) -> None:
        contents = sent(GEMINI, next_turn(answered(dialect, body)))["contents"]
        assert signatures(contents)[0] == UNSIGNED

    def test_a_model_before_it_is_told_its_own_only(self) -> None:
        old = VertexDialect(model("vertex", named="gemini-2.5-flash"), AT)
        own = next_turn(answered(old, GEMINIS))
        assert signatures(sent(old, own)["contents"]) == [vertex_api.OWN, None]
        others = next_turn(answered(GEMINI, GEMINIS))
        assert signatures(sent(old, others)["contents"]) == [None, None]


def signatures(contents: list[dict[str, Any]]) -> list[str | None]:
    parts = [part for each in contents for part in each["parts"] if "functionCall" in part]
    return [part.get("thoughtSignature") for part in parts]


EXTRA = {"google": {"thought_signature": "c2ln"}}
DETAILS = [{"type": "reasoning.text", "text": "Hm, Bern", "signature": "s", "index": 0}]


class TestOpenAICompatible:
    @pytest.mark.parametrize(
        "fields",
        [
            {"reasoning_content": "Bern, then."},
            {"reasoning_content": ""},
            {"reasoning": "Bern, then."},
            {"reasoning_details": DETAILS},
            {"extra_content": EXTRA},
            {"thinking_blocks": [THINKING], "reasoning_content": "Bern, then."},
        ],
    )
    def test_fields_of_the_message_go_back(self, fields: dict[str, Any]) -> None:
        body = deepseeks(**fields, provider="x", annotations=[])
        told = sent(DEEPSEEK, next_turn(answered(DEEPSEEK, body)))["messages"][1]
        calls = deepseeks()["choices"][0]["message"]["tool_calls"]
        assert told == {"role": "assistant", "tool_calls": calls, **fields}

    @pytest.mark.parametrize("field", ["extra_content", "provider_specific_fields"])
    def test_fields_of_a_call_go_back(self, field: str) -> None:
        body = deepseeks()
        body["choices"][0]["message"]["tool_calls"][0][field] = EXTRA
        (call,) = sent(DEEPSEEK, next_turn(answered(DEEPSEEK, body)))["messages"][1]["tool_calls"]
        assert call == body["choices"][0]["message"]["tool_calls"][0]

    @pytest.mark.parametrize(
        "dialect",
        [
            AZURE,
            OpenAIDialect(model("openai", "it", "m-2"), AT),
            OpenAIDialect(model("openai", "x"), AT),
        ],
    )
    def test_others_are_told_what_openai_knows(self, dialect: Dialect) -> None:
        body = deepseeks(reasoning_content="Hm", extra_content=EXTRA)
        told = sent(dialect, next_turn(answered(DEEPSEEK, body)))
        assert check_messages(told) is None
        assert (
            told["messages"][1]["tool_calls"] == deepseeks()["choices"][0]["message"]["tool_calls"]
        )

    def test_a_field_that_is_empty_is_not_told_either(self) -> None:
        request = next_turn(answered(DEEPSEEK, deepseeks()))
        (call,) = request.messages[1].tool_calls
        turn = {"tool_calls": (call.model_copy(update={"opaque": {}}),)}
        messages = list(request.messages)
        messages[1] = messages[1].model_copy(update=turn)
        empty = request.model_copy(update={"messages": tuple(messages)})
        assert sent(DEEPSEEK, empty) == sent(DEEPSEEK, request)

    def test_thoughts_of_others_are_not_told(self) -> None:
        told = sent(DEEPSEEK, next_turn(answered(CLAUDE, CLAUDES)))
        assert check_messages(told) is None
        assert "EqQ" not in json.dumps(told)

    def test_fields_that_were_streamed_are_the_same(self) -> None:
        fields = {"reasoning_content": "Bern, then.", "reasoning_details": DETAILS}
        whole = deepseeks(**fields)
        call = whole["choices"][0]["message"]["tool_calls"][0]
        call["extra_content"] = EXTRA
        detail = {"type": "reasoning.text", "index": 0}
        deltas: list[dict[str, Any]] = [
            {"reasoning_content": "Bern", "reasoning_details": [{**detail, "text": "Hm"}]},
            {"reasoning_content": ", then.", "reasoning_details": [{**detail, "text": ", Bern"}]},
            {"reasoning_details": [{**detail, "signature": "s", "text": None}]},
            {
                "tool_calls": [
                    {**call, "index": 0, "function": {"name": "weather", "arguments": ""}}
                ]
            },
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Bern"}'}}]},
        ]
        chunks = [{"model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
        body = "".join(f"data: {json.dumps(each)}\n\n" for each in [*chunks, end])
        assert answered(DEEPSEEK, body.encode(), EVENTS) == answered(DEEPSEEK, whole)

    def test_a_thought_that_is_signed_is_at_its_end(self) -> None:
        first, second = {**THINKING, "thinking": "One"}, {**THINKING, "thinking": "Two"}
        deltas: list[dict[str, Any]] = [
            {"thinking_blocks": [{**first, "signature": None}]},
            {"thinking_blocks": [{"type": "thinking", "signature": "EqQBCgIYAhIM"}]},
            {"thinking_blocks": [second]},
            {"tool_calls": [{"index": 0, **deepseeks()["choices"][0]["message"]["tool_calls"][0]}]},
        ]
        chunks = [{"model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
        body = "".join(f"data: {json.dumps(each)}\n\n" for each in [*chunks, end])
        said = answered(DEEPSEEK, body.encode(), EVENTS)
        told = sent(DEEPSEEK, next_turn(said))["messages"][1]
        assert told["thinking_blocks"] == [first, second]


ANSWERS: list[tuple[Dialect, Any]] = [
    (CLAUDE, CLAUDES),
    (CLAUDE, PLAIN_CLAUDES),
    (BEDROCK, BEDROCKS),
    (GEMINI, GEMINIS),
    (DEEPSEEK, deepseeks(reasoning_content="Hm")),
]


class TestFailover:
    @given(
        st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=3),
        st.sampled_from([CLAUDE, BEDROCK, GEMINI, AZURE]),
        st.booleans(),
    )
    def test_any_provider_goes_on_with_calls_of_any(
        self, said: list[tuple[Dialect, Any]], next: Dialect, thinks: bool
    ) -> None:
        params: dict[str, Any] = {}
        if thinks and next is CLAUDE:
            params = {"thinking": BUDGET}
        elif thinks and next is BEDROCK:
            params = THINKS
        body = sent(next, next_turn(*(answered(*each) for each in said), **params))
        if next is AZURE:
            assert check_messages(body) is None


class TestWords:
    def test_an_author_is_a_model_of_a_provider(self) -> None:
        names = {
            author(model(provider, name, named))
            for provider in ("openai", "azure")
            for name in ("a", "b")
            for named in ("c", "d")
        }
        assert len(names) == 8

    @given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), min_size=1))
    def test_what_was_kept_is_there_again(self, words: dict[str, str]) -> None:
        opaque = seal("me", words)
        call = ToolCall.decode(ToolCall.of("a", "b", "{}", opaque).encode())
        assert unseal("me", call) == words
        assert unseal("you", call) == {}

    def test_what_is_no_text_does_not_travel(self) -> None:
        assert seal("me", {"a": "\ud800"}) == {"me": {"a": "\ufffd"}}
        assert seal("me", {"a": float("nan")}) is None
        deep: Any = "x"
        for _ in range(100):
            deep = [deep]
        assert seal("me", {"a": deep}) is None
        assert seal("me", {"a": "", "b": []}) is None
        assert seal("", {"a": "b"}) is None

    @pytest.mark.parametrize(
        "words",
        [
            1,
            [],
            {"thinking": 1, "reasoningContent": "x", "thoughtSignature": [], "message": 1},
            {"thinking": [1, {"type": []}, {"type": "image"}], "call": [], "message": []},
        ],
    )
    @pytest.mark.parametrize("dialect", [CLAUDE, BEDROCK, GEMINI, DEEPSEEK])
    def test_what_nobody_wrote_is_passed_over(self, dialect: Any, words: Any) -> None:
        by = author(dialect._model)
        call = ToolCall.of("call_1", "weather", "{}", {by: words})
        said = Completion(text="", provider_model="m", usage=answered(CLAUDE, CLAUDES).usage)
        plain, told = (
            next_turn(Completion(said.text, "m", said.usage, tool_calls=(each,)))
            for each in (ToolCall.of("call_1", "weather", "{}"), call)
        )
        assert sent(dialect, told) == sent(dialect, plain)


def test_a_line_of_a_batch_carries_it_out_and_in() -> None:
    said = answered(GEMINI, GEMINIS)
    decision = Decision(
        route="default",
        intent="other",
        why="no rule matched",
        input_tokens=1,
        decided_at=NOW,
        plan=Plan(steps=(Step(model="it"),)),
    )
    answer = Answer(
        id="r-1",
        text="",
        model="it",
        provider_model="gemini-3-pro",
        decision=decision,
        tool_calls=said.tool_calls,
    )
    line = json.loads(json.dumps(answer_line("a", answer, "digest")))
    message = line["response"]["body"]["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "Sunny"}
        for call in message["tool_calls"]
    ]
    messages = [{"role": "user", "content": "Weather?"}, message, *results]
    body = {"model": "it", "messages": messages, "tools": [WEATHER]}
    asked = {"custom_id": "b", "method": "POST", "url": "/v1/chat/completions", "body": body}
    catalog = Catalog.model_validate(
        {
            "models": [model("vertex", named="gemini-3-pro")],
            "routes": {"default": {"otherwise": ["it"]}},
        }
    )
    request = read_line(json.dumps(asked).encode(), 1, catalog, "default").request
    assert request.messages[1].tool_calls == said.tool_calls
    assert signatures(sent(GEMINI, request)["contents"]) == [vertex_api.OWN, None]
