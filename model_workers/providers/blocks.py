"""Turns written as content blocks, the form that Anthropic and Bedrock share.

Both want the same blocks in the same order, each under other names: `Words` has the names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_workers.providers.opaque import unseal
from model_workers.providers.turns import (
    Bytes,
    Turn,
    image,
    said,
    tool_id,
    tool_input,
    tool_name,
)
from modelyard.messages import Message, ToolCall

Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Words:
    """How a provider writes each kind of block.

    `image` gets bytes or an https address, `result` the id of a call and what came of it, `use` the
    id, name and input of a call, `thoughts` what was kept of the thinking before it
    (`providers.opaque`).
    """

    provider: str
    text: Callable[[str], Block]
    image: Callable[[Bytes | str], Block]
    result: Callable[[str, list[Block]], Block]
    use: Callable[[str, str, Block], Block]
    thoughts: Callable[[Mapping[str, Any]], list[Block]]


def write_turns(words: Words, found: Sequence[Turn], by: str) -> list[Block]:
    """Return the messages that say these turns; `by` is the author whose thoughts are among them.

    Raises `Unsupported`.
    """
    messages: list[Block] = [
        {
            "role": turn.role,
            "content": [block for each in turn.messages for block in _blocks(words, each, by)],
        }
        for turn in found
    ]
    last = messages[-1]
    if last["role"] == "assistant" and "text" in last["content"][-1]:
        # An assistant's last turn is continued, and one that ends with a blank is refused.
        last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
    return messages


def _blocks(words: Words, message: Message, by: str) -> list[Block]:
    content = _parts(words, message) if message.images else list(map(words.text, said(message)))
    if message.tool_call_id is not None:
        return [words.result(tool_id(message.tool_call_id), content)]
    # The thoughts before the first call came before the text, too: a turn has to begin with them.
    first = _thoughts(words, message.tool_calls[0], by) if message.tool_calls else []
    calls: list[Block] = []
    for number, call in enumerate(message.tool_calls):
        calls += _thoughts(words, call, by) if number else []
        name = tool_name(words.provider, call.function.name)
        calls.append(words.use(tool_id(call.id), name, tool_input(words.provider, call.function)))
    return [*first, *content, *calls]


def _parts(words: Words, message: Message) -> list[Block]:
    """Return texts and images in their order."""
    parts: list[Block] = []
    for part in message.content:
        if isinstance(part, str) or part.type == "text":
            text = part if isinstance(part, str) else part.text
            if text.strip():
                parts.append(words.text(text))
            continue
        parts.append(words.image(image(words.provider, part.image_url)))
    return parts


def _thoughts(words: Words, call: ToolCall, by: str) -> list[Block]:
    return words.thoughts(unseal(by, call))


def is_thoughtless(words: Words, found: Sequence[Turn], by: str) -> bool:
    """Whether calls are under way that Claude did not think about, as far as is known.

    Calls, their results and what follows are one turn to Claude, from the user's last words on. If
    it is to think in that, it wants its thoughts at the beginning of it:
    https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    """
    begin = 0
    for at, turn in enumerate(found):
        if turn.role == "user" and any(each.role != "tool" for each in turn.messages):
            begin = at
    for turn in found[begin:]:
        if calls := [call for each in turn.messages for call in each.tool_calls]:
            return not _thoughts(words, calls[0], by)
    return False
