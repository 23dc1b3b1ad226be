"""The Bedrock adapter and its fake, beside botocore and its model of the service."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from fakes.aws_shapes import as_python, problems
from fakes.bedrock_api import BedrockApi, answer, failed, problem
from fakes.bedrock_stream import CONTENT_TYPE, event, exception, frames_of, streamed
from fakes.bedrock_words import BASE, NOVA, ROUTER
from fakes.dialects import NOW, Speaker, asked
from fakes.matrix import COMMON, ROUNDS, TOOLS, WEATHER, told
from fakes.requests import PNG
from fakes.server import Canned

from model_workers.providers.aws_frames import read_frames
from model_workers.providers.base import Completion
from model_workers.providers.bedrock import BedrockDialect
from model_workers.providers.bedrock_call import NATIVE
from modelyard.catalog import Endpoint, Model
from modelyard.messages import Message, Request

session = pytest.importorskip("botocore.session", reason="botocore is not installed")

from botocore import exceptions, validate  # type: ignore[import-untyped,unused-ignore] # noqa: E402
from botocore.config import Config  # type: ignore[import-untyped,unused-ignore] # noqa: E402

KEY_ID, SECRET, REGION = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG", "us-east-1"
SERVICE = session.Session().get_service_model("bedrock-runtime")
ASKED = SERVICE.operation_model("Converse").input_shape
ANSWERED = SERVICE.operation_model("Converse").output_shape
EVENTS = SERVICE.operation_model("ConverseStream").output_shape.members["stream"]
CHECK = validate.ParamValidator()

REQUESTS: Mapping[str, Request] = {
    **COMMON,
    "image of a tool": asked(
        *ROUNDS[:2],
        told("call_1", [{"type": "image_url", "image_url": {"url": PNG}}]),
        told("functions.weather:2"),
        tools=TOOLS,
    ),
    "schema and effort": asked(
        response_format=COMMON["schema"].params["response_format"], reasoning_effort="max"
    ),
    "budget": asked(
        additionalModelRequestFields={"thinking": {"type": "enabled", "budget_tokens": 2000}},
        anthropic_beta=["interleaved-thinking-2025-05-14"],
    ),
    "own tools": asked(tools=[WEATHER, {"cachePoint": {"type": "default"}}]),
    "server's tools": asked(tools=[{"systemTool": {"name": "nova_grounding"}}]),
    "about": asked(user="u-1", metadata={"job": "42"}, service_tier="flex"),
    "guarded": asked(
        guardrailConfig={
            "guardrailIdentifier": "abc123",
            "guardrailVersion": "1",
            "trace": "enabled",
        }
    ),
    "own": asked(
        inferenceConfig={"maxTokens": 5, "stopSequences": ["END"]},
        performanceConfig={"latency": "optimized"},
        serviceTier={"type": "priority"},
        requestMetadata={"job": "42"},
        promptVariables={"name": {"text": "Ann"}},
        additionalModelResponseFieldPaths=["/stop_sequence"],
    ),
}
USE = {"toolUseId": "tooluse_1", "name": "weather", "input": {"city_name": "Bern"}}
SIGNED = {"reasoningText": {"text": "Bern, then.", "signature": "EqQBCgIYAhIk"}}
HIDDEN = {"redactedContent": base64.b64encode(b"hidden").decode()}
ANSWERS: Mapping[str, dict[str, Any]] = {
    "text": answer({"text": "Salve, mundus totus!"}),
    "call": answer({"toolUse": USE}, stopReason="tool_use"),
    "calls": answer(
        {"text": "Let me see."},
        {"toolUse": USE},
        {"toolUse": {**USE, "toolUseId": "tooluse_2", "input": {}}},
        stopReason="tool_use",
    ),
    "thoughts": answer(
        {"reasoningContent": SIGNED},
        {"reasoningContent": HIDDEN},
        {"text": "So"},
        {"toolUse": USE},
        stopReason="tool_use",
    ),
    "cut": answer({"text": "Sal"}, stopReason="max_tokens"),
    "routed": answer(
        {"text": "Sal"}, trace={"promptRouter": {"invokedModelId": "anthropic.claude"}}
    ),
    "cached": answer(
        {"text": "Sal"},
        usage={
            "inputTokens": 10,
            "outputTokens": 5,
            "totalTokens": 25,
            "cacheReadInputTokens": 7,
            "cacheWriteInputTokens": 3,
        },
    ),
}

ERRORS = [
    (400, "ValidationException", "permanent"),
    (403, "AccessDeniedException", "denied"),
    (404, "ResourceNotFoundException", "denied"),
    (408, "ModelTimeoutException", "retryable"),
    (424, "ModelErrorException", "retryable"),
    (429, "ThrottlingException", "limited"),
    (429, "ModelNotReadyException", "retryable"),
    (500, "InternalServerException", "retryable"),
    (503, "ServiceUnavailableException", "retryable"),
]


def dialect(name: str = NOVA, *, stream: bool = False) -> BedrockDialect:
    endpoint = Endpoint(base_url=str(BASE))
    model = Model(name="nova", provider="bedrock", model=name, endpoints=(endpoint,), stream=stream)
    return BedrockDialect(model, endpoint)


def sdk_problem(body: Any) -> str | None:
    return problems(CHECK, ASKED, {"modelId": NOVA, **body}) or None


SPEAKER = Speaker(dialect(), sdk_problem)


@pytest.fixture(scope="module")
def fake() -> Iterator[BedrockApi]:
    with BedrockApi(key_id=KEY_ID, secret=SECRET, region=REGION) as api:
        yield api


@pytest.fixture(scope="module")
def client(fake: BedrockApi) -> Iterator[Any]:
    sdk = session.Session().create_client(
        "bedrock-runtime",
        region_name=REGION,
        endpoint_url=fake.base_url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, auth_scheme_preference="sigv4"),
    )
    yield sdk
    sdk.close()


def kwargs(name: str, request: Request) -> dict[str, Any]:
    """A request as botocore's callers give it."""
    body = json.loads(dialect(name).encode(request))
    converted: dict[str, Any] = as_python(ASKED, {"modelId": name, **body})
    return converted


def spoken(whole: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key != "ResponseMetadata"}


class TestRequests:
    @pytest.mark.parametrize("name", REQUESTS)
    def test_are_of_the_services_shapes_and_please_the_fake(self, name: str) -> None:
        body = json.loads(dialect().encode(REQUESTS[name]))
        assert sdk_problem(body) is None
        assert problem(body) is None

    def test_the_check_is_one(self) -> None:
        body = json.loads(dialect().encode(COMMON["image data"]))
        source = body["messages"][0]["content"][1]["image"]
        assert "tiff is no" not in str(sdk_problem(body))
        source["format"], source["size"] = "tiff", 1
        assert "size" in str(sdk_problem(body))
        assert "'tiff' is no ImageFormat" in str(sdk_problem(body))

    def test_each_parameter_of_the_service_can_be_given(self) -> None:
        assert {"modelId", "messages", "system", *NATIVE} == set(ASKED.members)

    def test_thoughts_that_were_read_go_back_as_they_came(self) -> None:
        for body, headers in told_twice(ANSWERS["thoughts"]):
            said = dialect().read(200, headers, body, NOW)
            assert isinstance(said, Completion)
            turns = (
                Message(role="user", content="Weather?"),
                Message(role="assistant", content=said.text, tool_calls=said.tool_calls),
                Message(role="tool", tool_call_id="tooluse_1", content="sunny"),
            )
            sent = json.loads(dialect().encode(Request(messages=turns, params={"tools": TOOLS})))
            assert sdk_problem(sent) is None
            assert sent["messages"][1] == ANSWERS["thoughts"]["output"]["message"]


def told_twice(whole: dict[str, Any]) -> Iterator[tuple[bytes, dict[str, str]]]:
    """An answer in one piece, and as a stream."""
    yield json.dumps(whole).encode(), {}
    yield b"".join(frames_of(whole)), {"content-type": CONTENT_TYPE}


class TestAnswers:
    @pytest.mark.parametrize("name", ANSWERS)
    def test_are_of_the_services_shapes(self, name: str) -> None:
        assert problems(CHECK, ANSWERED, ANSWERS[name]) == ""
        for frame in read_frames(b"".join(frames_of(ANSWERS[name]))):
            kind, data = frame.headers[":event-type"], json.loads(frame.payload)
            assert data.pop("p")  # Bedrock pads its events with it, and the shapes do not say so.
            assert problems(CHECK, EVENTS.members[kind], data) == ""

    @pytest.mark.parametrize("reason", ANSWERED.members["stopReason"].enum, ids=str)
    def test_each_stop_reason_of_the_service_is_known(self, reason: str) -> None:
        outcome = SPEAKER.read(200, answer({"text": "Salve"}, stopReason=reason))
        if isinstance(outcome, Completion):
            assert outcome.finish_reason in ("stop", "length", "tool_calls")

    @pytest.mark.parametrize(("status", "kind", "means"), ERRORS)
    def test_errors_are_the_services(
        self, fake: BedrockApi, client: Any, status: int, kind: str, means: str
    ) -> None:
        shapes = SERVICE.operation_model("Converse").error_shapes
        declared = {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in shapes}
        assert declared[kind] == status
        said = failed(status, kind, "No.")
        fake.script(said)
        with pytest.raises(getattr(client.exceptions, kind)) as caught:
            client.converse(**kwargs(NOVA, COMMON["plain"]))
        assert caught.value.response["Error"] == {"Message": "No.", "Code": kind}
        assert SPEAKER.failed(status, said.body, said.headers).kind == means

    def test_every_error_of_the_service_was_tried(self) -> None:
        shapes = SERVICE.operation_model("Converse").error_shapes
        assert {shape.name for shape in shapes} == {kind for _, kind, _ in ERRORS}


class TestClient:
    """botocore's client at the fake: signed, serialized and parsed by it."""

    @pytest.mark.parametrize("name", REQUESTS)
    def test_sends_what_the_adapter_sends(self, fake: BedrockApi, client: Any, name: str) -> None:
        said = client.converse(**kwargs(NOVA, REQUESTS[name]))
        assert said["output"]["message"]["content"][0]["text"].endswith("was asked")
        assert fake.calls[-1].body == json.loads(dialect().encode(REQUESTS[name]))

    @pytest.mark.parametrize("name", [NOVA, ROUTER])
    @pytest.mark.parametrize("stream", [False, True])
    def test_calls_the_same_address(
        self, fake: BedrockApi, client: Any, name: str, stream: bool
    ) -> None:
        call = client.converse_stream if stream else client.converse
        list(call(**kwargs(name, COMMON["plain"])).get("stream", ()))
        ours = dialect(name, stream=stream).address(BASE).raw_path.decode()
        # Both are the same path: a colon may stand in it, and botocore escapes it nevertheless.
        assert unquote(fake.calls[-1].path) == unquote(ours)
        assert fake.calls[-1].path == ours.replace(":", "%3A")

    @pytest.mark.parametrize("name", ANSWERS)
    def test_reads_what_the_adapter_reads(self, fake: BedrockApi, client: Any, name: str) -> None:
        whole = ANSWERS[name]
        fake.script(Canned(200, whole))
        theirs = spoken(client.converse(**kwargs(NOVA, COMMON["plain"])))
        assert theirs == as_python(ANSWERED, whole)
        blocks = theirs["output"]["message"]["content"]
        for body, headers in told_twice(whole):
            ours = dialect().read(200, headers, body, NOW)
            assert isinstance(ours, Completion)
            assert ours.text == "".join(block.get("text", "") for block in blocks)
            assert [call.id for call in ours.tool_calls] == [
                block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block
            ]
            assert ours.usage.output_tokens == theirs["usage"]["outputTokens"]

    @pytest.mark.parametrize("name", ANSWERS)
    def test_hears_the_same_whole_and_streamed(
        self, fake: BedrockApi, client: Any, name: str
    ) -> None:
        fake.script(streamed(ANSWERS[name]))
        events = list(client.converse_stream(**kwargs(NOVA, COMMON["plain"]))["stream"])
        assert joined(events) == as_python(ANSWERED, ANSWERS[name])

    def test_hears_an_exception_in_the_middle(self, fake: BedrockApi, client: Any) -> None:
        body = event("messageStart", {"role": "assistant"})
        body += exception("throttlingException", "Slower.")
        fake.script(Canned(200, body, {"content-type": CONTENT_TYPE}))
        stream = client.converse_stream(**kwargs(NOVA, COMMON["plain"]))["stream"]
        with pytest.raises(exceptions.EventStreamError) as caught:
            list(stream)
        assert caught.value.response["Error"]["Message"] == "Slower."
        ours = dialect().read(200, {"content-type": CONTENT_TYPE}, body, NOW)
        assert "ThrottlingException: Slower." in str(ours)


def joined(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer that the events of botocore's stream say."""
    blocks: dict[int, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    for said in events:
        [(kind, data)] = said.items()
        at = data.get("contentBlockIndex", 0)
        if kind == "contentBlockStart":
            blocks[at] = {"toolUse": {**data["start"]["toolUse"], "input": ""}}
        elif kind == "contentBlockDelta":
            add(blocks.setdefault(at, {}), data["delta"])
        elif kind == "messageStop":
            whole["stopReason"] = data["stopReason"]
        elif kind == "metadata":
            whole |= data
    for block in blocks.values():
        if use := block.get("toolUse"):
            use["input"] = json.loads(use["input"])
        thought = block.get("reasoningContent", {})
        if thought and "redactedContent" not in thought:
            block["reasoningContent"] = {"reasoningText": thought}
    content = [blocks[at] for at in sorted(blocks)]
    return {"output": {"message": {"role": "assistant", "content": content}}, **whole}


def add(whole: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add a piece to a block: texts grow."""
    for key, piece in delta.items():
        if isinstance(piece, Mapping):
            add(whole.setdefault(key, {}), piece)
        else:
            whole[key] = whole[key] + piece if key in whole else piece
