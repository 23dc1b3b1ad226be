"""Map and reduce: a request that is too long for a model, in pieces that it takes.

The longest text of the request is cut. Each piece is asked about by itself, with all the rest of
the request (map), and then the request is asked once more with the pieces' answers in the place of
the text (reduce). Pure: what is asked follows from the request and from what the router planned.

A request that says what it wants in the text itself, before or after a document, keeps that: the
first and the last paragraph of the last message go along with every piece if they are short.

Images go with the last question only: a copy with each piece would be paid for each time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelyard.chunks import FILL, split
from modelyard.messages import Content, Message, Request, TextPart
from modelyard.plan import Pieces
from modelyard.tokens import estimate_tokens

MOST_PIECES: Final = 256
LEAST_TOKENS: Final = 64
"""A piece, or the answer to one, that has to be shorter is of no use."""

MOST_ANSWER_TOKENS: Final = 2_000
ANSWER_SHARE: Final = 8
"""The answer to a piece may be this fraction of the window, as long as all answers fit."""

MOST_ASKED_TOKENS: Final = 16_000_000
"""What all pieces are asked together: it goes to Redis at once, at some four bytes for a token."""

MOST_ALONG_BYTES: Final = 64 * 1024 * 1024
"""What goes with all pieces, as JSON: parameters, which no token counts, and escaped characters."""

SAFETY: Final = 0.9
"""Pieces are made to the edge of a window, and tokens are estimated: this much of it is used."""

ALONG_TOKENS: Final = 200
"""A longer paragraph at the begin or the end is no instruction."""

WORDS_PER_TOKEN: Final = 0.6

FOR_THE_END: Final = frozenset(
    "response_format structured_outputs stop n logprobs top_logprobs prediction stream "
    "stream_options max_tokens max_completion_tokens stop_sequences".split()
)
"""Parameters that are about the form of the final answer: a piece is asked without them."""

INSIDE_FOR_THE_END: Final[Mapping[str, frozenset[str]]] = {
    "inferenceConfig": frozenset({"maxTokens", "stopSequences"}),
    "generationConfig": frozenset(
        "maxOutputTokens stopSequences candidateCount responseMimeType responseSchema "
        "responseJsonSchema responseLogprobs logprobs".split()
    ),
    "output_config": frozenset({"format"}),
    "outputConfig": frozenset({"textFormat"}),
}
"""The same inside of parameters under the names of Bedrock, Gemini and Anthropic."""

THINKING: Final = "thinking"
ADDITIONAL: Final = "additionalModelRequestFields"
"""Where Bedrock has Claude's `thinking`."""

TOOLS: Final = frozenset({"tools", "tool_choice", "functions", "function_call"})


class TooLong(ValueError):
    """The request can't be asked in pieces. The message says why, and the largest that could."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a request is cut: `body`, from a message, or of part number `part` of it.

    `head` and `tail` are what is said before and after it, '' for nothing.
    """

    message: int
    part: int | None
    head: str
    body: str
    tail: str


def planned(
    request: Request, *, context_tokens: int, reserve_tokens: int, most_answer_tokens: int
) -> Pieces:
    """Return in which pieces a model can take a request.

    `reserve_tokens` of its window are kept for the final answer; no answer to a piece is longer
    than `most_answer_tokens`. Raises `TooLong`.
    """
    if uses_tools(request):
        raise TooLong("requests with tools are not cut: each part would call them by itself")
    if not request.text.strip():
        raise TooLong("it has no text to cut")
    window = round(SAFETY * context_tokens)
    cut = cut_of(request)
    of = MOST_PIECES
    fixed = estimate_tokens(piece_request(request, cut, "x", of, of, window).text)
    frame = estimate_tokens(final_text(request, cut, []))
    room, label = window - reserve_tokens - frame, label_tokens(of)
    most = min(of, max(0, room) // (LEAST_TOKENS + label))
    if window - fixed < 2 * LEAST_TOKENS or most_answer_tokens < LEAST_TOKENS or not most:
        raise TooLong(
            f"a window of {context_tokens:,} tokens has no room for parts of it beside the "
            f"{fixed:,} that go with each and the {reserve_tokens:,} for the answer"
        )
    largest = int(most * FILL * (window - fixed - LEAST_TOKENS))
    tokens = estimate_tokens(cut.body)
    answer = max(LEAST_TOKENS, min(most_answer_tokens, MOST_ANSWER_TOKENS, window // ANSWER_SHARE))
    while True:
        size = window - fixed - answer
        count, is_counted = max(1, math.ceil(tokens / max(1.0, size * FILL))), False
        if size >= LEAST_TOKENS and fitting(room, count, label) >= answer:
            # What was a guess so far.
            count, is_counted = max(1, len(split(cut.body, size))), True
        share = fitting(room, count, label)
        if size >= LEAST_TOKENS and is_counted and share >= answer and count <= MOST_PIECES:
            break
        if answer == LEAST_TOKENS:
            raise TooLong(
                f"it takes {count:,} parts, and the answers to {most:,} are the most that can be "
                f"put together: about {largest:,} tokens"
            )
        answer = max(LEAST_TOKENS, min(share, answer - 1 - answer // 8))
    if count * (fixed + size) > MOST_ASKED_TOKENS:
        raise TooLong(
            f"its parts are more than {MOST_ASKED_TOKENS:,} tokens with what goes with each"
        )
    along = len(piece_request(request, cut, "", of, of, answer).model_dump_json().encode())
    if count * along > MOST_ALONG_BYTES:
        raise TooLong(
            f"what goes with each of its {count:,} parts, parameters among it, has {along:,} "
            f"bytes: that is more than {MOST_ALONG_BYTES:,} in all"
        )
    return Pieces(
        count=count,
        piece_tokens=size,
        asked_tokens=fixed + size,
        answer_tokens=answer,
        final_tokens=frame + count * (label + answer),
    )


def fitting(room: int, count: int, label: int) -> int:
    """Return how long each of `count` answers may be, in tokens, so that all fit the room."""
    return room // count - label


def holds(
    pieces: Pieces, *, context_tokens: int, reserve_tokens: int, most_answer_tokens: int
) -> bool:
    """Return whether another model can take these pieces, and what they are put together to."""
    window = round(SAFETY * context_tokens)
    return (
        pieces.asked_tokens + pieces.answer_tokens <= window
        and pieces.final_tokens + reserve_tokens <= window
        and pieces.answer_tokens <= most_answer_tokens
    )


def piece_requests(request: Request, pieces: Pieces) -> tuple[Request, ...]:
    """Return what is asked about each piece, in order."""
    cut = cut_of(request)
    texts = split(cut.body, pieces.piece_tokens) or ("",)
    return tuple(
        piece_request(request, cut, text, number, len(texts), pieces.answer_tokens)
        for number, text in enumerate(texts, 1)
    )


def piece_request(
    request: Request, cut: Cut, text: str, number: int, of: int, answer_tokens: int
) -> Request:
    """Return what is asked about one piece."""
    told = (
        f"(The text is too long to be read at once: this is part {number} of {of}. Answer for "
        f"this part alone, in at most {int(WORDS_PER_TOKEN * answer_tokens)} words. The answers "
        "for all parts are put together afterwards.)"
    )
    asked = [cut.head, f"Part {number} of {of} of the text:", text, cut.tail, told]
    messages = replaced(request.messages, cut, paragraphs(asked))
    limit = "max_completion_tokens" if "max_completion_tokens" in request.params else "max_tokens"
    return request.model_copy(
        update={
            "messages": tuple(filter(None, map(without_images, messages))),
            "params": {**params_of_piece(request.params), limit: answer_tokens},
        }
    )


def params_of_piece(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a piece is asked with, but for the limit of its answer."""
    kept: dict[str, Any] = {}
    for name, value in params.items():
        if name in FOR_THE_END or name.startswith("guided_"):
            continue
        if name == THINKING and has_budget(value):
            continue
        if isinstance(value, dict):
            gone = INSIDE_FOR_THE_END.get(name, frozenset())
            if name == ADDITIONAL and has_budget(value.get(THINKING)):
                gone = frozenset({THINKING})
            left = {key: inner for key, inner in value.items() if key not in gone}
            if len(left) < len(value):
                if left:
                    kept[name] = left
                continue
        kept[name] = value
    return kept


def has_budget(thinking: object) -> bool:
    """Return whether Claude is to think for so many tokens, which must be fewer than its answer
    may have: it refuses others, and an answer to a piece is short.
    """
    return isinstance(thinking, dict) and "budget_tokens" in thinking


def final_request(request: Request, pieces: Pieces, answers: Sequence[str]) -> Request:
    """Return the request with the pieces' answers in place of the text.

    It is never longer than was planned, in estimated tokens: where providers do not keep to
    `max_tokens`, answers are cut off.
    """
    cut = cut_of(request)
    text = final_text(request, cut, answers)
    if estimate_tokens(text) > pieces.final_tokens:
        answers = [clipped(answer.strip(), pieces.answer_tokens) for answer in answers]
    return request.model_copy(update={"messages": final_messages(request, cut, answers)})


def final_text(request: Request, cut: Cut, answers: Sequence[str]) -> str:
    """Return all that is said in the end."""
    return "\n".join(message.text for message in final_messages(request, cut, answers))


def final_messages(request: Request, cut: Cut, answers: Sequence[str]) -> tuple[Message, ...]:
    """Return the turns of the final request."""
    told = (
        "The text is too long to be read at once. It was read in parts, and these are the answers "
        "for each of them, in order."
    )
    wanted = "Give one answer for the whole text, from these, and do not speak of its parts."
    parts = [labelled(at, len(answers), answer) for at, answer in enumerate(answers, 1)]
    asked = [cut.head, told, *parts, cut.tail, wanted]
    return replaced(request.messages, cut, paragraphs(asked))


def labelled(number: int, of: int, answer: str) -> str:
    """Return one of the answers under its number."""
    return f"Part {number} of {of}:\n{answer.strip() or '(no answer)'}"


def label_tokens(of: int) -> int:
    """Return what is around one of so many answers, in tokens."""
    return estimate_tokens(f"\n\n{labelled(of, of, '')}")


def paragraphs(texts: Sequence[str]) -> str:
    """Return the texts as paragraphs, without those that are empty."""
    return "\n\n".join(text for text in texts if text)


def clipped(text: str, tokens: int) -> str:
    """Return the begin of a text, of so many tokens at most; a cut is marked."""
    if estimate_tokens(text) <= tokens:
        return text
    mark = " ..."
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if estimate_tokens(text[:middle] + mark) <= tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low] + mark


def uses_tools(request: Request) -> bool:
    """Return whether tools are called in a request, or could be."""
    if any(request.params.get(name) for name in TOOLS):
        return True
    return any(each.tool_calls or each.role == "tool" for each in request.messages)


def cut_of(request: Request) -> Cut:
    """Return what of a request is cut: its longest text."""
    texts = [
        (estimate_tokens(text), message, part, text)
        for message, each in enumerate(request.messages)
        for part, text in texts_of(each.content)
    ]
    # Of several that are as long, the last.
    _, message, part, text = max(texts, key=lambda found: (found[0], found[1], found[2] or 0))
    others = [text for _, at, number, text in texts if at == message and number != part]
    if message == last_user(request) and not any(map(str.strip, others)):
        head, body, tail = around(text)
        return Cut(message, part, head, body, tail)
    return Cut(message, part, "", text, "")


def texts_of(content: Content) -> list[tuple[int | None, str]]:
    """Return the texts of a message with their positions in it, None where it is but one."""
    if isinstance(content, str):
        return [(None, content)]
    return [(at, part.text) for at, part in enumerate(content) if isinstance(part, TextPart)]


def last_user(request: Request) -> int:
    """Return the position of the last message of role `user`, -1 if there is none."""
    return max((at for at, each in enumerate(request.messages) if each.role == "user"), default=-1)


def around(text: str) -> tuple[str, str, str]:
    """Return what is said before and after a document, and the document between.

    That is the first and the last paragraph, or line where there are no paragraphs, if short.
    """
    text = text.strip()
    for blank in ("\n\n", "\n"):
        if blank not in text:
            continue
        head, _, rest = text.partition(blank)
        if estimate_tokens(head) > ALONG_TOKENS or not rest.strip():
            head, rest = "", text
        body, _, tail = rest.rpartition(blank)
        if estimate_tokens(tail) > ALONG_TOKENS or not body.strip():
            body, tail = rest, ""
        return head.strip(), body.strip(), tail.strip()
    return "", text, ""


def replaced(messages: Sequence[Message], cut: Cut, text: str) -> tuple[Message, ...]:
    """Return the messages with this in place of what is cut."""
    changed = messages[cut.message]
    content: Content = text
    if cut.part is not None:
        assert not isinstance(changed.content, str)
        part = TextPart(type="text", text=text)
        content = tuple(part if at == cut.part else each for at, each in enumerate(changed.content))
    message = changed.model_copy(update={"content": content})
    return (*messages[: cut.message], message, *messages[cut.message + 1 :])


def without_images(message: Message) -> Message | None:
    """Return the message without images, or None if nothing is left of it."""
    if not message.images:
        return message
    left = tuple(part for part in message.content if isinstance(part, TextPart))
    return message.model_copy(update={"content": left}) if left else None
