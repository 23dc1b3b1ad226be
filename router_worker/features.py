"""What the router looks at in a request."""

from dataclasses import dataclass

from modelyard.messages import Request
from modelyard.tokens import estimate_tokens

HEAD_CHARS = 2_000
TAIL_CHARS = 500
"""What is asked stands at the beginning or the end; the document between is not read for it."""


@dataclass(frozen=True, slots=True)
class Features:
    """A request as the rules see it: its estimated length, and its lower-cased head and tail."""

    input_tokens: int
    gist: str


def features(request: Request) -> Features:
    """Return the features of a request."""
    text = request.text
    gist = text
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        gist = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    return Features(input_tokens=estimate_tokens(text), gist=gist.casefold())
