"""Answers of ConverseStream: the same events, in the same frames, as Bedrock sends them.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

from fakes.server import Canned

CONTENT_TYPE = "application/vnd.amazon.eventstream"
PIECE_CHARS = 7


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one frame, with its checksums."""
    head = b"".join(
        bytes([len(name)])
        + name.encode()
        + b"\x07"
        + len(value).to_bytes(2, "big")
        + value.encode()
        for name, value in headers.items()
    )
    prelude = (len(head) + len(payload) + 16).to_bytes(4, "big") + len(head).to_bytes(4, "big")
    begin = prelude + crc32(prelude).to_bytes(4, "big") + head + payload
    return begin + crc32(begin).to_bytes(4, "big")


def event(kind: str, data: Mapping[str, Any]) -> bytes:
    """Return the frame of one event. `p` is the padding that hides how long the rest is."""
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return frame(headers, json.dumps({**data, "p": "abcdefghi"}, ensure_ascii=False).encode())


def exception(kind: str, message: str, **more: Any) -> bytes:
    """Return the frame of an exception, such as throttlingException."""
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return frame(headers, json.dumps({"message": message, **more}).encode())


def frames_of(whole: Mapping[str, Any]) -> list[bytes]:
    """Return the frames in which the answer `whole` of Converse comes."""
    frames = [event("messageStart", {"role": "assistant"})]
    for index, block in enumerate(whole["output"]["message"]["content"]):
        at = {"contentBlockIndex": index}
        if use := block.get("toolUse"):
            start = {key: value for key, value in use.items() if key != "input"}
            frames.append(event("contentBlockStart", {**at, "start": {"toolUse": start}}))
        frames += [event("contentBlockDelta", {**at, "delta": delta}) for delta in _deltas(block)]
        frames.append(event("contentBlockStop", at))
    frames.append(event("messageStop", {"stopReason": whole["stopReason"]}))
    about = {key: whole[key] for key in ("usage", "metrics", "trace") if key in whole}
    return [*frames, event("metadata", about)]


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    thought = block.get("reasoningContent", {})
    shown = thought.get("reasoningText", {})
    for piece in _pieces(block.get("text", "")):
        yield {"text": piece}
    if use := block.get("toolUse"):
        yield {"toolUse": {"input": ""}}
        for piece in _pieces(json.dumps(use["input"], ensure_ascii=False)):
            yield {"toolUse": {"input": piece}}
    for piece in _pieces(shown.get("text", "")):
        yield {"reasoningContent": {"text": piece}}
    if "signature" in shown:
        yield {"reasoningContent": {"signature": shown["signature"]}}
    if "redactedContent" in thought:
        yield {"reasoningContent": {"redactedContent": thought["redactedContent"]}}


def _pieces(text: str) -> list[str]:
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]


def streamed(whole: Mapping[str, Any]) -> Canned:
    """Return the response that streams an answer."""
    return Canned(200, b"".join(frames_of(whole)), {"content-type": CONTENT_TYPE})
