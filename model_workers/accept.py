"""Whether the answer of a cascade's model is good enough, as far as the answer itself tells.

What needs more calls (`agreement`, `judge`) is asked for elsewhere, and told in `Draft.score`.
"""

from collections.abc import Sequence
from typing import Any

from model_workers.gist import gist, json_value
from modelyard.expression import parse
from modelyard.messages import Draft
from modelyard.plan import Accept


def check(accept: Accept, draft: Draft) -> str:
    """Return '' if expression, JSON schema and confidence hold, else why not in a few words.

    Nothing that the model said is in it. Raises `ValueError` if `accept` itself can't be used,
    which the catalog's readers refuse.
    """
    for test in (confident, holds, fits):
        if why := test(accept, draft):
            return why
    return ""


def fits(accept: Accept, draft: Draft) -> str:
    """Return why the text is not what the JSON schema asks for, or ''."""
    if accept.json_schema is None:
        return ""
    # jsonschema takes a while to import, and only those with a schema need it.
    from modelyard.json_schema import why_not  # noqa: PLC0415

    try:
        value = json_value(draft.text)
    except (ValueError, RecursionError):
        return "json_schema: its text is not JSON"
    why = why_not(accept.json_schema, value)
    return why and f"json_schema: {why}"


def confident(accept: Accept, draft: Draft) -> str:
    """Return why the model is not sure enough of its answer, or ''."""
    if accept.min_confidence is None:
        return ""
    if draft.confidence is None:
        return "min_confidence: the provider gave no log-probabilities"
    if not draft.confidence >= accept.min_confidence:
        return f"min_confidence: {draft.confidence:.2f} is less than {accept.min_confidence:g}"
    return ""


def holds(accept: Accept, draft: Draft) -> str:
    """Return why the expression is not true of the answer, or ''."""
    if accept.expression is None:
        return ""
    expression = parse(accept.expression)
    values: dict[str, Any] = {
        "text": draft.text,
        "finish_reason": draft.finish_reason,
        "output_tokens": draft.usage.output_tokens,
        "confidence": draft.confidence,
    }
    if "json" in expression.names:
        try:
            values["json"] = json_value(draft.text)
        except (ValueError, RecursionError):
            return "expression: its text is not JSON"
    why = expression.why_not(values)
    return why and f"expression: {why}"


def agreement(texts: Sequence[str]) -> float:
    """Return the share of answers that say the same as the first, the first among them.

    From 0 to 1; 0 if the first says nothing.
    """
    gists = list(map(gist, texts))
    if not gists or gists[0] == ():
        return 0.0
    return gists.count(gists[0]) / len(gists)
