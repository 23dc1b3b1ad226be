"""Gist: what an answer says, in a form in which two that say the same are equal.

JSON objects and lists are their values; a text that comes to a number is that number ("The answer
is **42**." and "42.0"), as answers to the same question are compared in self-consistency
(https://arxiv.org/abs/2203.11171); any other text is its words.
"""

import json
import re
import unicodedata
from collections.abc import Hashable
from decimal import Decimal
from typing import Any, Final, NoReturn

FENCE: Final = re.compile(r"```[ \t]*(\w*)[^\n`]{0,80}\n(.*?)```", re.DOTALL)
NUMBER: Final = re.compile(
    # Not a part of a date, a time, a fraction, a version or a word.
    r"(?<![\w./:,-])[-+\u2212]?[$€£¥]?[-\u2212]?"
    r"(\d{1,3}(?:,\d{3})+(?:\.\d{1,30})?|\d{1,30}(?:\.\d{1,30})?)(?:[eE]([-+]?\d{1,3}))?"
    r"(?![\w/:]|[-.,]\d)"
)
MARKER: Final = re.compile(r"\s*[-+]?\d+[.)]\s+\S")
"""How an item of a list begins: its number says nothing."""
LEAD: Final = re.compile(r"^(?:so )?(?:the )?(?:final )?answer(?: is)?\b[\s:=]*(?:that )?")
STANCE: Final = frozenset({"yes", "no", "true", "false"})
MARKS: Final = str.maketrans("", "", "*_`#\"'\u201c\u201d\u2018\u2019")
WORDS_AFTER: Final = 2
"""A number with more words than this after it is not what the text comes to."""
LAST_CHARS: Final = 2_000
"""So much of a text's end is searched for its last number."""


def gist(text: str) -> Hashable:
    """Return what `text` says. Equal means that two texts say the same; () is no text at all."""
    try:
        value = json_value(text)
        if isinstance(value, dict | list):
            return "json", frozen(value)
    except (ValueError, RecursionError):
        pass  # It is no JSON, or too deep to be compared as such.
    words = plain_words(text)
    if not words:
        return ()
    number = last_number(text)
    if number is not None:
        stance = words.split(" ", 1)[0].strip(",.;:!")
        return "number", number, stance if stance in STANCE else ""
    return "words", words


def json_value(text: str) -> Any:
    """Return the JSON value of a text: all of it, or what is in its first fence of JSON.

    Numbers are `int` and `float` as ever. Raises `ValueError` if there is none, and
    `RecursionError` if it is nested too deep.
    """
    whole = text.strip()
    try:
        return json.loads(whole, parse_constant=no_number)
    except ValueError:
        for language, block in FENCE.findall(whole):
            if language.lower() in {"", "json"}:
                return json.loads(block, parse_constant=no_number)
        raise


def no_number(constant: str) -> NoReturn:
    """Refuse NaN and the infinities, which are no JSON."""
    raise ValueError(f"{constant} is no JSON")


def frozen(value: Any) -> Hashable:
    """Return a JSON value in a form that can be compared and counted; 1 and 1.0 are the same."""
    if isinstance(value, dict):
        return "object", frozenset((key, frozen(each)) for key, each in value.items())
    if isinstance(value, list):
        return "list", tuple(map(frozen, value))
    # True would be 1.
    return ("bool", value) if isinstance(value, bool) else value


def plain_words(text: str) -> str:
    """Return a text without what is about its looks: case, marks, spaces, the final stop."""
    folded = unicodedata.normalize("NFKC", text).translate(MARKS).casefold()
    return LEAD.sub("", " ".join(folded.split())).rstrip(".!;,: ")


def last_number(text: str) -> Decimal | None:
    """Return the number that a text comes to, or None if it ends with something else."""
    end = text.translate(MARKS)[-LAST_CHARS:]
    numbers = list(NUMBER.finditer(end))
    if not numbers:
        return None
    found = numbers[-1]
    line_start = end.rfind("\n", 0, found.start()) + 1
    if MARKER.match(end, line_start) and not end[line_start : found.start()].strip():
        return None
    if len(re.findall(r"\w+", end[found.end() :])) > WORDS_AFTER:
        return None
    sign = "-" if found[0].translate({0x2212: "-"}).lstrip("$€£¥+").startswith("-") else ""
    return Decimal(f"{sign}{found[1].replace(',', '')}e{found[2] or 0}")
