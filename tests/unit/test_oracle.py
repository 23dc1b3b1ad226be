"""Learned functions fail without harm, and remember what they said."""

import logging
import math

import pytest

from router_worker.knowledge import Guess
from router_worker.oracles.cache import TEXT_CHARS, Cache
from router_worker.oracles.oracle import (
    LOG_EVERY_S,
    Oracle,
    OracleClassifier,
    OraclePredictor,
    check_guess,
    check_predictions,
)
from router_worker.oracles.shared import Said
from router_worker.oracles.similar import Similar


class Asked:
    """A learned function that notes what it was asked."""

    def __init__(self, *, confidence: float = 0.9) -> None:
        self.texts: list[str] = []
        self.confidence = confidence

    def __call__(self, text: str) -> Guess:
        self.texts.append(text)
        if "break" in text:
            raise ZeroDivisionError("a fault")
        return Said(text.split(maxsplit=1)[0], self.confidence, unknown=False)


def oracle(ask: Asked, **options: object) -> Oracle[Guess]:
    return Oracle("classifier 'x'", ask, check_guess, **options)  # type: ignore[arg-type]


def test_the_same_text_is_asked_about_once() -> None:
    ask = Asked()
    classifier = OracleClassifier(oracle(ask))

    said = [classifier.classify(text) for text in ("Tell me", "tell  ME ", "other")]

    assert said[0] is said[1]
    assert ask.texts == ["tell me", "other"]
    assert (classifier.oracle.cache.hits, classifier.oracle.cache.misses) == (1, 2)


def test_what_is_said_does_not_depend_on_what_came_before() -> None:
    one, two = oracle(Asked()), oracle(Asked())

    assert [one("TELL me"), one("tell me")] == [two("tell me"), two("TELL me")]


def test_a_long_text_is_asked_about_each_time() -> None:
    ask = Asked()
    long = oracle(ask)
    for _ in range(2):
        assert long("word " * TEXT_CHARS) is not None
    assert len(ask.texts) == 2


def test_a_failure_is_no_answer_and_is_not_remembered(caplog: pytest.LogCaptureFixture) -> None:
    ask = Asked()
    classifier = OracleClassifier(oracle(ask))

    assert classifier.classify("break") is None
    assert classifier.classify("break") is None
    assert classifier.classify("fine") == Said("fine", 0.9, unknown=False)
    assert classifier.oracle.failures == len(ask.texts) - 1 == 2


def test_failures_are_logged_with_where_they_were_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = iter((0.0, 1.0, LOG_EVERY_S - 1, LOG_EVERY_S, LOG_EVERY_S + 1))
    failing = oracle(Asked(), clock=lambda: next(times))
    for _ in range(5):
        failing("break it")

    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all(record.exc_info is not None for record in caplog.records)
    assert "classifier 'x' failed, rules carry on (4 failures so far)" in caplog.text


@pytest.mark.parametrize("confidence", [math.nan, -0.1, 1.1, math.inf])
def test_a_confidence_that_is_no_chance_is_a_failure(confidence: float) -> None:
    broken = oracle(Asked(confidence=confidence))
    assert broken("fine") is None
    assert broken.failures == 1


def test_predictions_that_are_no_chances_are_none() -> None:
    predictor = OraclePredictor(
        Oracle("predictor", lambda text: {"cheap": float(text)}, check_predictions, form=str)
    )

    assert predictor.predict("0.5") == {"cheap": 0.5}
    assert predictor.predict("nan") == {}
    assert predictor.predict("no number") == {}
    assert predictor.oracle.failures == 2


def test_a_similar_text_gets_what_the_first_one_got() -> None:
    ask = Asked()
    similar = oracle(ask, similar=Similar[Guess](0.7))

    first = similar("please tell me how i can reset my password")
    assert similar("tell me how i can reset my password") is first
    assert similar("please tell me how i can not reset my password") is not first
    assert len(ask.texts) == 2


def test_likeness_does_not_go_on_from_text_to_text() -> None:
    ask = Asked()
    similar = oracle(ask, similar=Similar[Guess](0.75))

    first = similar("a b c d e f g")
    assert similar("a b c d e f") is first
    assert similar("a b c d e x") is not first  # like the second alone


def test_news_are_what_was_asked_about_and_not_what_was_known() -> None:
    cache = Cache[Guess]()
    cache.put("known", Said("x", 1.0, unknown=False))
    teller = oracle(Asked(), cache=cache, tell=True)
    for text in ("known", "new", "new", "break"):
        teller(text)

    assert teller.news == {"new": Said("new", 0.9, unknown=False)}
