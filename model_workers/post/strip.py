"""What is taken away from an answer: matches of a pattern, and reasoning that it was left with."""

import re
from functools import lru_cache
from typing import Any, Final

import re2

TAGS: Final = ("think", "thinking", "reasoning")
CLOSED: Final = tuple(re2.compile(rf"(?is)<{tag}>.*?</{tag}>\s*") for tag in TAGS)
OPEN: Final = re.compile(rf"\s*<(?:{'|'.join(TAGS)})>", re.IGNORECASE)
HEADLESS: Final = re.compile(rf"</(?:{'|'.join(TAGS)})>[ \t]*(?:\n|\Z)", re.IGNORECASE)
"""The end of reasoning whose begin was in the prompt, as the templates of some models have it."""


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """Return the compiled pattern; it takes linear time. Raises `re2.error`."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def strip(text: str, pattern: str) -> str:
    """Return the text without what the pattern matches."""
    return str(compiled(pattern).sub("", text))


def strip_reasoning(text: str) -> str:
    """Return the text without its reasoning.

    Reasoning that begins the text and never ends is all there is: nothing is left then. A tag that
    the text only speaks of, inside a sentence, is left alone.
    """
    for closed in CLOSED:
        text = str(closed.sub("", text))
    if OPEN.match(text):
        return ""
    ends = list(HEADLESS.finditer(text))
    return text[ends[-1].end() :].lstrip() if ends else text
