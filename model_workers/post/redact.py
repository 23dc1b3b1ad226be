"""Replacing what nobody should see by the kind that it is: `[email]`, `[phone]`, `[card]`.

These are patterns and checksums, no understanding: a number written in words is not found.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import re2

from model_workers.post.strip import compiled
from modelyard.after import Redact

EMAIL: Final = re2.compile(
    r"[\p{L}\p{N}_][\p{L}\p{N}._%+'\-]*@[\p{L}\p{N}][\p{L}\p{N}\-]*(?:\.[\p{L}\p{N}\-]+)*\.\p{L}{2,}"
)
DIGITS: Final = re2.compile(r"[0-9]+(?:[ \-][0-9]+)*")
"""Groups of digits, as card numbers are written."""
NUMBER: Final = re2.compile(r"(?:\+ ?|\()?[0-9](?:[ ().\-/]{0,3}[0-9])+")
"""What a telephone number can look like; `is_phone` says whether it is one."""
SHAPE: Final = re2.compile(r"(?:1[ .\-])?(?:\([0-9]{3}\) ?|[0-9]{3}[ .\-])[0-9]{3}[ .\-][0-9]{4}")
"""A number of North America: 415-555-0132."""

LEAST_CARD, MOST_CARD = 13, 19
"""Digits of a card number: ISO/IEC 7812."""
LEAST_PHONE, MOST_PHONE = 7, 15
"""Digits of a telephone number: ITU-T E.164 allows 15."""


def redact(text: str, what: Redact) -> str:
    """Return the text with all of these replaced."""
    for kind, pattern in what.patterns.items():
        text = str(compiled(pattern).sub(named(kind), text))
    for kind, act in KINDS.items():
        if kind in what.kinds:
            text = act(text)
    return text


def named(kind: str) -> Callable[[Any], str]:
    """Return what takes the place of a match: its kind. An empty match is none."""
    return lambda found: f"[{kind}]" if found[0] else ""


def without_emails(text: str) -> str:
    """Return the text without e-mail addresses."""
    return str(EMAIL.sub("[email]", text))


def without_cards(text: str) -> str:
    """Return the text without numbers that can be a card's by length and checksum."""
    return str(DIGITS.sub(lambda found: cards_out(found[0]), text))


def cards_out(run: str) -> str:
    """Return a run of groups of digits without those groups that make up a card number."""
    groups = list(DIGIT_GROUP.finditer(run))
    kept, at, first = [], 0, 0
    while first < len(groups):
        end = card_end(run, groups, first)
        if end is None:
            first += 1
            continue
        kept += [run[at : groups[first].start()], "[card]"]
        at, first = groups[end].end(), end + 1
    return "".join([*kept, run[at:]])


DIGIT_GROUP: Final = re2.compile(r"[0-9]+")


def card_end(run: str, groups: list[Any], first: int) -> int | None:
    """Return the last group of the longest card number that begins with this one, or None."""
    digits, found = "", None
    for last in range(first, len(groups)):
        digits += groups[last][0]
        if len(digits) > MOST_CARD:
            break
        if len(digits) >= LEAST_CARD and luhn(digits):
            found = last
    return found


def luhn(digits: str) -> bool:
    """Return whether the checksum is right: ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0 and any(digit != "0" for digit in digits)


def without_phones(text: str) -> str:
    """Return the text without telephone numbers."""
    parts, at = [], 0
    for found in phones(text):
        parts += [text[at : found.start()], "[phone]"]
        at = found.end()
    return "".join([*parts, text[at:]])


def phones(text: str) -> Iterator[Any]:
    """Yield the telephone numbers of a text."""
    for found in NUMBER.finditer(text):
        start, end = found.span()
        before, after = text[max(0, start - 1) : start], text[end : end + 1]
        # A part of a name, of a longer number or of an amount is no number by itself.
        if not (before.isalnum() or before in {"_", "$", "€", "£", "#"} or after.isalnum()) and (
            is_phone(found[0])
        ):
            yield found


def is_phone(number: str) -> bool:
    """Return whether it is written as a telephone number is: with its country's or area's prefix.

    A date, an address of a computer and a plain count are not.
    """
    digits = sum(char.isdigit() for char in number)
    if not LEAST_PHONE <= digits <= MOST_PHONE:
        return False
    if number.startswith(("+", "00")):
        return True
    if SHAPE.fullmatch(number):
        return True
    is_prefixed = number.startswith("0") or number.startswith("(0")
    # 01.12.2026 and 01/12/2026 are days.
    return is_prefixed and digits > 8


KINDS: Final = {"email": without_emails, "card": without_cards, "phone": without_phones}
"""In this order: the digits of a card number are not those of a telephone."""
