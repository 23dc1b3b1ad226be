"""What OpenAI-compatible servers add to an answer and want back with its tool calls.

| field | of | who wants it back |
| --- | --- | --- |
| `reasoning_content` | message | DeepSeek and Kimi, which refuse the next turn without it |
| `reasoning` | message | vLLM, for models that think between calls |
| `reasoning_details` | message | OpenRouter |
| `thinking_blocks` | message | LiteLLM, for Claude |
| `extra_content` | message, call | Gemini's OpenAI-compatible door, which refuses, too |
| `provider_specific_fields` | call | LiteLLM, for Gemini |

They are kept with the calls only (`providers.opaque`): without calls nobody needs them. Those of
the message are with its first call.

https://api-docs.deepseek.com/guides/thinking_mode,
https://openrouter.ai/docs/use-cases/reasoning-tokens,
https://ai.google.dev/gemini-api/docs/thought-signatures and
https://docs.litellm.ai/docs/reasoning_content
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from model_workers.providers.opaque import seal, unseal
from modelyard.messages import Message, ToolCall

OF_MESSAGE: Final = (
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "thinking_blocks",
    "extra_content",
)
OF_CALL: Final = ("extra_content", "provider_specific_fields")

_GROWS: Final = frozenset({"text", "summary", "thinking", "signature"})
"""Fields of one reasoning detail or thinking block that come in pieces."""


def keep_fields(
    read: Sequence[ToolCall], calls: Sequence[Any], message: Mapping[str, Any], by: str
) -> tuple[ToolCall, ...]:
    """Return the calls `read` from `calls` of `message`, with what `by` wants back of it."""
    kept: list[ToolCall] = []
    for number, (call, raw) in enumerate(zip(read, calls, strict=True)):
        words = {"call": {key: raw[key] for key in OF_CALL if raw.get(key)}}
        if number == 0:
            words["message"] = {
                key: message[key]
                for key in OF_MESSAGE
                # DeepSeek wants it back though it is empty.
                if message.get(key) or (key == "reasoning_content" and message.get(key) == "")
            }
        opaque = seal(by, words)
        kept.append(call.model_copy(update={"opaque": opaque}) if opaque else call)
    return tuple(kept)


def give_back(turn: dict[str, Any], message: Message, by: str) -> dict[str, Any]:
    """Return `turn`, which is how `message` is sent, with what `by` said in it, and no other."""
    if all(call.opaque is None for call in message.tool_calls):
        return turn
    calls = [
        {**_of(call, "call", OF_CALL, by), **ToolCall.encode(_bare(call))}
        for call in message.tool_calls
    ]
    of_message = _of(message.tool_calls[0], "message", OF_MESSAGE, by)
    return {**of_message, **turn, "tool_calls": calls}


def _bare(call: ToolCall) -> ToolCall:
    return call.model_copy(update={"opaque": None})


def _of(call: ToolCall, what: str, keys: Sequence[str], by: str) -> dict[str, Any]:
    words = unseal(by, call).get(what)
    return {key: words[key] for key in keys if key in words} if isinstance(words, dict) else {}


def add_piece(whole: dict[str, Any], piece: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Add what a streamed `piece` has under `keys`: texts grow, lists and objects, too."""
    for key in keys:
        value, had = piece.get(key), whole.get(key)
        if isinstance(value, str):
            whole[key] = (had if isinstance(had, str) else "") + value
        elif isinstance(value, list):
            listed = had if isinstance(had, list) else []
            for each in value:
                _add_detail(listed, each)
            whole[key] = listed
        elif isinstance(value, dict):
            whole[key] = {**(had if isinstance(had, dict) else {}), **value}


def _add_detail(listed: list[Any], piece: Any) -> None:
    last = listed[-1] if listed else None
    if not isinstance(piece, dict):
        return
    same = isinstance(last, dict) and all(last.get(key) == piece.get(key) for key in _IDENTITY)
    grows = any(isinstance(piece.get(key), str) for key in _GROWS)
    # What is signed is at its end: what comes next is another one.
    if not isinstance(last, dict) or not same or not grows or last.get("signature"):
        listed.append(dict(piece))
        return
    for key, value in piece.items():
        if key in _GROWS and isinstance(value, str):
            had = last.get(key)
            last[key] = (had if isinstance(had, str) else "") + value
        elif value is not None:
            last[key] = value


_IDENTITY: Final = ("type", "index")
