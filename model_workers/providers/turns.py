"""A conversation as Anthropic and Bedrock take it: turns of two sides, in turn.

OpenAI's chat has as many messages in a row of one role as one likes, and results of tools are
messages of their own. Here a turn is all that one side says before the other does; a tool's result
is said by the user, first of all in the turn after the one that asked for it.
"""

import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from model_workers.providers.base import Unsupported
from model_workers.providers.complaint import load
from modelyard.messages import FunctionCall, ImageUrl, Message, TextPart

IMAGE_FORMATS: Final = ("png", "jpeg", "gif", "webp")
"""Kinds of images that are taken as bytes."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DATA_URL: Final = re.compile(r"data:image/([a-z0-9.+-]+);base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says before the other does, results of tools first."""

    role: Literal["user", "assistant"]
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Bytes:
    """An image in the request itself: `format` is one of `IMAGE_FORMATS`, `data` is base64."""

    format: str
    data: str


def system_texts(provider: str, messages: Sequence[Message]) -> list[str]:
    """Return what the system and developer turns say, wherever they stand."""
    texts: list[str] = []
    for message in messages:
        if message.role in ("system", "developer"):
            if message.images:
                raise Unsupported(
                    f"{provider} takes no image in a {message.role} turn: put it into a user turn"
                )
            _refuse_name(provider, message)
            texts += said(message)
    return texts


def turns(provider: str, messages: Sequence[Message]) -> list[Turn]:
    """Return all but the system turns, those of one side joined, those that say nothing left out.

    No two tool calls in them have the same id. Raises `Unsupported` for results that belong to no
    call, calls without a result, and if there is nothing at all.
    """
    found: list[Turn] = []
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        _refuse_name(provider, message)
        if message.images and message.role == "assistant":
            raise Unsupported(
                f"{provider} takes no image in an assistant turn: put it into a user turn"
            )
        if not (said(message) or message.images or message.tool_calls or message.role == "tool"):
            continue
        role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
        if found and found[-1].role == role:
            found[-1] = Turn(role, (*found[-1].messages, message))
        else:
            found.append(Turn(role, (message,)))
    if not found:
        raise Unsupported(f"{provider} needs a user turn: move one of the system turns to the user")
    _check_results(provider, found)
    found = _told_apart(found)
    # The sort is stable, so nothing else changes its place.
    return [
        Turn(turn.role, tuple(sorted(turn.messages, key=lambda each: each.role != "tool")))
        for turn in found
    ]


def _refuse_name(provider: str, message: Message) -> None:
    # The name on a tool's result is the tool's, and follows from its id.
    if message.name and message.role != "tool":
        raise Unsupported(
            f"{provider} takes no name on a {message.role} turn: put it into the turn's text"
        )


def _check_results(provider: str, found: Sequence[Turn]) -> None:
    asked: list[str] = []
    for turn in [*found, Turn("user", ())]:
        results = [each.tool_call_id for each in turn.messages if each.tool_call_id is not None]
        if sorted(results) != sorted(asked):
            lost = sorted(set(results) ^ set(asked)) or sorted(results)
            raise Unsupported(
                f"{provider} wants each tool call answered by one tool turn, right after the turn "
                f"that made it; that is not so for {lost[0]!r}"
            )
        asked = [call.id for each in turn.messages for call in each.tool_calls]
        if len(set(asked)) < len(asked):
            raise Unsupported(f"{provider} wants another id for each tool call")


def _told_apart(found: Sequence[Turn]) -> list[Turn]:
    """Return the turns with another id for each call.

    Some servers give no ids or count them anew in each answer; here no two may be the same.
    """
    known: set[str] = set()
    renamed: dict[str, str] = {}
    turns: list[Turn] = []
    for number, turn in enumerate(found):
        if turn.role == "assistant":
            ids = [call.id for each in turn.messages for call in each.tool_calls]
            renamed = {id: f"{id}/{number}" if id in known else id for id in ids}
            known.update(renamed.values())
        turns.append(Turn(turn.role, tuple(_renamed(each, renamed) for each in turn.messages)))
    return turns


def _renamed(message: Message, ids: Mapping[str, str]) -> Message:
    if message.tool_call_id is not None:
        return message.model_copy(update={"tool_call_id": ids[message.tool_call_id]})
    if not message.tool_calls:
        return message
    calls = tuple(call.model_copy(update={"id": ids[call.id]}) for call in message.tool_calls)
    return message.model_copy(update={"tool_calls": calls})


def said(message: Message) -> list[str]:
    """Return its texts, without those that are blank: these are refused."""
    if isinstance(message.content, str):
        texts = [message.content]
    else:
        texts = [part.text for part in message.content if isinstance(part, TextPart)]
    return [text for text in texts if text.strip()]


def tool_id(id: str) -> str:
    """Return an id that is allowed, and the same for the same id: others make longer ones."""
    if _ID.fullmatch(id):
        return id
    return "call_" + hashlib.sha256(id.encode()).hexdigest()[:32]


def tool_name(provider: str, name: str) -> str:
    """Return the name of a tool. Raises `Unsupported` if it can't be one there."""
    if not _NAME.fullmatch(name):
        raise Unsupported(
            f"{provider} takes tool names of 1 to 64 letters, digits, _ and -, and not {name!r}"
        )
    return name


def tool_input(provider: str, function: FunctionCall) -> dict[str, Any]:
    """Return the arguments of a call, read. Raises `Unsupported` if they are no object."""
    read = load(function.arguments) if function.arguments.strip() else {}
    if not isinstance(read, dict):
        raise Unsupported(
            f"{provider} takes arguments of a tool call that are a JSON object only; those of "
            f"{function.name!r} are none"
        )
    return read


def image(provider: str, url: ImageUrl) -> Bytes | str:
    """Return an image's bytes, or its https address."""
    if url.detail == "low":
        raise Unsupported(
            f"{provider} takes no image with detail 'low': leave detail out, and make it smaller"
        )
    if url.url.startswith("https://"):
        return url.url
    head = _DATA_URL.match(url.url)
    if head is None:
        raise Unsupported(
            f"{provider} takes images at an https:// address or as data:image/...;base64, only"
        )
    format = head[1].lower().replace("jpg", "jpeg")
    if format not in IMAGE_FORMATS:
        raise Unsupported(
            f"{provider} takes images of type {', '.join(IMAGE_FORMATS)}, and not {format!r}"
        )
    data = url.url[head.end() :]
    try:
        is_there = bool(binascii.a2b_base64(data, strict_mode=True))
    except ValueError:
        is_there = False
    if not is_there:
        raise Unsupported(f"{provider} can't take an image: its data is not base64")
    return Bytes(format, data)
