"""Matching a route's rules: which of them hold for a request, and why."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from modelyard.routes import Route, Rule, When, compiled
from router_worker.features import Features
from router_worker.normal import phrases

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Thai, Lao, Burmese, Khmer, Kana and Han have no spaces between words, and Hangul joins endings to
them: where a word begins or ends can't be seen."""

_UNSPACED = re.compile(f"[{UNSPACED}]")
BEGIN = rf"(?<![^\W{UNSPACED}])"
END = rf"(?![^\W{UNSPACED}])"

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class View:
    """What conditions are about: a request's features, whose it is, and when.

    `now` is in seconds since the epoch. `escalated` says whether its session was before.
    """

    features: Features
    metadata: Mapping[str, str] = field(default_factory=dict)
    now: float = 0.0
    escalated: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that matched, its position in the route (from 0), and what made it match."""

    position: int
    rule: Rule
    because: str


def matches(route: Route, view: View) -> Iterator[Match]:
    """Yield the rules of `route` that hold, in their order."""
    for position, rule in enumerate(route.rules):
        because = why(rule.when, view)
        if because is not None:
            yield Match(position, rule, because)


def why(when: When, view: View) -> str | None:
    """Return what makes the conditions hold, in words, or None if one of them does not."""
    reasons: list[str] = []
    for condition in asked(frozenset(when.model_fields_set)):
        reason = condition(when, view)
        if reason is None:
            return None
        if reason:
            reasons.append(reason)
    return " and ".join(reasons)


# Each condition returns '' where the rule does not ask, None where it does not hold.


def _length(when: When, view: View) -> str | None:
    tokens, reasons = view.features.input_tokens, []
    if when.min_tokens is not None:
        if tokens < when.min_tokens:
            return None
        reasons.append(f"about {tokens:,} tokens, at least {when.min_tokens:,}")
    if when.max_tokens is not None:
        if tokens > when.max_tokens:
            return None
        reasons.append(f"about {tokens:,} tokens, at most {when.max_tokens:,}")
    return " and ".join(reasons)


def _complexity(when: When, view: View) -> str | None:
    least, most = when.min_complexity, when.max_complexity
    if least is None and most is None:
        return ""
    found = view.features.complexity
    return f"complexity {found}" if (least or 1) <= found <= (most or 5) else None


def _traits(when: When, view: View) -> str | None:
    if not view.features.traits.issuperset(when.has):
        return None
    return f"has {', '.join(when.has)}" if when.has else ""


def _metadata(when: When, view: View) -> str | None:
    for key, values in when.metadata.items():
        found = view.metadata.get(key)
        if found is None or (found not in values and "*" not in values):
            return None
    return " and ".join(f"metadata {key} is {view.metadata[key]!r}" for key in when.metadata)


def _escalated(when: When, view: View) -> str | None:
    if when.escalated is None:
        return ""
    if when.escalated is not view.escalated:
        return None
    return "its session was escalated" if view.escalated else "its session was not escalated"


def _time(when: When, view: View) -> str | None:
    if when.span is None and not when.days:
        return ""
    at = datetime.fromtimestamp(view.now, ZoneInfo(when.timezone))
    begins = at
    if when.span is not None:
        minute = 60 * at.hour + at.minute
        start, end = when.span
        if not (start <= minute < end if start < end else minute >= start or minute < end):
            return None
        if start > end and minute < end:
            begins = at - timedelta(days=1)  # the night that began yesterday
    if when.days and DAYS[begins.weekday()] not in when.days:
        return None
    return f"it is {at:%a %H:%M} in {when.timezone}"


def _keywords(when: When, view: View) -> str | None:
    if not when.keywords:
        return ""
    said = view.features.phrases
    # Most rules don't match, and to look for a text is many times faster than for a pattern.
    if not any(map(said.__contains__, folded(when.keywords))):
        return None
    found = keyword_pattern(when.keywords).search(said)
    return f"keyword {found.group()!r}" if found else None


def _pattern(when: When, view: View) -> str | None:
    if when.pattern is None:
        return ""
    found = regular_expression(when.pattern).search(view.features.text)
    return f"pattern matches {found.group()[:40]!r}" if found else None


def _languages(when: When, view: View) -> str | None:
    if not when.languages:
        return ""
    found = view.features.language
    return f"language {found}" if found in when.languages else None


def _nested(when: When, view: View) -> str | None:
    reasons = []
    for each in when.all:
        reason = why(each, view)
        if reason is None:
            return None
        reasons.append(reason)
    if when.any:
        first = next((reason for each in when.any if (reason := why(each, view)) is not None), None)
        if first is None:
            return None
        reasons.append(first)
    if when.not_ is not None:
        if why(when.not_, view) is not None:
            return None
        reasons.append("what it excludes does not hold")
    return " and ".join(reasons)


CONDITIONS = (
    (("min_tokens", "max_tokens"), _length),
    (("min_complexity", "max_complexity"), _complexity),
    (("has",), _traits),
    (("metadata",), _metadata),
    (("escalated",), _escalated),
    (("hours", "days"), _time),
    (("keywords",), _keywords),
    (("pattern",), _pattern),
    (("languages",), _languages),
    (("all", "any", "not_"), _nested),
)
"""The fields of a `When` that ask for a condition, and the condition. The cheap ones first."""


@lru_cache(maxsize=1024)
def asked(fields: frozenset[str]) -> tuple[Callable[[When, View], str | None], ...]:
    """Return the conditions for which a rule with these fields asks: most ask for one."""
    return tuple(condition for names, condition in CONDITIONS if not fields.isdisjoint(names))


@lru_cache(maxsize=1024)
def folded(keywords: tuple[str, ...]) -> tuple[str, ...]:
    """Return keywords as texts are: see `phrases`."""
    return tuple(filter(None, map(phrases, keywords)))


@lru_cache(maxsize=1024)
def keyword_pattern(keywords: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that finds any keyword as a whole word or phrase in a text's `phrases`.

    One that begins or ends with a sign may stand beside a letter there: ".pdf" in "report.pdf".
    """
    spaced: list[str] = []
    others: list[str] = []
    for word in sorted(folded(keywords), key=len, reverse=True):
        begin, end = BEGIN if is_edge(word[0]) else "", END if is_edge(word[-1]) else ""
        if begin and end:
            spaced.append(re.escape(word))
        else:
            others.append(f"{begin}{re.escape(word)}{end}")
    # All together between one begin and one end: to ask at each word is 70 times slower.
    together = [f"{BEGIN}(?:{'|'.join(spaced)}){END}"] if spaced else []
    return re.compile("|".join([*together, *others]))


def is_edge(char: str) -> bool:
    """Return whether a word can be seen to begin or to end with a character."""
    if _UNSPACED.match(char):
        return False
    # Signs of vowels in Devanagari and the like are marks, which `\\w` has not.
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M")


regular_expression = lru_cache(maxsize=1024)(compiled)
"""`modelyard.routes.compiled`, once for each pattern."""


def prepare(route: Route) -> None:
    """Compile all patterns of a route, so that no request waits for it."""
    pending: list[Any] = [rule.when for rule in route.rules]
    while pending:
        when = pending.pop()
        if when.keywords:
            keyword_pattern(when.keywords)
        if when.pattern is not None:
            regular_expression(when.pattern)
        pending += [*when.all, *when.any, *([when.not_] if when.not_ else [])]
