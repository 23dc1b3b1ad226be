"""The Gemini adapter and its fake, beside Google's own Python library."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from fakes.dialects import NOW, asked
from fakes.matrix import COMMON, ROUNDS, TOOLS, URL, WEATHER, image, user, words
from fakes.requests import PNG
from fakes.server import Canned
from fakes.vertex_api import OWN, VertexApi, answer, check_call, error, in_camel_case, streamed

from model_workers.providers.base import Completion, Failure
from model_workers.providers.gemini_answer import read_response
from model_workers.providers.vertex import VertexDialect
from modelyard.catalog import Endpoint, Model
from modelyard.messages import Message, Request

genai = pytest.importorskip("google.genai", reason="the SDK of Google is not installed")

from google.genai import errors, types  # noqa: E402
from google.oauth2.credentials import Credentials  # noqa: E402

FLASH, NEWER, OPTIMIZER = "gemini-2.5-flash", "gemini-3-pro-preview", "model-optimizer-exp-04-09"
TOKEN, KEY = "ya29.secret", "AIza-secret"
EVENTS = {"content-type": "text/event-stream"}
HERE = {"project": "p-1", "region": "europe-west4"}

REQUESTS: Mapping[str, Request] = {
    **COMMON,
    "image address": asked(user(words("What is it?"), image(URL), image("gs://b/a.jpg"))),
    "image of low detail": asked(user(words("What is it?"), image(PNG, detail="low"))),
    "random": asked(seed=7, n=2, temperature=2, top_k=3, presence_penalty=-2, frequency_penalty=2),
    "logs": asked(logprobs=True, top_logprobs=3),
    "JSON": asked(response_format={"type": "json_object"}),
    "minimal effort": asked(reasoning_effort="minimal"),
    "own tools": asked(tools=[WEATHER, {"googleSearch": {}}, {"urlContext": {}}]),
    "own": asked(
        generationConfig={"thinkingConfig": {"includeThoughts": True, "thinkingBudget": -1}},
        safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}],
    ),
    "cached": asked(cachedContent="projects/p-1/locations/europe-west4/cachedContents/1"),
}
OF_VERTEX: Mapping[str, Request] = {
    "labels": asked(labels={"cost_center": "1"}),
    "armor": asked(modelArmorConfig={"promptTemplateName": "p", "responseTemplateName": "r"}),
}
CALL = {"functionCall": {"name": "weather", "args": {"city_name": "Bern"}}}
USAGE = {
    "promptTokenCount": 9,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 3,
    "cachedContentTokenCount": 5,
    "totalTokenCount": 16,
}


def said(*parts: dict[str, Any], reason: str = "STOP", **more: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts)}
    return answer("", candidates=[{"content": content, "finishReason": reason, "index": 0}], **more)


ANSWERS: Mapping[str, dict[str, Any]] = {
    "text": answer("Salve, mundus totus!"),
    "call": said({**CALL, "thoughtSignature": OWN}),
    "calls": said({"text": "So"}, {**CALL, "thoughtSignature": OWN}, CALL),
    "thoughts": said({"text": "Bern?", "thought": True}, {"text": "Sunny"}, usageMetadata=USAGE),
    "cut": said({"text": "Sal"}, reason="MAX_TOKENS"),
}


def dialect(name: str = FLASH, *, stream: bool = False, **more: Any) -> VertexDialect:
    endpoint = Endpoint(
        base_url=more.pop("base_url", "https://europe-west4-aiplatform.googleapis.com"),
        **{"api_key": TOKEN, **HERE, **more},
    )
    model = Model(
        name="gemini", provider="vertex", model=name, endpoints=(endpoint,), stream=stream
    )
    return VertexDialect(model, endpoint)


@pytest.fixture(scope="module")
def fake() -> Iterator[VertexApi]:
    with VertexApi(f"Bearer {TOKEN}", KEY) as api:
        yield api


@pytest.fixture(scope="module")
def client(fake: VertexApi) -> Iterator[Any]:
    """Google's client of Vertex AI."""
    with genai.Client(
        vertexai=True,
        project="p-1",
        location="europe-west4",
        credentials=Credentials(TOKEN),  # type: ignore[no-untyped-call,unused-ignore]
        http_options=types.HttpOptions(base_url=fake.base_url, api_version="v1"),
    ) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def gemini(fake: VertexApi) -> Iterator[Any]:
    """Google's client of the Gemini API."""
    options = types.HttpOptions(base_url=fake.base_url, api_version="v1beta")
    with genai.Client(vertexai=False, api_key=KEY, http_options=options) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def express(fake: VertexApi) -> Iterator[Any]:
    """Google's client of Vertex AI with a key, and without a project."""
    options = types.HttpOptions(base_url=fake.base_url, api_version="v1")
    with genai.Client(vertexai=True, api_key=KEY, http_options=options) as sdk:
        yield sdk


def kwargs(name: str, request: Request) -> dict[str, Any]:
    """A request as the SDK's callers give it: the wire's words are its types', in other places.

    All its types are closed: a key or a word that they do not have is an error.
    """
    body = json.loads(dialect(name).encode(request))
    contents = [types.Content.model_validate(each) for each in body.pop("contents")]
    flat = {**body.pop("generationConfig", {}), **body}
    if "modelConfig" in flat:
        flat["modelSelectionConfig"] = flat.pop("modelConfig")
    config = types.GenerateContentConfig.model_validate(flat)
    return {"model": name, "contents": contents, "config": config}


def heard(fake: VertexApi) -> Any:
    """The body of the last call.

    The SDK writes an empty object where it is told nothing, and functions after other tools.
    """
    body = in_camel_case(fake.calls[-1].body)
    body.get("tools", []).sort(key=lambda tool: "functionDeclarations" not in tool)
    return {key: value for key, value in body.items() if value or key != "generationConfig"}


class TestRequests:
    @pytest.mark.parametrize("name", [*REQUESTS, *OF_VERTEX])
    @pytest.mark.parametrize("model", [FLASH, NEWER])
    def test_are_what_the_sdk_sends(
        self, fake: VertexApi, client: Any, model: str, name: str
    ) -> None:
        request = {**REQUESTS, **OF_VERTEX}[name]
        client.models.generate_content(**kwargs(model, request))
        ours = json.loads(dialect(model).encode(request))
        assert heard(fake) == ours
        check_call(ours, model)

    @pytest.mark.parametrize("name", REQUESTS)
    def test_are_what_the_sdk_sends_to_the_gemini_api(
        self, fake: VertexApi, gemini: Any, name: str
    ) -> None:
        gemini.models.generate_content(**kwargs(FLASH, REQUESTS[name]))
        assert heard(fake) == json.loads(dialect().encode(REQUESTS[name]))

    def test_a_model_optimizer_is_asked_as_the_sdk_asks(self, fake: VertexApi, client: Any) -> None:
        request = asked(model_selection="cost")
        client.models.generate_content(**kwargs(OPTIMIZER, request))
        assert heard(fake) == json.loads(dialect(OPTIMIZER).encode(request))

    def test_the_check_is_one(self) -> None:
        with pytest.raises(ValueError, match="candidateSum"):
            kwargs(FLASH, asked(generationConfig={"candidateSum": 1}))

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("which", ["client", "gemini", "express"])
    def test_addresses_and_keys_are_the_sdks(
        self, request: pytest.FixtureRequest, fake: VertexApi, which: str, stream: bool
    ) -> None:
        models = request.getfixturevalue(which).models
        call = models.generate_content_stream if stream else models.generate_content
        list(call(model=FLASH, contents="Hello"))
        base = httpx.URL(fake.base_url + ("/v1beta" if which == "gemini" else "/v1"))
        key: dict[str, Any] = (
            {} if which == "client" else {"project": None, "region": None, "api_key": KEY}
        )
        ours = dialect(stream=stream, base_url=str(base), **key)
        assert fake.calls[-1].path == ours.address(base).raw_path.decode()
        assert ours.headers(base).items() <= fake.calls[-1].headers.items()

    @pytest.mark.parametrize("stream", [False, True])
    def test_signatures_that_were_read_go_back_as_they_came(
        self, fake: VertexApi, client: Any, stream: bool
    ) -> None:
        whole = ANSWERS["calls"]
        body = streamed(whole).body if stream else json.dumps(whole).encode()
        read = dialect(NEWER).read(200, EVENTS if stream else {}, body, NOW)
        assert isinstance(read, Completion)
        turns = [
            Message(role="user", content="Weather?"),
            Message(role="assistant", content=read.text, tool_calls=read.tool_calls),
            *(
                Message(role="tool", tool_call_id=call.id, content="sunny")
                for call in read.tool_calls
            ),
        ]
        request = Request(messages=tuple(turns), params={"tools": TOOLS})
        client.models.generate_content(**kwargs(NEWER, request))
        sent = json.loads(dialect(NEWER).encode(request))
        assert heard(fake) == sent
        assert sent["contents"][1] == whole["candidates"][0]["content"]


class TestAnswers:
    @pytest.mark.parametrize("name", ANSWERS)
    def test_are_of_the_sdks_closed_type(self, name: str) -> None:
        read = types.GenerateContentResponse.model_validate_json(json.dumps(ANSWERS[name]))
        again = read.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert in_camel_case(again) == ANSWERS[name]

    def test_the_type_is_closed(self) -> None:
        with pytest.raises(ValueError, match="finishReasons"):
            types.GenerateContentResponse.model_validate({"candidates": [{"finishReasons": 1}]})

    @pytest.mark.parametrize("reason", [each.value for each in types.FinishReason])
    def test_each_finish_reason_of_the_sdk_is_read(self, reason: str) -> None:
        outcome = read_response(
            200, {}, json.dumps(said({"text": "Salve"}, reason=reason)).encode(), FLASH, NOW
        )
        assert isinstance(outcome, Completion | Failure)
        assert not isinstance(outcome, Completion) or outcome.text == "Salve"
        nothing = read_response(200, {}, json.dumps(said(reason=reason)).encode(), FLASH, NOW)
        assert isinstance(nothing, Failure)

    @pytest.mark.parametrize("reason", [each.value for each in types.BlockedReason])
    def test_each_block_of_the_sdk_is_a_refusal(self, reason: str) -> None:
        blocked = {"promptFeedback": {"blockReason": reason}}
        types.GenerateContentResponse.model_validate(blocked)
        outcome = read_response(200, {}, json.dumps(blocked).encode(), FLASH, NOW)
        assert isinstance(outcome, Failure)
        assert outcome.kind == "refused"

    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            (400, "INVALID_ARGUMENT", "permanent"),
            (401, "UNAUTHENTICATED", "denied"),
            (403, "PERMISSION_DENIED", "denied"),
            (404, "NOT_FOUND", "denied"),
            (429, "RESOURCE_EXHAUSTED", "limited"),
            (500, "INTERNAL", "retryable"),
            (503, "UNAVAILABLE", "retryable"),
        ],
    )
    def test_errors_are_the_sdks(
        self, fake: VertexApi, client: Any, code: int, status: str, kind: str
    ) -> None:
        told = error(code, status, "No.")
        fake.script(Canned(code, told))
        with pytest.raises(errors.APIError) as caught:
            client.models.generate_content(**kwargs(FLASH, COMMON["plain"]))
        assert type(caught.value) is (errors.ServerError if code >= 500 else errors.ClientError)
        found = caught.value
        assert (found.code, found.status, found.message) == (code, status, "No.")
        outcome = read_response(code, {}, json.dumps(told).encode(), FLASH, NOW)
        assert isinstance(outcome, Failure)
        assert outcome.kind == kind


class TestClient:
    @pytest.mark.parametrize("name", ANSWERS)
    def test_reads_what_the_adapter_reads(self, fake: VertexApi, client: Any, name: str) -> None:
        whole = ANSWERS[name]
        fake.script(Canned(200, whole), streamed(whole))
        call = kwargs(FLASH, asked(*ROUNDS[:1], tools=TOOLS))
        one = client.models.generate_content(**call)
        [piece] = client.models.generate_content_stream(**call)
        for theirs, body, headers in (
            (one, json.dumps(whole).encode(), {}),
            (piece, streamed(whole).body, EVENTS),
        ):
            ours = dialect().read(200, headers, body, NOW)
            assert isinstance(ours, Completion)
            parts = theirs.candidates[0].content.parts
            assert ours.text == "".join(p.text or "" for p in parts if not p.thought)
            assert [
                (each.function.name, json.loads(each.function.arguments))
                for each in ours.tool_calls
            ] == [(each.name, each.args) for each in theirs.function_calls or ()]
            assert ours.provider_model == theirs.model_version
            counts = theirs.usage_metadata
            assert ours.usage.input_tokens == counts.prompt_token_count
            spent = counts.candidates_token_count + (counts.thoughts_token_count or 0)
            assert ours.usage.output_tokens == spent
