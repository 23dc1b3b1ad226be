"""The OpenAI adapter and its fake, beside OpenAI's own Python library."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

import httpx
import pytest
from fakes.closed_types import Closed
from fakes.dialects import NOW, asked
from fakes.matrix import COMMON, ROUNDS, TOOLS, URL, image, told, user, words

from model_workers.providers.azure import AzureDialect
from model_workers.providers.base import Completion
from model_workers.providers.openai import OpenAIDialect, read_response
from modelyard.catalog import Endpoint, Model
from modelyard.messages import Message, Request, ToolCall, Usage
from modelyard.testing import FakeProvider, Reply
from modelyard.testing_chat_api import KNOWN, read_call

openai = pytest.importorskip("openai", reason="the SDK of OpenAI is not installed")

from openai.types import ErrorObject  # noqa: E402
from openai.types.chat import ChatCompletion, ChatCompletionChunk  # noqa: E402
from openai.types.chat import completion_create_params as params  # noqa: E402

KEY = "sk-verysecret-0123456789"
WHOLE = Closed(params.CompletionCreateParamsNonStreaming)
STREAMED = Closed(params.CompletionCreateParamsStreaming)
ANSWER, CHUNK, ERROR = Closed(ChatCompletion), Closed(ChatCompletionChunk), Closed(ErrorObject)

FOREIGN = ToolCall.of("call_1", "weather", "{}", {"vertex:a:b": {"thoughtSignature": "c2ln"}})
REQUESTS: Mapping[str, Request] = {
    **COMMON,
    "image address": asked(user(words("What is it?"), image(URL), image(URL, detail="low"))),
    "names": asked({"role": "user", "name": "ann", "content": "Hello"}),
    "another model's thoughts": Request(
        messages=(
            Message(role="user", content="Weather?"),
            Message(role="assistant", tool_calls=(FOREIGN,)),
            Message(role="tool", tool_call_id="call_1", content="sunny"),
        ),
        params={"tools": TOOLS},
    ),
    "last is a tool": asked(*ROUNDS[:4], tools=TOOLS, parallel_tool_calls=False),
    "no result": asked(*ROUNDS[:2], told("call_1"), told("functions.weather:2", "")),
    "JSON": asked(response_format={"type": "json_object"}),
    "random": asked(seed=7, n=2, temperature=2, presence_penalty=-2, frequency_penalty=2),
    "logs": asked(logprobs=True, top_logprobs=3, logit_bias={"50256": -100}),
    "about": asked(user="u-1", safety_identifier="u-1", metadata={"job": "1"}, store=False),
    "efforts": asked(reasoning_effort="xhigh", verbosity="low", service_tier="flex"),
    "cache": asked(prompt_cache_key="k", prompt_cache_retention="24h"),
    "no effort": asked(reasoning_effort="none"),
    "least effort": asked(reasoning_effort="minimal"),
}
CALLS = (
    ToolCall.of("call_1", "weather", '{"city_name": "Bern"}'),
    ToolCall.of("call_2", "time", "{}"),
)
REPLIES: Mapping[str, Reply] = {
    "text": Reply(text="Salve, mundus totus!"),
    "echo": Reply(),
    "empty": Reply(text=""),
    "calls": Reply(tool_calls=CALLS),
    "text and calls": Reply(text="Let me see.", tool_calls=CALLS),
    "refusal": Reply(refusal="I can't help with that."),
    "cut": Reply(text="Salve", finish_reason="length"),
    "filtered": Reply(text="Sal", finish_reason="content_filter"),
    "tokens": Reply(
        text="Salve",
        usage=Usage(input_tokens=9, output_tokens=7, cached_input_tokens=5, reasoning_tokens=3),
    ),
}


def dialect(*, stream: bool = False) -> OpenAIDialect:
    endpoint = Endpoint(base_url="https://api.openai.com/v1", api_key=KEY)
    model = Model(name="m", provider="openai", model="gpt-5", endpoints=(endpoint,), stream=stream)
    return OpenAIDialect(model, endpoint)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeProvider]:
    with FakeProvider(api_key=KEY) as provider:
        yield provider


@pytest.fixture
def fake(server: FakeProvider) -> FakeProvider:
    server.reset()
    return server


@pytest.fixture(scope="module")
def client(server: FakeProvider) -> Iterator[Any]:
    with openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as sdk:
        yield sdk


class TestRequests:
    @pytest.mark.parametrize("name", REQUESTS)
    @pytest.mark.parametrize("stream", [False, True])
    def test_are_of_the_sdks_types_and_please_the_fake(self, name: str, stream: bool) -> None:
        raw = dialect(stream=stream).encode(REQUESTS[name])
        assert (STREAMED if stream else WHOLE).problem(json.loads(raw)) is None
        assert isinstance(read_call(raw), dict)

    def test_the_check_is_one(self) -> None:
        body = json.loads(dialect().encode(COMMON["tool rounds"]))
        body["messages"][1]["tool_calls"][0]["opaque"] = {}
        assert "opaque" in str(WHOLE.problem(body))

    def test_the_fake_knows_the_parameters_of_the_sdk_and_no_others(self) -> None:
        assert set(get_type_hints(params.CompletionCreateParamsStreaming)) == KNOWN


class TestAnswers:
    @pytest.mark.parametrize("name", REPLIES)
    def test_whole_ones_are_of_the_sdks_type(self, fake: FakeProvider, name: str) -> None:
        fake.script("gpt-5", [REPLIES[name]])
        assert ANSWER.problem(self.post(fake, dialect()).json()) is None

    @pytest.mark.parametrize("name", REPLIES)
    def test_streamed_ones_are_of_the_sdks_type(self, fake: FakeProvider, name: str) -> None:
        fake.script("gpt-5", [REPLIES[name]])
        events = self.post(fake, dialect(stream=True)).text.strip().split("\n\n")
        assert events.pop() == "data: [DONE]"
        for event in events:
            assert CHUNK.problem(json.loads(event.removeprefix("data: "))) is None

    @pytest.mark.parametrize(
        ("status", "name"),
        [
            (400, "BadRequestError"),
            (401, "AuthenticationError"),
            (403, "PermissionDeniedError"),
            (404, "NotFoundError"),
            (409, "ConflictError"),
            (422, "UnprocessableEntityError"),
            (429, "RateLimitError"),
            (500, "InternalServerError"),
            (503, "InternalServerError"),
        ],
    )
    def test_errors_are_the_sdks(
        self, fake: FakeProvider, client: Any, status: int, name: str
    ) -> None:
        fake.always("gpt-5", Reply(status=status, code="some_code", message="No."))
        assert ERROR.problem(self.post(fake, dialect()).json()["error"]) is None
        with pytest.raises(getattr(openai, name)) as caught:
            client.chat.completions.create(**json.loads(dialect().encode(COMMON["plain"])))
        assert (caught.value.status_code, caught.value.code) == (status, "some_code")

    @staticmethod
    def post(fake: FakeProvider, speaker: OpenAIDialect) -> httpx.Response:
        base = httpx.URL(fake.base_url)
        content = speaker.encode(COMMON["plain"])
        return httpx.post(speaker.address(base), content=content, headers=speaker.headers(base))


class TestClient:
    """OpenAI's client at the fake, and what our adapter makes of the same answers."""

    @pytest.mark.parametrize("name", REQUESTS)
    def test_can_ask_what_the_adapter_asks(
        self, fake: FakeProvider, client: Any, name: str
    ) -> None:
        body = json.loads(dialect().encode(REQUESTS[name]))
        answer = client.chat.completions.create(**body)
        assert answer.choices[0].message.content
        assert [call.outcome for call in fake.calls] == ["answered"]

    @pytest.mark.parametrize("name", sorted(REPLIES.keys() - {"cut", "filtered"}))
    def test_hears_the_same_whole_and_streamed(
        self, fake: FakeProvider, client: Any, name: str
    ) -> None:
        fake.always("gpt-5", REPLIES[name])
        body = json.loads(dialect().encode(COMMON["plain"]))
        whole = client.chat.completions.create(**body)
        with client.chat.completions.stream(
            **body, stream_options={"include_usage": True}
        ) as stream:
            joined = stream.get_final_completion()
        assert said(joined) == said(whole)
        assert joined.usage == whole.usage

    @pytest.mark.parametrize("name", ["text", "calls", "text and calls", "tokens", "cut"])
    def test_reads_what_the_adapter_reads(self, fake: FakeProvider, client: Any, name: str) -> None:
        fake.always("gpt-5", REPLIES[name])
        body = json.loads(dialect().encode(COMMON["plain"]))
        raw = client.chat.completions.with_raw_response.create(**body)
        message, finish_reason = said(raw.parse())
        ours = read_response(200, raw.headers, raw.content, "gpt-5", NOW)
        assert isinstance(ours, Completion)
        assert (ours.text, ours.finish_reason) == (message["content"] or "", finish_reason)
        assert [call.encode() for call in ours.tool_calls] == (message["tool_calls"] or [])
        usage = raw.parse().usage
        assert ours.usage.input_tokens == usage.prompt_tokens
        assert ours.usage.output_tokens == usage.completion_tokens

    def test_at_azure_calls_the_same_address_with_the_same_key(self, fake: FakeProvider) -> None:
        version, name = "2024-10-21", "gpt-4-eu"
        endpoint = Endpoint(base_url=fake.azure_url, api_key=KEY, api_version=version)
        model = Model(name="m", provider="azure", model=name, endpoints=(endpoint,))
        with openai.AzureOpenAI(
            azure_endpoint=fake.azure_url, api_version=version, api_key=KEY, max_retries=0
        ) as sdk:
            raw = sdk.chat.completions.with_raw_response.create(
                model=name, messages=[user("Hello")]
            )
            stream = sdk.chat.completions.create(model=name, messages=[user("Hello")], stream=True)
            pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
        assert "".join(filter(None, pieces)) == raw.parse().choices[0].message.content
        ours, base = AzureDialect(model, endpoint), httpx.URL(endpoint.base_url)
        heard = raw.http_request
        assert str(ours.address(base)) == str(heard.url)
        assert ours.headers(base).items() <= dict(heard.headers).items()


def said(whole: Any) -> tuple[dict[str, Any], str]:
    """What a completion of the SDK says, without what only one of its readers adds."""
    message = whole.choices[0].message
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in message.tool_calls or ()
    ]
    told = {"content": message.content or None, "refusal": message.refusal, "tool_calls": calls}
    return told, whole.choices[0].finish_reason
