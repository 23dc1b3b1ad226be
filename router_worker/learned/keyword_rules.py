"""Thirty lines of keyword rules for the intents of the built-in model: what it has to beat.

They are written as one would write them in a catalog, without a look at any test data. A learned
classifier that is no better than these is not worth its megabytes.
"""

import re
from typing import Final

_PATTERNS: Final = (
    ("translate", r"\btranslat\w*|\bhow do (?:you|i) say\b|\b(?:in|into|to) (?:french|spanish|"
                  r"german|italian|chinese|japanese|portuguese|arabic|russian|hindi|korean)\b"),
    ("code", r"```|\b(?:python|javascript|java|sql|html|css|regex|regular expression|bash|code|"
             r"function|program|script|algorithm|c\+\+|api|debug|compile)\b"),
    ("math", r"\b(?:calculate|compute|solve|equation|how (?:many|much)|sum of|average|percent\w*|"
             r"square root|convert|integral|derivative|probability)\b|\d\s*[-+*/=]\s*\d"),
    ("analysis", r"\b(?:summari[sz]e|summary|classify|classification|sentiment|extract|identify|"
                 r"detect|proofread|correct the|rewrite|paraphrase|rephrase|given (?:a|the)|"
                 r"following (?:text|sentence|paragraph|passage|article)|label|spam)\b"),
    ("creative", r"\b(?:write|compose|poem|story|haiku|slogan|joke|song|lyrics|essay|tweet|email|"
                 r"letter|brainstorm|generate|create|make up|invent|design|dialogue|title)\b"),
    ("reasoning", r"\b(?:riddle|puzzle|logic\w*|step[- ]by[- ]step|plan|schedule|dilemma|deduce|"
                  r"if all|analogy|strategy|chess|odd one out|what would happen)\b| is to "),
    ("knowledge", r"\b(?:explain|how (?:to|do|does|can|should)|why|tips?|advice|recipe|ways to|"
                  r"difference between|recommend|suggest|pros and cons|benefits|compare)\b"),
    ("conversational", r"^(?:hi|hello|hey|thanks|thank you|good (?:morning|evening))\b|\b(?:i feel|"
                       r"i'm feeling|what do you think|your (?:opinion|favou?rite)|my (?:friend|"
                       r"boyfriend|girlfriend|boss)|chat|are you)\b"),
    ("factual", r"^(?:who|what|when|where|which|is|are|was|were|did|does|name)\b|\b(?:define|"
                r"definition|meaning of|synonym|antonym|capital of)\b"),
)  # fmt: skip

_RULES: Final = tuple((intent, re.compile(pattern, re.IGNORECASE)) for intent, pattern in _PATTERNS)

FALLBACK: Final = "knowledge"
INTENTS: Final = frozenset(intent for intent, _ in _RULES)


def by_keywords(text: str) -> str:
    """Return the intent of the first rule that finds something."""
    return next((intent for intent, pattern in _RULES if pattern.search(text)), FALLBACK)
