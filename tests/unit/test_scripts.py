"""Whether a text is in a script that a classifier was trained on."""

import pytest

from router_worker.learned.intents import IntentClassifier
from router_worker.learned.scripts import LATIN, is_foreign, scripts_of
from router_worker.oracles.shelf import BUILTIN_FOLDER

ALPHABET = frozenset({LATIN})


@pytest.fixture(scope="module")
def builtin() -> IntentClassifier:
    return IntentClassifier.load(BUILTIN_FOLDER)


@pytest.mark.parametrize(
    "text",
    [
        "写一首关于春天的诗",
        "Какая столица Франции?",
        "как вернуть деньги за iPhone Pro?",
        "ما هي عاصمة فرنسا",
        "เมืองหลวงของฝรั่งเศสคืออะไร",
        "フランスの首都はどこですか",
        "Ποια είναι η πρωτεύουσα της Γαλλίας;",
        "프랑스의 수도는 어디인가요?",
        "Мне нужен Microsoft Windows Server. " + "Мне нужно вернуть этот товар. " * 10,
    ],
)
def test_the_built_in_classifier_knows_no_other_script_than_latin(
    builtin: IntentClassifier, text: str
) -> None:
    assert builtin.classify(text).unknown


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("Translate into English: Мне нужно вернуть этот товар, он не работает", "translate"),
        ("What is 你好 in German?", "translate"),
        ("solve α + β = 5", "math"),
        ("12 + 30", "math"),
    ],
)
def test_words_that_it_can_read_tell_what_a_quotation_is_for(
    builtin: IntentClassifier, text: str, intent: str
) -> None:
    found = builtin.classify(text)
    assert (found.intent, found.unknown) == (intent, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "Wie schreibt man Müller, Großmann und Çelik?",
        "Écris un poème sur l'été à Orléans",
        "¿Cuál es la capital de España? ¡Rápido!",
        "Zażółć gęślą jaźń",
        "Việt Nam có bao nhiêu tỉnh thành?",
        "“Smart quotes” → arrows ✓ 😀",
    ],
)
def test_latin_letters_with_accents_are_latin(text: str) -> None:
    assert not is_foreign(text, ALPHABET)


def test_a_script_is_known_if_more_than_a_trace_of_it_was_trained_on() -> None:
    latin = [f"={one}{two}" for one in "abcdefghijkl" for two in "mnopqrstuvwxyz"]

    assert scripts_of([*latin, "=дом"]) == {"LATIN"}
    assert scripts_of([*latin, *(f"={one}а" for one in "бвгдежз")]) == {"LATIN", "CYRILLIC"}
    assert not is_foreign("дом", frozenset({"LATIN", "CYRILLIC"}))
    assert is_foreign("house", frozenset({"CYRILLIC"}))
