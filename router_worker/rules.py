"""Matching a route's rules: the first whose conditions all hold."""

import re
from dataclasses import dataclass
from functools import lru_cache

from modelyard.routes import Route, Rule, When
from router_worker.features import Features


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that matched, its position in the route (from 0), and what made it match."""

    position: int
    rule: Rule
    because: str


def first_match(route: Route, features: Features) -> Match | None:
    """Return the first rule of `route` that matches, or None."""
    for position, rule in enumerate(route.rules):
        because = why(rule.when, features)
        if because is not None:
            return Match(position, rule, because)
    return None


def why(when: When, features: Features) -> str | None:
    """Return what makes the conditions hold, in words, or None if one of them does not."""
    reasons = []
    if when.keywords:
        found = keyword_pattern(when.keywords).search(features.gist)
        if found is None:
            return None
        reasons.append(f"keyword {found.group()!r}")
    tokens = features.input_tokens
    if when.min_tokens is not None:
        if tokens < when.min_tokens:
            return None
        reasons.append(f"about {tokens:,} tokens, at least {when.min_tokens:,}")
    if when.max_tokens is not None:
        if tokens > when.max_tokens:
            return None
        reasons.append(f"about {tokens:,} tokens, at most {when.max_tokens:,}")
    return " and ".join(reasons)


@lru_cache(maxsize=1024)
def keyword_pattern(keywords: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that finds any keyword as a whole word or phrase in case-folded text."""
    words = "|".join(re.escape(word.casefold()) for word in sorted(keywords, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)")
