"""Content words: what a sentence is about, as terms that can be counted."""

import re
from typing import Final

WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")

STOP_WORDS: Final = frozenset(
    """
    a about above after again against all almost also although always am among an and another any
    anybody anyone anything are aren't around as at away back be because been before being below
    between both but by came can can't cannot come comes coming could couldn't did didn't do does
    doesn't doing don't done down during each either else enough etc even ever every everybody
    everyone everything few first for from further get gets getting give given go goes going gone
    got had hadn't has hasn't have haven't having he he'd he'll he's hence her here here's hers
    herself him himself his how how's however i i'd i'll i'm i've if in indeed instead into is
    isn't it it'd it'll it's its itself just keep kind last least less let let's like likely made
    make makes making many may maybe me might mine more moreover most much must my myself
    nearly never next no nobody none nor not nothing now of off often on once one only onto or other
    others otherwise our ours ourselves out over own per perhaps please put quite rather really
    said same say says second see seem seemed seems seen several shall she she'd she'll she's
    should shouldn't since so some somebody someone something sometimes somewhat soon sort still
    such take taken takes than that that'd that'll that's the their theirs them themselves then
    there there'd there's therefore these they they'd they'll they're they've thing things this
    those though through thus to together too took toward towards two under until up upon us use
    used uses using usually very via was wasn't way we we'd we'll we're we've well went were
    weren't what what's whatever when whenever where where's whereas whether which while who
    who's whoever whole whom whose why will with within without won't would wouldn't yet you you'd
    you'll you're you've your yours yourself yourselves
    """.split()
)
"""English words that say little about a text's subject."""

SPEECH_WORDS: Final = frozenset(
    """
    actually ah alright anyway basically bit bye cool er erm exactly eh fine gonna good great guess
    ha hello hey hi hm hmm huh kay know look lot mean mhm mm mmm nice oh ok okay ooh oops probably
    right sorry stuff sure talk talking tell thank thanks think thought uh uhm um umh wanna want
    whoa wow yeah yep yes yup
    'cause cuz cos d ll m re s t ve n
    """.split()
)
"""What speech is padded with: stop words too, in a transcript."""


def content_words(text: str, *, speech: bool = False) -> list[str]:
    """Return the terms of `text` in order: lower case, without stop words and plural s.

    Scripts that put no spaces between words are counted by pairs of neighbouring characters.
    """
    found = WORD.findall(text.lower().replace("’", "'"))
    terms = [
        _singular(word)
        for word in found
        if word not in STOP_WORDS and not (speech and word in SPEECH_WORDS)
    ]
    if text.isascii():
        return terms
    return [part for term in terms for part in (_pairs(term) if _unspaced(term) else (term,))]


def _singular(word: str) -> str:
    if word.endswith("'s"):
        return word[:-2]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    return word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else word[:-1]


def _unspaced(term: str) -> bool:
    """Thai to Khmer, Japanese kana and Han: scripts whose words stand without spaces."""
    return any("\u0e00" <= char <= "\u0eff" or "\u3040" <= char <= "\u9fff" for char in term)


def _pairs(term: str) -> tuple[str, ...]:
    return tuple(term[at : at + 2] for at in range(len(term) - 1)) or (term,)
