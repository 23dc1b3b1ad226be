"""Map and reduce: a document that is too long for one request, summarized in several.

Its pieces are summarized one by one (map), then their summaries together (reduce), in several
rounds if those are too long as well. Pure: what to ask next follows from what was answered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from modelyard.chunks import split
from modelyard.tokens import estimate_tokens
from producer.failure import Failure
from producer.window import Window, json_bytes

TITLE_CHARS: Final = 200
"""A longer title is cut: it goes along with every piece."""

LABEL_TOKENS: Final = 16
"""Room for `Part 123 of 456` and what is around it."""

LEAST_TOKENS: Final = 50
"""A window that leaves less for the text is too small to work with."""

TOO_LONG: Final = "too_long"
"""The reason of a document that no cutting makes short enough."""

OF_PARTS: Final = "Use the summaries of its parts below, which are in order."
"""Said after the instruction when the document is no more the original."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one request may be: for the models, and as JSON in one message."""

    window: Window
    text_bytes: int

    def takes(self, text: str) -> bool:
        """Return whether this text can be one request."""
        return json_bytes(text) <= self.text_bytes and self.window.takes(
            text, estimate_tokens(text)
        )

    @property
    def piece_tokens(self) -> int:
        """The longest text that is taken whatever is in it, but for characters that JSON escapes.

        A token is estimated as four bytes of UTF-8 at most.
        """
        return min(self.window.safe_tokens, self.text_bytes // 4)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to make: `part` names it within the document."""

    part: str
    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The document's summary."""

    text: str


@dataclass(frozen=True, slots=True)
class Round:
    """Requests that run side by side. `slots` are the texts of this round, None while open."""

    instruction: str
    title: str
    limits: Limits
    number: int
    slots: tuple[str | Failure | None, ...]
    last: bool


Next = tuple[Round, tuple[Ask, ...]] | Summary | Failure
"""A round with the requests to make, or the end."""


def begin(instruction: str, title: str | None, text: str, limits: Limits) -> Next:
    """Return what to ask first about a document."""
    title = " ".join((title or "").split())[:TITLE_CHARS]
    whole = prompt(instruction, title if not _is_said(title, text) else "", text)
    if limits.takes(whole):
        return Round(instruction, title, limits, 0, (None,), True), (Ask("whole", whole),)
    room = limits.piece_tokens - estimate_tokens(prompt(instruction, title, "")) - LABEL_TOKENS
    while room >= LEAST_TOKENS:
        pieces = split(text, room)
        count = len(pieces)
        asks = tuple(
            Ask(
                f"map/{index}",
                prompt(instruction, _labelled(title, f"part {index + 1} of {count}"), piece),
            )
            for index, piece in enumerate(pieces)
        )
        if all(limits.takes(ask.text) for ask in asks):
            return Round(instruction, title, limits, 0, (None,) * count, False), asks
        # Control characters take six bytes each as JSON: smaller pieces then.
        room //= 2
    return _too_small(limits)


def advance(current: Round, part: str, outcome: str | Failure) -> Next:
    """Return what follows when `part` of the current round has ended.

    The requests are none as long as others of the round are open.
    """
    index = 0 if part == "whole" else int(part.rpartition("/")[2])
    slots = tuple(outcome if at == index else slot for at, slot in enumerate(current.slots))
    current = replace(current, slots=slots)
    if any(slot is None for slot in slots):
        return current, ()
    for slot in slots:
        if isinstance(slot, Failure):
            return slot
    texts = tuple(slot for slot in slots if isinstance(slot, str))
    return Summary(texts[0]) if current.last else _reduce(current, texts)


def prompt(instruction: str, heading: str, text: str) -> str:
    """Return the text of a request: instruction, heading if there is one, and the document."""
    return "\n\n".join(part for part in (instruction, heading, text) if part)


def _reduce(current: Round, texts: tuple[str, ...]) -> Next:
    """Return the last round if all summaries fit one request, else one that makes them fewer."""
    instruction = f"{current.instruction} {OF_PARTS}"
    number = current.number + 1

    def joined(first: int, some: tuple[str, ...]) -> str:
        parts = (f"Part {at} of {len(texts)}\n\n{text}" for at, text in enumerate(some, first + 1))
        return prompt(instruction, current.title, "\n\n".join(parts))

    whole = joined(0, texts)
    if current.limits.takes(whole):
        ended = replace(current, number=number, slots=(None,), last=True)
        return ended, (Ask(f"reduce/{number}/0", whole),)
    groups = _groups(texts, lambda first, some: current.limits.takes(joined(first, some)))
    if len(groups) == len(texts):
        return Failure(
            TOO_LONG,
            f"the summaries of its {len(texts)} parts are too long to be summarized together: "
            "ask for shorter ones (--max-tokens), or use a model with a larger window",
        )
    # A summary that is alone in its group goes into the next round as it is.
    slots = tuple(some[0] if len(some) == 1 else None for some in groups.values())
    asks = tuple(
        Ask(f"reduce/{number}/{at}", joined(first, some))
        for at, (first, some) in enumerate(groups.items())
        if len(some) > 1
    )
    return replace(current, number=number, slots=slots), asks


def _groups(
    texts: tuple[str, ...], fit: Callable[[int, tuple[str, ...]], bool]
) -> Mapping[int, tuple[str, ...]]:
    """Return neighbours that fit one request together, by the position of the first."""
    groups: dict[int, tuple[str, ...]] = {}
    start = 0
    for end in range(1, len(texts) + 1):
        if end == len(texts) or not fit(start, texts[start : end + 1]):
            groups[start] = texts[start:end]
            start = end
    return groups


def _is_said(title: str, text: str) -> bool:
    """Return whether the text begins with its own title, as a page's heading."""
    return text.lstrip("# \n\t").startswith(title)


def _labelled(title: str, label: str) -> str:
    return f"{title} ({label})" if title else label.capitalize()


def _too_small(limits: Limits) -> Failure:
    return Failure(
        TOO_LONG,
        f"the document is too long for one request, and a window of {limits.piece_tokens:,} tokens "
        "has no room for the instruction and a piece of it: shorten the instruction, or use a "
        "model with a larger window",
    )
