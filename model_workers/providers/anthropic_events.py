"""A streamed message of Anthropic's, put together to the one that would have come in a piece.

Format: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Mapping
from typing import Any, Final

from model_workers.providers.base import Failure
from model_workers.providers.complaint import load
from model_workers.providers.events import read_events
from modelyard.errors import FailureKind

_PIECE: Final[Mapping[str, tuple[str, str]]] = {
    "text_delta": ("text", "text"),
    "input_json_delta": ("partial_json", "input"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
}
"""Where the pieces that are kept have their text, and to what of their block it is added."""


def join_events(body: bytes, status: int) -> dict[str, Any] | Failure:
    """Return the message whose pieces are the events of `body`, in the shape of a whole one.

    An error that was sent in the middle is returned as it is, `{"type": "error", ...}`. A failure
    is what can't be read, and a stream that ends before the message does.
    """
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    pieces: dict[int, dict[str, list[str]]] = {}
    for event in read_events(body):
        data = load(event.data)
        if not isinstance(data, dict):
            problem = f"the answer has an event that is not JSON: {event.data[:80]!r}"
            return Failure(FailureKind.RETRYABLE, problem, status)
        kind = data.get("type")
        if kind == "error":
            return data
        if kind == "message_start":
            message = dict(_object(data.get("message")))
        elif kind == "message_delta" and message is not None:
            message |= _object(data.get("delta"))
            # Its counts are cumulative, and it need not tell all of them again.
            told = {key: value for key, value in _object(data.get("usage")).items() if value}
            message["usage"] = {**_object(message.get("usage")), **told}
        elif kind == "content_block_start" and isinstance(index := data.get("index"), int):
            blocks[index] = dict(_object(data.get("content_block")))
        elif kind == "content_block_delta":
            delta = _object(data.get("delta"))
            where, field = _PIECE.get(str(delta.get("type")), ("", ""))
            piece = delta.get(where)
            if isinstance(index := data.get("index"), int) and isinstance(piece, str):
                pieces.setdefault(index, {}).setdefault(field, []).append(piece)
        elif kind == "message_stop" and message is not None:
            content = [_whole(blocks[at], pieces.get(at, {})) for at in sorted(blocks)]
            return {**message, "content": content}
        # Others (ping, the end of a block, what is new one day) change nothing.
    return Failure(
        FailureKind.RETRYABLE, "half an answer: the stream ended without a message_stop", status
    )


def _whole(block: dict[str, Any], added: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a block with what was added to it. The input of a tool is added as JSON text."""
    whole = dict(block)
    for field, pieces in added.items():
        begin = whole.get(field)
        told = (begin if isinstance(begin, str) else "") + "".join(pieces)
        if told or field != "input":
            whole[field] = told
    return whole


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
