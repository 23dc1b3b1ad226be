"""A learned function of a text, asked with care: it never raises, and it remembers.

What comes from a model file is data that somebody trained, and what runs it may have faults. Both
end here: a failure is logged, counted and answered by None, and rules carry on.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from router_worker.knowledge import Guess
from router_worker.normal import normal
from router_worker.oracles.cache import TEXT_CHARS, Cache
from router_worker.oracles.similar import Similar, sketch

logger = logging.getLogger("modelyard.router")

V = TypeVar("V")

LOG_EVERY_S: Final = 60.0
"""A model that always fails would fill the log."""


class Oracle(Generic[V]):
    """A learned function of `form(text)`: texts of one form are one text to it.

    `ask` is asked about the form, too, and not about the text that has it: what it says of a text
    must not depend on which other one came before. `what` names it in the log. A value that `check`
    refuses by `ValueError` is a failure. `similar` answers for texts that are like one that was
    asked about. With `tell`, what was found out anew is noted in `news` for others. `clock` is in
    seconds. Not for threads.
    """

    def __init__(
        self,
        what: str,
        ask: Callable[[str], V],
        check: Callable[[V], None],
        *,
        form: Callable[[str], str] = normal,
        cache: Cache[V] | None = None,
        similar: Similar[V] | None = None,
        tell: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self.failures = 0
        self.cache: Cache[V] = Cache() if cache is None else cache
        self.similar = similar
        self.news: dict[str, V] = {}
        self._ask = ask
        self._form = form
        self._check = check
        self._tell = tell
        self._clock = clock
        self._logged = -math.inf

    def __call__(self, text: str) -> V | None:
        """Return what it says about a text, or None if it fails."""
        key = self._form(text)
        if len(key) > TEXT_CHARS:
            return self._surely(key)
        found = self.cache.get(key)
        if found is not None:
            return found
        seen = None if self.similar is None else sketch(key)
        if self.similar is not None and seen is not None:
            found = self.similar.get(seen)
            if found is not None:
                # Not into `similar`: from text to text likeness would end far from where it began.
                self.cache.put(key, found)
                return found
        said = self._surely(key)
        if said is not None:
            self.cache.put(key, said)
            if self.similar is not None and seen is not None:
                self.similar.put(seen, said)
            if self._tell:
                self.news[key] = said
        return said

    def _surely(self, key: str) -> V | None:
        try:
            said = self._ask(key)
            self._check(said)
        except Exception as error:
            self.failures += 1
            now = self._clock()
            if now - self._logged >= LOG_EVERY_S:
                self._logged = now
                logger.exception(
                    "%s failed, rules carry on (%d failures so far): %s",
                    self.what,
                    self.failures,
                    type(error).__name__,
                )
            return None
        return said


class OracleClassifier:
    """A classifier and its oracle, as `knowledge.Classifier` has it."""

    def __init__(self, oracle: Oracle[Guess]) -> None:
        self.oracle = oracle

    def classify(self, text: str) -> Guess | None:
        """Return a guess, or None if the classifier failed."""
        return self.oracle(text)


class OraclePredictor:
    """A predictor and its oracle, as `knowledge.Predictor` has it."""

    def __init__(self, oracle: Oracle[Mapping[str, float]]) -> None:
        self.oracle = oracle

    def predict(self, text: str) -> Mapping[str, float]:
        """Return the chances by model, or {} if the predictor failed."""
        return self.oracle(text) or {}


def check_guess(guess: Guess) -> None:
    """Raise `ValueError` for a guess whose confidence is no chance."""
    check_chance(guess.confidence)


def check_predictions(predicted: Mapping[str, float]) -> None:
    """Raise `ValueError` for predictions that are no chances."""
    for chance in predicted.values():
        check_chance(chance)


def check_chance(value: float) -> None:
    """Raise `ValueError` for what is not from 0 to 1."""
    # NaN is not, either.
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{value} is no chance from 0 to 1")
