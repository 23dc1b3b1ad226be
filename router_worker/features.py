"""What the router looks at in a request: how long it is, what is in it, and how hard it looks.

All of this is read from what the user says: the word "complaint" in a system prompt is no
complaint. And from the head and the tail of that: what is asked stands at the beginning or the
end, and the document between is only counted. The tokens are those of all messages.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from modelyard.asked import ROOM_CHARS, asked
from modelyard.messages import Request
from modelyard.request_tokens import tokens_beside_text
from modelyard.tokens import estimate_tokens
from router_worker.language import language
from router_worker.normal import phrases

HEAD_CHARS: Final = 2_000
TAIL_CHARS: Final = ROOM_CHARS - HEAD_CHARS

KNOWN_CHARS: Final = 1_000
KNOWN_TEXTS: Final = 4_096
"""The features of so many texts that are no longer than that are kept: short ones come again."""

TYPICAL_OUTPUT_TOKENS: Final = 200
TOKENS_PER_WORD: Final = 1.35

_CODE: Final = re.compile(
    r"```|\bdef \w+\(|\bclass \w+|\bfunction\b.{0,40}\(|[{};]\s*$|</?[a-z][a-z0-9]*[ />]|=>|"
    r"\bselect\b.{1,200}\bfrom\b|\b(?:python|javascript|typescript|java|c\+\+|sql|html|css|regex|"
    r"bash|rust|golang|kubernetes|docker|json|yaml|api|stack trace|traceback|exception)\b",
    re.MULTILINE | re.DOTALL,
)
_MATH: Final = re.compile(
    r"\d\s*[-+*/^=×÷<>]\s*\d|\b[a-z]\s*=\s*-?\d|\d\s*%|[√∑∫π≤≥]|\\frac|\$[^$\n]{1,80}\$|\b(?:solve|"
    r"equation|calculate|compute|integral|derivative|probability|percent(?:age)?|average|sum of|"
    r"how many|how much|square root|multiplied|divided)\b"
)
_QUESTION: Final = re.compile(
    r"\?|^(?:who|what|when|where|why|how|which|whose|is|are|do|does|did|can|could|should|will|was|"
    r"were)\b"
)
_LIST: Final = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.MULTILINE)
_STEPS: Final = re.compile(
    r"\b(?:step[- ]by[- ]step|first|firstly|then|next|after that|finally|afterwards|secondly|"
    r"followed by|and also|in addition|as well as|plan|strategy|compare|trade-?offs?|evaluate|"
    r"analy[sz]e|derive|prove|design|optimi[sz]e|refactor)\b"
)
_LOGIC: Final = re.compile(
    r"\b(?:and|or|not|if|unless|except|only|but|because|although|therefore|either|neither|both|all|"
    r"none|every|at least|at most|must|without|while|whereas)\b"
)
_URL: Final = re.compile(r"https?://\S+")
_JSON: Final = re.compile(r"\bjson\b|\{\s*\"")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_NAME: Final = re.compile(r"(?<![.!?:\n])(?<!^)\s([A-Z][\w'’-]+)")
_SENTENCE: Final = re.compile(r"[.!?]+(?:\s|$)|\n+")

_WORD: Final = re.compile(r"\w+")

_WORDS_ASKED: Final = re.compile(r"\b(\d{2,5})[- ](?:words?|wörter|mots|palabras)\b")
_ITEMS_ASKED: Final = re.compile(
    r"\b(\d{1,3})\s+(?:\w+\s+)?(?:ideas|examples|tips|reasons|ways|names|questions|items|points|"
    r"steps|titles|suggestions)\b"
)
_SHORT_ASKED: Final = re.compile(
    r"\b(?:one word|yes or no|true or false|briefly|in short|one sentence|single sentence|one line|"
    r"tl;dr|only the (?:number|answer|name))\b"
)
_LONG_ASKED: Final = re.compile(
    r"\b(?:essay|story|article|blog|report|in detail|detailed|comprehensive|chapter|script|"
    r"tutorial|guide|speech|proposal|screenplay)\b"
)


@dataclass(frozen=True, slots=True)
class Hint:
    """What a text must have for a pattern to match: one of these words, or of these pieces.

    Looking for it takes a tenth of the pattern's time, or in a long text a hundredth.
    """

    words: frozenset[str]
    pieces: tuple[str, ...]

    def given(self, gist: str, words: Collection[str]) -> bool:
        """Return whether a lower-cased text of these words has any of it."""
        return not self.words.isdisjoint(words) or any(map(gist.__contains__, self.pieces))


_CODE_HINT: Final = Hint(
    frozenset(
        "def class function select python javascript typescript java sql html css regex bash rust "
        "golang kubernetes docker json yaml api traceback exception".split()
    ),
    ("```", "{", "}", ";", "<", "=>", "c++", "stack trace"),
)
_MATH_HINT: Final = Hint(
    frozenset(
        "solve equation calculate compute integral derivative probability percent percentage "
        "average multiplied divided".split()
    ),
    (*"-+*/^=×÷<>%√∑∫π≤≥$", "\\frac", "sum of", "how many", "how much", "square root"),
)
_STEPS_HINT: Final = Hint(
    frozenset(
        "step first firstly then next finally afterwards secondly plan strategy compare trade "
        "tradeoff tradeoffs evaluate analyse analyze derive prove design optimise optimize "
        "refactor".split()
    ),
    ("after that", "followed by", "and also", "in addition", "as well as"),
)
_LOGIC_HINT: Final = Hint(
    frozenset(
        "and or not if unless except only but because although therefore either neither both all "
        "none every must without while whereas".split()
    ),
    ("at least", "at most"),
)
_LONG_HINT: Final = Hint(
    frozenset(
        "essay story article blog report detailed comprehensive chapter script tutorial guide "
        "speech proposal screenplay".split()
    ),
    ("in detail",),
)
_SHORT_HINT: Final = Hint(
    frozenset({"briefly"}),
    (
        *("one word", "yes or no", "true or false", "in short", "one sentence", "single sentence"),
        *("one line", "tl;dr", "only the "),
    ),
)


@dataclass(frozen=True, slots=True)
class Features:
    """A request as rules and policy see it.

    `text` is the head and the tail of what the user says, `gist` the same in lower case; `traits`
    are those of `modelyard.routes.Trait`; `language` is two letters or ''; `complexity` is from 1
    (a greeting) to 5; `output_tokens` is how long an answer is expected to be, as far as the text
    tells. `input_tokens` are those of the whole request.
    """

    input_tokens: int
    text: str
    gist: str
    traits: frozenset[str]
    complexity: int
    output_tokens: int

    @property
    def language(self) -> str:
        """The text's language; worked out only where a rule asks."""
        return _known_language(self.gist)

    @property
    def phrases(self) -> str:
        """The text as keywords are looked for in it; worked out only where a rule asks."""
        return _known_phrases(self.text)


def features(request: Request) -> Features:
    """Return the features of a request."""
    whole = asked(request.messages)
    seen = known(whole) if len(whole) <= KNOWN_CHARS else read(whole)
    tokens = seen.input_tokens if len(request.messages) == 1 else estimate_tokens(request.text)
    tokens += tokens_beside_text(request)
    if tokens != seen.input_tokens:
        seen = replace(seen, input_tokens=tokens)
    most = request.params.get("max_tokens")
    if isinstance(most, int) and 0 < most < seen.output_tokens:
        return replace(seen, output_tokens=most)
    return seen


def read(whole: str) -> Features:
    """Return the features of a text."""
    text = whole
    if len(whole) > HEAD_CHARS + TAIL_CHARS:
        text = f"{whole[:HEAD_CHARS]}\n{whole[-TAIL_CHARS:]}"
    gist = text.casefold()
    tokens = estimate_tokens(whole)
    words = frozenset(_WORD.findall(gist))
    traits = traits_of(gist, words)
    expected = output_tokens(gist, words, tokens, traits)
    return Features(tokens, text, gist, traits, complexity(text, gist, tokens, traits), expected)


known = lru_cache(maxsize=KNOWN_TEXTS)(read)
"""`read`, once for each short text. By the very text: some features go by case and by lines."""

_known_language = lru_cache(maxsize=KNOWN_TEXTS // 4)(language)
_known_phrases = lru_cache(maxsize=KNOWN_TEXTS // 4)(phrases)


def traits_of(gist: str, words: Collection[str]) -> frozenset[str]:
    """Return what is in a lower-cased text of these words."""
    return frozenset(
        name
        for name, pattern, hint in (
            ("code", _CODE, _CODE_HINT),
            ("math", _MATH, _MATH_HINT),
            ("question", _QUESTION, None),
            ("list", _LIST, None),
            ("steps", _STEPS, _STEPS_HINT),
            ("logic", _LOGIC, _LOGIC_HINT),
            ("url", _URL, None),
            ("json", _JSON, None),
        )
        if (hint is None or hint.given(gist, words)) and pattern.search(gist)
    )


def complexity(text: str, gist: str, tokens: int, traits: frozenset[str]) -> int:
    """Return how hard a request looks, from 1 to 5.

    It counts what needs more than one thought: length, sentences, names and numbers to keep apart,
    conditions, steps, code and mathematics.
    """
    points = 0.0
    points += 0.5 * (tokens > 25) + 0.5 * (tokens > 80) + 0.5 * (tokens > 400)
    points += 0.5 * (len(_SENTENCE.findall(gist)) > 3)
    points += 0.5 * (len(_NUMBER.findall(gist)) > 2)
    points += 0.5 * (text != gist and len(_NAME.findall(text)) > 3)
    if "logic" in traits:
        points += min(1.0, 0.25 * (len(_LOGIC.findall(gist)) - 1))
    if "steps" in traits:
        points += min(1.5, 0.5 * len(_STEPS.findall(gist)))
    points += 0.75 * ("code" in traits) + 0.5 * ("math" in traits) + 0.25 * ("list" in traits)
    return min(5, 1 + int(points))


def output_tokens(
    gist: str, words_in_it: Collection[str], tokens: int, traits: frozenset[str]
) -> int:
    """Return for how many tokens of answer a lower-cased text asks, as far as it tells."""
    words = _WORDS_ASKED.search(gist)
    if words:
        return round(TOKENS_PER_WORD * int(words.group(1)))
    if _SHORT_HINT.given(gist, words_in_it) and _SHORT_ASKED.search(gist):
        return 30
    items = _ITEMS_ASKED.search(gist)
    if items:
        return min(4_000, 30 * int(items.group(1)))
    if _LONG_HINT.given(gist, words_in_it) and _LONG_ASKED.search(gist):
        return 800
    if "code" in traits:
        return 400
    if "question" in traits and tokens < 20:
        return 100
    return TYPICAL_OUTPUT_TOKENS
