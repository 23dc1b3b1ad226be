"""Which language a text is in, as two letters: by its script, or by its commonest small words.

A rule wants to know German from English, in microseconds. Libraries that know 75 languages take
from 0.2 to 20 ms a text, and a model of megabytes (docs/decisions/0012).
"""

import re
from collections.abc import Mapping
from typing import Final

_SCRIPTS: Final = (
    ("ja", 0.1, re.compile("[\u3040-\u30ff]")),
    ("ko", 0.5, re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", 0.5, re.compile("[\u4e00-\u9fff]")),
    ("uk", 0.02, re.compile("[іїєґ]", re.IGNORECASE)),
    ("ru", 0.5, re.compile("[\u0400-\u04ff]")),
    ("ar", 0.5, re.compile("[\u0600-\u06ff]")),
    ("he", 0.5, re.compile("[\u0590-\u05ff]")),
    ("el", 0.5, re.compile("[\u0370-\u03ff]")),
    ("hi", 0.3, re.compile("[\u0900-\u097f]")),
    ("th", 0.3, re.compile("[\u0e00-\u0e7f]")),
)
"""Which share of a text's letters tells a language. Kana before Han, as Japanese has both; letters
that only Ukrainian has before all Cyrillic; signs that join letters are no letters themselves."""

_SMALL_WORDS: Final = {
    "en": "the of and to in is you that it for on with as are this be at have from or what how do "
    "my can not your me which an was were please should would about does why when who write",
    "de": "der die das und ist ein eine nicht ich zu den mit auf für von im des dem wie was bitte "
    "sie wir es auch mein meine kann wird sind wenn aber einen einem warum über mir",
    "fr": "le la les des et est un une je vous que qui dans pour pas sur au du ce il elle mon ma "
    "avec comment quel quelle sont ne nous aux plus cette peux pourquoi moi",
    "es": "el los las y es un una que en de no se por con para mi como qué cómo cuál del al su lo "
    "más este esta puedo son está tu me cuando porque hay",
    "it": "il lo gli e è un una che di non per con mi come del della sono questo questa cosa nel "
    "più perché anche ho puoi alla dei delle quale",
    "pt": "o os as e é um uma que de não para com meu minha como do da em no na por mais são você "
    "qual isso este está posso dos das ao quando porque",
    "nl": "de het een en is van ik niet dat met op voor zijn te hoe wat mijn er aan je ook kan "
    "maar deze naar om waarom wij",
    "pl": "i w nie na się jest że to z do jak co czy mój moja dla po jestem są od przez dlaczego "
    "proszę może który",
    "sv": "och är att det en ett som på för med inte jag av hur vad min kan den till om du har "
    "varför",
    "tr": "ve bir bu için ne nasıl değil ile mi mı de da ben çok en var olan neden daha",
}

_WORD: Final = re.compile(r"[^\W\d_]+")
_LOOK_AT: Final = 60
"""So many words tell the language."""


def _votes(words: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    votes: dict[str, list[str]] = {}
    for language, listed in words.items():
        for word in listed.split():
            votes.setdefault(word, []).append(language)
    return {word: tuple(languages) for word, languages in votes.items()}


_VOTES: Final = _votes(_SMALL_WORDS)


def language(text: str) -> str:
    """Return the language of case-folded `text`, or '' if nothing tells it."""
    head = text[:600]
    if not head.isascii():
        letters = sum(map(str.isalpha, head))
        for name, share, script in _SCRIPTS:
            found = len(script.findall(head))
            if found and found >= share * letters:
                return name
    score: dict[str, float] = {}
    for word in _WORD.findall(head)[:_LOOK_AT]:
        languages = _VOTES.get(word, ())
        for each in languages:
            score[each] = score.get(each, 0.0) + 1.0 / len(languages)
    if not score:
        return ""
    best = max(score, key=score.__getitem__)
    rest = sum(score.values()) - score[best]
    return best if score[best] > rest else ""
