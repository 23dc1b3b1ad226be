"""Bedrock's Converse API, as strict as it is, with its two ways to prove who calls.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

import hashlib
import hmac
import itertools
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from jsonschema import Draft202012Validator

from fakes.bedrock_stream import streamed
from fakes.server import Asked, Canned, FakeServer, closed

_TEXT: Final = {"type": "string", "pattern": r"\S"}
_NAME: Final = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_OBJECT: Final = {"type": "object"}
_BYTES: Final = {"type": "string", "pattern": "^[A-Za-z0-9+/]+={0,2}$"}
_IMAGE: Final = closed(
    "format source",
    format={"enum": ["png", "jpeg", "gif", "webp"]},
    source=closed("bytes", bytes=_BYTES),
)
_POINT: Final = closed("type", type={"const": "default"}, ttl={"enum": ["5m", "1h"]})


def _one_of(**members: Any) -> dict[str, Any]:
    """Return the schema of a union: an object with one of these members."""
    return {"anyOf": [closed(name, **{name: schema}) for name, schema in members.items()]}


_USE: Final = closed("toolUseId name input", toolUseId=_NAME, name=_NAME, input=_OBJECT)
_RESULT: Final = closed(
    "toolUseId content",
    toolUseId=_NAME,
    content={"type": "array", "items": _one_of(json=_OBJECT, text=_TEXT, image=_IMAGE)},
    status={"enum": ["success", "error"]},
)


_REASONING: Final = _one_of(
    reasoningText=closed(
        "text", text={"type": "string"}, signature={"type": "string", "pattern": "^EqQ"}
    ),
    redactedContent=_BYTES,
)


def _turn(role: str, **members: Any) -> dict[str, Any]:
    content = {"type": "array", "minItems": 1, "items": _one_of(**members)}
    return closed("role content", role={"const": role}, content=content)


_SPEC: Final = closed(
    "name inputSchema",
    name=_NAME,
    description={"type": "string", "minLength": 1},
    inputSchema=closed(
        "json",
        json={
            "type": "object",
            "properties": {"type": {"const": "object"}},
            "required": ["type"],
        },
    ),
    strict={"type": "boolean"},
)
_METADATA: Final = r"^[a-zA-Z0-9\s:_@$#=/+,.-]{%d,256}$"
_BODY: Final = closed(
    messages={
        "type": "array",
        "items": {
            "anyOf": [
                _turn("user", text=_TEXT, image=_IMAGE, toolResult=_RESULT, cachePoint=_POINT),
                _turn(
                    "assistant",
                    text=_TEXT,
                    toolUse=_USE,
                    cachePoint=_POINT,
                    reasoningContent=_REASONING,
                ),
            ]
        },
    },
    system={"type": "array", "items": _one_of(text=_TEXT, cachePoint=_POINT)},
    inferenceConfig=closed(
        maxTokens={"type": "integer", "minimum": 1},
        temperature={"type": "number", "minimum": 0, "maximum": 1},
        topP={"type": "number", "minimum": 0, "maximum": 1},
        stopSequences={"type": "array", "maxItems": 2500, "items": _TEXT},
    ),
    toolConfig=closed(
        "tools",
        tools={
            "type": "array",
            "minItems": 1,
            "items": _one_of(
                toolSpec=_SPEC, systemTool=closed("name", name=_NAME), cachePoint=_POINT
            ),
        },
        toolChoice=_one_of(auto=closed(), any=closed(), tool=closed("name", name=_NAME)),
    ),
    guardrailConfig=closed(
        guardrailIdentifier={"type": "string"},
        guardrailVersion={"type": "string", "pattern": r"^(|[1-9]\d{0,7}|DRAFT)$"},
        trace={"enum": ["enabled", "disabled", "enabled_full"]},
    ),
    additionalModelRequestFields=_OBJECT,
    promptVariables=_OBJECT,
    additionalModelResponseFieldPaths={
        "type": "array",
        "maxItems": 10,
        "items": {"type": "string", "minLength": 1, "maxLength": 256},
    },
    requestMetadata={
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "propertyNames": {"pattern": _METADATA % 1},
        "additionalProperties": {"type": "string", "pattern": _METADATA % 0},
    },
    performanceConfig=closed(latency={"enum": ["standard", "optimized"]}),
    serviceTier=closed("type", type={"enum": ["priority", "default", "flex", "reserved"]}),
    outputConfig=closed(
        effort={"type": "string", "maxLength": 16},
        textFormat=closed(
            "type structure",
            type={"const": "json_schema"},
            structure=closed(
                "jsonSchema",
                jsonSchema=closed(
                    "schema",
                    schema={"type": "string"},
                    name={"type": "string"},
                    description={"type": "string"},
                ),
            ),
        ),
    ),
)
_CHECK: Final = Draft202012Validator(_BODY)


def problem(body: Any) -> str | None:
    """Return what is wrong with the body of a call, or None."""
    for error in _CHECK.iter_errors(body):
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    messages = body.get("messages", [])
    roles = [message["role"] for message in messages]
    if not roles or roles[0] != "user":
        return "A conversation must start with a user message. Try again."
    if any(one == next for one, next in itertools.pairwise(roles)):
        return "A conversation must alternate between user and assistant roles."
    last = messages[-1]["content"][-1].get("text", "")
    if roles[-1] == "assistant" and last != last.rstrip():
        return "messages: final assistant content cannot end with trailing whitespace"
    return _problem_of_tools(body) or _problem_of_results(messages) or _problem_of_thoughts(body)


def _problem_of_thoughts(body: Mapping[str, Any]) -> str | None:
    """What Claude says of a turn that was begun without thoughts, or with them."""
    thinking = body.get("additionalModelRequestFields", {}).get("thinking", {})
    turn: list[str] = []
    for message in body["messages"]:
        names = [name for block in message["content"] for name in block]
        if message["role"] == "assistant":
            turn += names
        elif set(names) - {"toolResult"}:
            turn = []
    if thinking.get("type") == "enabled" and turn and turn[0] != "reasoningContent":
        return "The model returned the following errors: Expected `thinking`, found `tool_use`."
    if thinking.get("type") == "disabled" and "reasoningContent" in turn:
        return "The model returned the following errors: thinking is disabled"
    return None


def _problem_of_tools(body: Mapping[str, Any]) -> str | None:
    config = body.get("toolConfig")
    blocks = [block for message in body["messages"] for block in message["content"]]
    if config is None:
        used = any("toolUse" in block or "toolResult" in block for block in blocks)
        wrong = "The toolConfig field must be defined when using toolUse and toolResult blocks."
        return wrong if used else None
    names = [tool["toolSpec"]["name"] for tool in config["tools"] if "toolSpec" in tool]
    if len(set(names)) < len(names):
        return "The tool names are not unique."
    named = config.get("toolChoice", {}).get("tool")
    return None if named is None or named["name"] in names else "toolChoice names no tool"


def _problem_of_results(messages: list[Mapping[str, Any]]) -> str | None:
    known: set[str] = set()
    asked: list[str] = []
    for number, message in enumerate([*messages, {"content": []}]):
        blocks = message["content"]
        results = [each["toolResult"]["toolUseId"] for each in blocks if "toolResult" in each]
        if sorted(results) != sorted(asked):
            return f"Expected toolResult blocks at messages.{number}.content for the toolUse Ids"
        if any("toolResult" not in block for block in blocks[: len(results)]):
            return f"toolResult blocks must come first at messages.{number}.content"
        asked = [block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block]
        if known.intersection(asked) or len(set(asked)) < len(asked):
            return "The toolUse Ids are not unique"
        known.update(asked)
    return None


def answer(*content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the body of an answer."""
    return {
        "output": {"message": {"role": "assistant", "content": list(content)}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15},
        "metrics": {"latencyMs": 1175},
        **more,
    }


def failed(status: int, kind: str, message: str) -> Canned:
    """Return an error as Bedrock sends it."""
    return Canned(status, {"message": message}, {"x-amzn-errortype": f"{kind}:http://internal/"})


_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
    r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})"
)


def signature_problem(asked: Asked, key_id: str, secret: str, region: str) -> str | None:
    """Return what is wrong with the signature of a call, or None.

    Follows https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    found = _AUTHORIZATION.fullmatch(asked.headers.get("authorization", ""))
    if found is None:
        return "Missing Authentication Token"
    id, day, of_region, service, names, signature = found.groups()
    date = asked.headers.get("x-amz-date", "")
    if (id, of_region, service) != (key_id, region, "bedrock") or date[:8] != day:
        return "Credential should be scoped to a valid region and service"
    if not {"host", "x-amz-date"} <= set(names.split(";")):
        return "'Host' must be a signed header in the AWS Authorization."
    canonical = "\n".join(
        [
            "POST",
            "/".join(quote(part, safe="-_.~") for part in asked.path.split("/")),
            "",
            *(f"{name}:{' '.join(asked.headers[name].split())}" for name in names.split(";")),
            "",
            names,
            hashlib.sha256(asked.raw).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    said = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}".encode()
    if not hmac.compare_digest(hmac.digest(key, said, "sha256").hex(), signature):
        return (
            "The request signature we calculated does not match the signature you provided.\n\n"
            f"The Canonical String for this request should have been\n'{canonical}'"
        )
    return None


class BedrockApi(FakeServer):
    """The API for one bearer key, or one pair of AWS keys. Answers with the path it was asked."""

    def __init__(
        self,
        bearer: str | None = None,
        *,
        key_id: str = "",
        secret: str = "",
        region: str = "us-east-1",
    ) -> None:
        super().__init__()
        self._bearer = bearer
        self._signed_by = (key_id, secret, region)

    def refusal(self, asked: Asked) -> Canned | None:
        if not re.fullmatch(r"/model/[^/]+/converse(-stream)?", asked.path):
            return failed(404, "UnknownOperationException", "")
        if self._bearer is None:
            wrong = signature_problem(asked, *self._signed_by)
            if wrong:
                return failed(403, "InvalidSignatureException", wrong)
        elif asked.headers.get("authorization") != f"Bearer {self._bearer}":
            return failed(403, "AccessDeniedException", "Authentication failed")
        wrong = problem(asked.body)
        return failed(400, "ValidationException", wrong) if wrong else None

    def default(self, asked: Asked) -> Canned:
        whole = answer({"text": f"{asked.path} was asked"})
        return streamed(whole) if asked.path.endswith("-stream") else Canned(200, whole)
