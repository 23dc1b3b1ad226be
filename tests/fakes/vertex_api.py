"""A small Gemini on loopback: `generateContent`, as strict about a call as the real one.

What Google's JSON parser refuses is refused here: unknown fields, values of another type, parts
with two kinds of data, calls without their responses.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

Check = Callable[[Any, str], None]
INT32 = 2**31
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


class Refused(ValueError):
    """The call would be answered with 400 INVALID_ARGUMENT, and these words."""


def text(value: Any, at: str) -> None:
    if not isinstance(value, str):
        raise Refused(f"Invalid value at '{at}' (TYPE_STRING)")


def said(value: Any, at: str) -> None:
    text(value, at)
    if not value.strip():
        raise Refused(f"Unable to submit request because '{at}' is empty")


def flag(value: Any, at: str) -> None:
    if not isinstance(value, bool):
        raise Refused(f"Invalid value at '{at}' (TYPE_BOOL)")


def whole(low: int, high: int) -> Check:
    def check(value: Any, at: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Refused(f"Invalid value at '{at}' (TYPE_INT32)")

    return check


def number(low: float, high: float) -> Check:
    def check(value: Any, at: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused(f"Invalid value at '{at}' (TYPE_FLOAT)")
        if not low <= value <= high:
            raise Refused(f"'{at}' must be in the range [{low}, {high}]")

    return check


def one_of(*names: str) -> Check:
    def check(value: Any, at: str) -> None:
        if value not in names:
            raise Refused(f"Invalid value at '{at}' (TYPE_ENUM)")

    return check


def several(check: Check, *, least: int = 0, most: int = 1_000_000) -> Check:
    def check_all(value: Any, at: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise Refused(f"Invalid value at '{at}' (repeated, {least} to {most})")
        for index, each in enumerate(value):
            check(each, f"{at}[{index}]")

    return check_all


def struct(value: Any, at: str) -> None:
    if not isinstance(value, dict):
        raise Refused(f"Invalid value at '{at}' (Struct)")


def schema(value: Any, at: str) -> None:
    struct(value, at)
    if not isinstance(value.get("type", "object"), str | list):
        raise Refused(f"'{at}.type' is no JSON schema's")


def function_name(value: Any, at: str) -> None:
    text(value, at)
    if not NAME.fullmatch(value):
        raise Refused(f"'{at}' is no name of a function: {value}")


def base64_data(value: Any, at: str) -> None:
    text(value, at)
    try:
        if not base64.b64decode(value, validate=True):
            raise Refused(f"'{at}' is empty")
    except binascii.Error:
        raise Refused(f"Invalid value at '{at}' (TYPE_BYTES)") from None


def message(required: tuple[str, ...] = (), **fields: Check) -> Check:
    """Return the check of an object with these fields and no others."""

    def check(value: Any, at: str) -> None:
        struct(value, at)
        if unknown := sorted(value.keys() - fields):
            raise Refused(f"Unknown name \"{unknown[0]}\" at '{at}': Cannot find field.")
        if missing := [name for name in required if name not in value]:
            raise Refused(f"'{at}.{missing[0]}' is required")
        for name, inner in value.items():
            fields[name](inner, f"{at}.{name}" if at else name)

    return check


DATA = ("text", "inlineData", "fileData", "functionCall", "functionResponse")

_part = message(
    text=said,
    inlineData=message(
        ("mimeType", "data"), mimeType=one_of(*(f"image/{k}" for k in "png jpeg webp gif".split())),
        data=base64_data,
    ),
    fileData=message(("mimeType", "fileUri"), mimeType=said, fileUri=said),
    functionCall=message(("name",), name=function_name, args=struct, id=text),
    functionResponse=message(("name", "response"), name=function_name, response=struct, id=text),
    thoughtSignature=base64_data,
)  # fmt: skip


def part(value: Any, at: str) -> None:
    _part(value, at)
    if len(value.keys() & set(DATA)) != 1:
        raise Refused(f"'{at}' has to have one of {', '.join(DATA)}")


CONTENT = message(("parts", "role"), role=one_of("user", "model"), parts=several(part, least=1))
CALL = message(
    ("contents",),
    contents=several(CONTENT, least=1),
    systemInstruction=message(
        ("parts",), parts=several(message(("text",), text=said), least=1), role=text
    ),
    generationConfig=message(
        maxOutputTokens=whole(1, INT32 - 1),
        temperature=number(0, 2),
        topP=number(0, 1),
        topK=number(1, INT32 - 1),
        stopSequences=several(said, least=1, most=5),
        seed=whole(-INT32, INT32 - 1),
        candidateCount=whole(1, 8),
        frequencyPenalty=number(-2, 2),
        presencePenalty=number(-2, 2),
        responseLogprobs=flag,
        logprobs=whole(1, 20),
        responseMimeType=one_of("text/plain", "application/json"),
        responseJsonSchema=schema,
        mediaResolution=one_of("MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_HIGH"),
        thinkingConfig=message(
            thinkingLevel=one_of("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"),
            thinkingBudget=whole(-1, 32_768),
            includeThoughts=flag,
        ),
        modelConfig=message(
            ("featureSelectionPreference",),
            featureSelectionPreference=one_of("PRIORITIZE_QUALITY", "BALANCED", "PRIORITIZE_COST"),
        ),
    ),
    tools=several(
        message(
            functionDeclarations=several(
                message(
                    ("name",),
                    name=function_name,
                    description=text,
                    parametersJsonSchema=schema,
                ),
                least=1,
            ),
            googleSearch=message(),
        ),
        least=1,
    ),
    toolConfig=message(
        functionCallingConfig=message(
            ("mode",),
            mode=one_of("AUTO", "ANY", "NONE", "VALIDATED"),
            allowedFunctionNames=several(function_name, least=1),
        )
    ),
    safetySettings=several(message(("category", "threshold"), category=text, threshold=text)),
    labels=struct,
)


def check_call(body: Any, model: str = "gemini-2.5-flash") -> None:
    """Raise `Refused` for what Gemini would not take as the body of a call."""
    CALL(body, "")
    config = body.get("generationConfig", {})
    if "responseJsonSchema" in config and config.get("responseMimeType") != "application/json":
        raise Refused("responseJsonSchema needs responseMimeType application/json")
    if "logprobs" in config and not config.get("responseLogprobs"):
        raise Refused("logprobs needs responseLogprobs")
    if "modelConfig" in config and "optimizer" not in model:
        raise Refused("Model selection is of a model optimizer")
    declared = {
        each["name"]
        for tool in body.get("tools", ())
        for each in tool.get("functionDeclarations", ())
    }
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    if calling and not declared:
        raise Refused("Function calling config is set without function_declarations")
    if not set(calling.get("allowedFunctionNames", ())) <= declared:
        raise Refused("allowed_function_names has to be among the declared")
    _check_turns(body["contents"], signed=model.startswith("gemini-3"))


def _check_turns(contents: list[dict[str, Any]], *, signed: bool) -> None:
    asked: list[str] = []
    before = ""
    for content in contents:
        calls = [
            each["functionCall"]["name"] for each in content["parts"] if "functionCall" in each
        ]
        results = [
            each["functionResponse"]["name"]
            for each in content["parts"]
            if "functionResponse" in each
        ]
        if results != asked:
            raise Refused(
                "Please ensure that the number of function response parts is equal to the number "
                "of function call parts of the function call turn."
            )
        if results and len(results) != len(content["parts"]):
            raise Refused("A function response turn has function responses only")
        if calls and (content["role"] != "model" or before != "user"):
            raise Refused(
                "Please ensure that function call turn comes immediately after a user turn or "
                "after a function response turn."
            )
        if calls and signed:
            first = next(each for each in content["parts"] if "functionCall" in each)
            if "thoughtSignature" not in first:
                raise Refused("Function call is missing a thought_signature")
        asked, before = calls, content["role"]
    if asked:
        raise Refused("Please ensure that function calls are answered")


def error(code: int, status: str, words: str, *details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an error."""
    said: dict[str, Any] = {"code": code, "message": words, "status": status}
    return {"error": {**said, "details": list(details)} if details else said}


def answer(words: str, **changes: Any) -> dict[str, Any]:
    """Return an answer of one candidate."""
    candidate = {
        "content": {"role": "model", "parts": [{"text": words}]},
        "finishReason": "STOP",
        "index": 0,
    }
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash-001",
        "responseId": "r-1",
        **changes,
    }


@dataclass
class VertexApi:
    """The server, for `async with`. It answers with what was said, or with the next of `replies`.

    `keys` and `tokens` are what it lets in. A reply is a status and a body; a list is a stream.
    """

    keys: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    replies: list[tuple[int, Any]] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    address: str = ""
    _runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, call: web.BaseRequest) -> web.StreamResponse:
        path, _, method = call.path.rpartition(":")
        self.headers.append(call.headers)
        bearer = call.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer not in self.tokens and call.headers.get("x-goog-api-key") not in self.keys:
            words = "Request had invalid authentication credentials."
            return web.json_response(error(401, "UNAUTHENTICATED", words), status=401)
        streams = method == "streamGenerateContent"
        if call.method != "POST" or (not streams and method != "generateContent"):
            return web.json_response(error(404, "NOT_FOUND", "no such method"), status=404)
        if dict(call.query) != ({"alt": "sse"} if streams else {}):
            return web.json_response(error(400, "INVALID_ARGUMENT", "no such query"), status=400)
        body = await call.json()
        try:
            check_call(body, path.rpartition("/")[2])
        except Refused as refused:
            said = error(400, "INVALID_ARGUMENT", str(refused))
            return web.json_response(said, status=400)
        self.calls.append((call.path, body))
        last = body["contents"][-1]["parts"][-1]
        status, reply = 200, answer(f"you said: {last.get('text', 'nothing')}")
        if self.replies:
            status, reply = self.replies.pop(0)
        if status != 200 or not streams:
            return web.json_response(reply, status=status)
        events = reply if isinstance(reply, list) else [reply]
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(call)
        for event in events:
            await response.write(f"data: {web.json_response(event).text}\r\n\r\n".encode())
        return response
