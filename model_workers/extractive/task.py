"""Task: what a prompt asks for, and the document that it asks it of."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_HEAD_CHARS: Final = 300
"""An instruction is no longer than this; what is beyond is not searched for one."""

_POLITE: Final = (
    r"(?:(?:please|kindly|can you|could you|would you|will you|i want you to|i need you to"
    r"|i would like you to|i'd like you to|your task is to|hi|hello|now)\b[,!]?\s+){0,4}"
)
_COMMAND: Final = re.compile(
    _POLITE + r"(?:summari[sz]e|sum up|condense|shorten|abridge|recap"
    r"|(?:give|write|provide|create|make|produce|generate|prepare|draft)\s+(?:[\w',-]+\s+){0,6}?"
    r"(?:summary|summaries|overview|synopsis|digest|recap))\b",
    re.IGNORECASE,
)
# A command is taken for an instruction if it points at a text or says a length. "Summarize your
# findings each evening" is a document's own sentence.
_POINTER: Final = re.compile(
    r"\b(?:this|these|following|above|below|it|text|document|doc|article|transcript|meeting"
    r"|conversation|discussion|dialogue|chat|call|paper|abstract|e-?mails?|message|thread|passage"
    r"|report|page|story|book|chapter|section|notes|content|paragraphs?|input|review|speech|news"
    r"|post)\b",
    re.IGNORECASE,
)
_TLDR: Final = re.compile(
    _POLITE + r"tl;?dr\b(?:,?\s+please|\s+(?:of|for)\s.*|\s+in\s.*)?$", re.IGNORECASE
)
_END: Final = re.compile(r"[:：](?=\s|[^\W\d]|$)|[.!?](?=\s|$)|\n")
_LABEL: Final = re.compile(
    r"(?:the\s+)?(?:document|text|article|(?:meeting\s+)?transcript|conversation|paper|input"
    r"|e-?mail|content|report)\s*[:：]\s*",
    re.IGNORECASE,
)
_FOLLOW_UP: Final = re.compile(
    r"(?:please|be|keep|use|do not|don't|focus|include|write|limit|make|avoid|highlight|only"
    r"|answer|respond|return|your (?:summary|answer))\b",
    re.IGNORECASE,
)
_FENCE: Final = re.compile(r"(?:\"{3}|'{3}|`{3}|<\/?(?:document|text|article|transcript)>)\s*")

_NUMBERS: Final = dict(
    zip("one two three four five six seven eight nine ten".split(), range(1, 11), strict=True)
) | {"a": 1, "single": 1}
_SENTENCES: Final = re.compile(
    r"\b(\d{1,3}|" + "|".join(_NUMBERS) + r")[ -]"
    r"(?:(?:short|concise|brief|clear|simple|key|main|complete|full)[ -])?"
    r"(?:sentences?|bullets?|bullet points?|points|lines)\b",
    re.IGNORECASE,
)
_WORDS: Final = re.compile(r"\b(\d{1,5})[ -]words?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Task:
    """A document, and the length that the prompt asks for: `None` where it names none."""

    document: str
    sentences: int | None = None
    words: int | None = None


def read_task(messages: Iterable[str]) -> Task:
    """Separate instructions to summarize from the text, over all messages of the user.

    An instruction stands at the start or on the last line of a message. What does not clearly
    read as one is left in the document.
    """
    instructions: list[str] = []
    documents: list[str] = []
    for message in messages:
        first, text = _split_first(message.strip())
        last, text = _split_last(text)
        instructions += filter(None, (first, last))
        if text := _unwrap(text) if first else text:
            documents.append(text)
    asked = "\n".join(instructions)
    return Task("\n\n".join(documents), _asked_sentences(asked), _asked_words(asked))


def _is_instruction(text: str) -> bool:
    text = text.strip(" :：.!?*#\n")
    if _TLDR.fullmatch(text):
        return True
    command = _COMMAND.match(text)
    if command is None:
        return False
    rest = text[command.end() :].strip(" ,")
    bare = not rest or rest.lower() in {"please", "for me", "briefly"}
    return bare or any(sign.search(rest) for sign in (_POINTER, _SENTENCES, _WORDS))


def _split_first(message: str) -> tuple[str, str]:
    """Return the instruction that `message` begins with, if any, and the rest."""
    end = _END.search(message, 0, _HEAD_CHARS)
    if end is None:
        whole = len(message) < _HEAD_CHARS and _is_instruction(message)
        return (message, "") if whole else ("", message)
    head, rest = message[: end.end()], message[end.end() :]
    if not _is_instruction(head):
        return "", message
    if end.group() != "\n":
        line, newline, below = rest.partition("\n")
        if newline and _only_follow_ups(line):
            return f"{head}{line}", below.strip()
    return head, rest.strip()


def _only_follow_ups(line: str) -> bool:
    """Whether the rest of an instruction's line is instructions too ("Be brief.")."""
    parts = [part.strip() for part in re.split(r"[.!?:]\s", line[:_HEAD_CHARS] + " ")]
    return len(line) <= _HEAD_CHARS and all(_FOLLOW_UP.match(part) for part in parts if part)


def _split_last(message: str) -> tuple[str, str]:
    """Return the instruction that `message` ends with, if any, and the rest."""
    above, newline, line = message.rpartition("\n")
    if newline and len(line) <= _HEAD_CHARS and _is_instruction(line):
        return line, above.rstrip()
    return "", message


def _unwrap(text: str) -> str:
    """Remove a label (`Text:`) and the fences around a document that follows an instruction."""
    for pattern in (_LABEL, _FENCE):
        if found := pattern.match(text):
            text = text[found.end() :]
    for fence in ('"""', "'''", "```", "</document>", "</text>", "</article>", "</transcript>"):
        text = text.removesuffix(fence)
    return text.strip()


def _asked_sentences(instruction: str) -> int | None:
    found = _SENTENCES.search(instruction)
    if found is None:
        return None
    number = found.group(1).lower()
    return _NUMBERS.get(number) or int(number) or None


def _asked_words(instruction: str) -> int | None:
    found = _WORDS.search(instruction)
    return int(found.group(1)) or None if found else None
