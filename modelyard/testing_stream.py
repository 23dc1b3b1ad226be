"""A chat completion in pieces, as the fake provider streams it: all pure.

Format: https://platform.openai.com/docs/api-reference/chat-streaming
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_PIECE_CHARS: Final = 8


def encode_chunks(
    whole: Mapping[str, Any], *, include_usage: bool, about_prompt: bool = False
) -> list[bytes]:
    """Return the events of a stream that says what the completion `whole` says.

    Text comes a few characters at a time, arguments of tool calls too. `about_prompt`: begin with
    what Azure found out about the prompt, in a chunk without a model and choices.
    """
    head = {"id": whole["id"], "object": "chat.completion.chunk", "created": whole["created"]}
    head["model"] = whole["model"]
    usage: dict[str, Any] = {"usage": None} if include_usage else {}
    chunks = []
    if about_prompt:
        found = [{"prompt_index": 0, "content_filter_results": {}}]
        blank = {"id": "", "object": "", "created": 0, "model": ""}
        chunks.append({**blank, "choices": [], "prompt_filter_results": found})
    choice = whole["choices"][0]
    for delta in _deltas(choice["message"]):
        part = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        chunks.append({**head, "choices": [part], **usage})
    end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
    chunks.append({**head, "choices": [end], **usage})
    if include_usage:
        chunks.append({**head, "choices": [], "usage": whole["usage"]})
    return [*map(_event, chunks), b"data: [DONE]\n\n"]


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "", "refusal": None}
    for key in ("content", "refusal"):
        for piece in _pieces(message.get(key) or ""):
            yield {key: piece}
    for index, call in enumerate(message.get("tool_calls", ())):
        name = call["function"]["name"]
        begin = {"index": index, "id": call["id"], "type": "function"}
        yield {"tool_calls": [{**begin, "function": {"name": name, "arguments": ""}}]}
        for piece in _pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _pieces(text: str) -> list[str]:
    return [text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS)]


def _event(chunk: Mapping[str, Any]) -> bytes:
    data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + data.encode("utf-8", "surrogatepass") + b"\n\n"
