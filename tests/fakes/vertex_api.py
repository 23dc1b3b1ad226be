"""A small Gemini on loopback: `generateContent`, as strict about a call as the real one.

What Google's JSON parser refuses is refused here: unknown fields, values of another type, parts
with two kinds of data, calls without their responses.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from fakes.server import Asked, Canned, FakeServer

RIGHTS = ("authorization", "x-goog-api-key")
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
        # 3.0 is a whole number to Google's parser, too.
        known = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not known or not low <= value <= high:
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


OWN = base64.b64encode(b"sig of a thought").decode()
"""A signature that this Gemini gives, and knows again."""
IMAGES = [f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "heic", "heif")]
DATA = ("text", "inlineData", "fileData", "functionCall", "functionResponse")

_part = message(
    text=said,
    inlineData=message(("mimeType", "data"), mimeType=one_of(*IMAGES), data=base64_data),
    fileData=message(("mimeType", "fileUri"), mimeType=said, fileUri=said),
    functionCall=message(("name",), name=function_name, args=struct, id=text),
    functionResponse=message(("name", "response"), name=function_name, response=struct, id=text),
    thoughtSignature=base64_data,
)


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
        mediaResolution=one_of(
            "MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_HIGH"
        ),
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
            enterpriseWebSearch=struct,
            googleMaps=struct,
            googleSearch=message(),
            retrieval=struct,
            urlContext=message(),
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
    cachedContent=said,
    modelArmorConfig=message(promptTemplateName=said, responseTemplateName=said),
)


_OPEN = ("args", "response", "parametersJsonSchema", "responseJsonSchema", "labels")


def in_camel_case(value: Any) -> Any:
    """Return a body with its fields named in camel case.

    Google takes each field by its name in the protocol buffer, too (`mime_type`), and its own
    client writes some so: https://protobuf.dev/programming-guides/json/
    """
    if isinstance(value, list):
        return [in_camel_case(each) for each in value]
    if not isinstance(value, dict):
        return value
    named = {
        re.sub(r"_([a-z])", lambda found: found[1].upper(), name): each
        for name, each in value.items()
    }
    return {name: each if name in _OPEN else in_camel_case(each) for name, each in named.items()}


def check_call(body: Any, model: str = "gemini-2.5-flash") -> None:
    """Raise `Refused` for what Gemini would not take as the body of a call."""
    body = in_camel_case(body)
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
        for each in content["parts"]:
            signature = base64.b64decode(each.get("thoughtSignature", OWN))
            if not signature.startswith((b"sig", b"skip_thought_signature_validator")):
                raise Refused("Corrupted thought signature.")
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


def streamed(*pieces: Mapping[str, Any]) -> Canned:
    """Return the events in which an answer comes."""
    events = "".join(f"data: {json.dumps(piece)}\r\n\r\n" for piece in pieces)
    return Canned(body=events.encode(), headers={"content-type": "text/event-stream"})


class VertexApi(FakeServer):
    """The server; `rights` are the values of `Authorization` or `x-goog-api-key` it lets in."""

    def __init__(self, *rights: str) -> None:
        super().__init__()
        self._rights = rights

    def refusal(self, asked: Asked) -> Canned | None:
        if not {asked.headers.get(name) for name in RIGHTS} & set(self._rights):
            words = "Request had invalid authentication credentials."
            return Canned(401, error(401, "UNAUTHENTICATED", words))
        resource, _, method = asked.path.rpartition(":")
        if method not in ("generateContent", "streamGenerateContent?alt=sse"):
            return Canned(404, error(404, "NOT_FOUND", "no such method"))
        try:
            check_call(asked.body, resource.rpartition("/")[2])
        except Refused as refused:
            return Canned(400, error(400, "INVALID_ARGUMENT", str(refused)))
        return None

    def default(self, asked: Asked) -> Canned:
        last = asked.body["contents"][-1]["parts"][-1]
        said = answer(f"you said: {last.get('text', 'nothing')}")
        return streamed(said) if "stream" in asked.path else Canned(body=said)
