"""A streamed answer of Bedrock's, put together to the one that Converse would have given.

Format: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from model_workers.providers.aws_frames import BadFrame, Frame, read_frames
from model_workers.providers.base import Failure
from model_workers.providers.complaint import load
from modelyard.errors import FailureKind

_STATUS: Final[Mapping[str, int]] = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelStreamErrorException": 424,
    "ModelErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}
"""The status that an exception would have had outside of an answer that had begun already."""


@dataclass(frozen=True, slots=True)
class Thrown:
    """An exception that came instead of the rest. `kind` is its name as in a whole answer."""

    kind: str
    message: str

    @property
    def status(self) -> int:
        """The status of a whole answer with it."""
        return _STATUS.get(self.kind, 500)


def join_frames(body: bytes, status: int) -> dict[str, Any] | Thrown | Failure:
    """Return the answer whose pieces are the frames of `body`, in the shape of Converse's.

    A failure is what can't be read, and a stream that ends before the message does.
    """
    whole = _Whole()
    try:
        for frame in read_frames(body):
            kind = frame.headers.get(":message-type", "event")
            if kind != "event":
                return _thrown(frame, kind)
            data = load(frame.payload)
            if not isinstance(data, dict):
                begin = frame.payload[:80].decode("utf-8", "replace")
                problem = f"the answer has an event that is not JSON: {begin!r}"
                return Failure(FailureKind.RETRYABLE, problem, status)
            whole.add(frame.headers.get(":event-type", ""), data)
    except BadFrame as error:
        means = FailureKind.PERMANENT if error.is_too_large else FailureKind.RETRYABLE
        return Failure(means, str(error), status)
    if whole.stopped is None:
        problem = "half an answer: the stream ended without a messageStop"
        return Failure(FailureKind.RETRYABLE, problem, status)
    return whole.encode()


def _thrown(frame: Frame, kind: str) -> Thrown:
    """Return what an exception says; an error, which no model of the service has, by its code."""
    if kind == "error":
        code = frame.headers.get(":error-code", "")
        return Thrown(code[:1].upper() + code[1:], frame.headers.get(":error-message", ""))
    name = frame.headers.get(":exception-type", "")
    data = load(frame.payload)
    said = data if isinstance(data, dict) else {}
    words = [said.get(key) for key in ("message", "Message", "originalMessage")]
    message = ": ".join(word for word in words if isinstance(word, str) and word)
    return Thrown(name[:1].upper() + name[1:], message)


@dataclass(slots=True)
class _Block:
    """A content block that is still being written."""

    use: dict[str, Any] | None = None
    texts: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    redacted: bytes = b""
    torn: bool = False

    def add(self, delta: Mapping[str, Any]) -> None:
        use, thought = _object(delta.get("toolUse")), _object(delta.get("reasoningContent"))
        for pieces, piece in (
            (self.texts, delta.get("text")),
            (self.inputs, use.get("input")),
            (self.thoughts, thought.get("text")),
            (self.signatures, thought.get("signature")),
        ):
            if isinstance(piece, str):
                pieces.append(piece)
        if isinstance(hidden := thought.get("redactedContent"), str):
            try:
                self.redacted += base64.b64decode(hidden)
            except ValueError:  # binascii.Error is one, and text beyond ASCII another
                self.torn = True

    def encode(self) -> dict[str, Any]:
        if self.use is not None:
            return {"toolUse": {**self.use, "input": "".join(self.inputs)}}
        if self.redacted and not self.torn:  # Half a secret is of use to nobody.
            return {
                "reasoningContent": {"redactedContent": base64.b64encode(self.redacted).decode()}
            }
        if self.thoughts or self.signatures:
            thought = {"text": "".join(self.thoughts), "signature": "".join(self.signatures)}
            return {"reasoningContent": {"reasoningText": thought}}
        return {"text": "".join(self.texts)}


class _Whole:
    """What came until now."""

    def __init__(self) -> None:
        self.stopped: object = None
        self._blocks: dict[int, _Block] = {}
        self._about: dict[str, Any] = {}

    def add(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind in ("contentBlockStart", "contentBlockDelta"):
            at = data.get("contentBlockIndex")
            block = self._blocks.setdefault(at if isinstance(at, int) else 0, _Block())
            if use := _object(_object(data.get("start")).get("toolUse")):
                block.use = use
            block.add(_object(data.get("delta")))
        elif kind == "messageStop":
            self.stopped = data.get("stopReason") or "end_turn"
        elif kind == "metadata":
            self._about |= {key: data[key] for key in ("usage", "trace") if key in data}
        # Others (the beginning, the end of a block, what is new one day) change nothing.

    def encode(self) -> dict[str, Any]:
        content = [self._blocks[at].encode() for at in sorted(self._blocks)]
        message = {"role": "assistant", "content": content}
        return {"output": {"message": message}, "stopReason": self.stopped, **self._about}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
