"""The shelf: the learned models that a catalog's routes name, read from their folders.

A folder is read at the start, and again when its files changed: the next batch is decided by the
new model, without a restart. One that is missing, damaged or foreign changes nothing: the model
from before stays in use, and where there was none, rules carry on.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from modelyard.catalog import Catalog, suggestion
from modelyard.messages import Request
from modelyard.routes import BUILTIN, Cache, Route
from router_worker.features import features
from router_worker.knowledge import Guess, Knowledge, Seen
from router_worker.learned.embeddings import Embedder, open_embedder
from router_worker.learned.intents import IntentClassifier, wants_embeddings
from router_worker.learned.model_file import Model
from router_worker.learned.quality import QualityPredictor
from router_worker.normal import normal
from router_worker.oracles.cache import Cache as Kept
from router_worker.oracles.oracle import (
    Oracle,
    OracleClassifier,
    OraclePredictor,
    check_guess,
    check_predictions,
)
from router_worker.oracles.place import Place
from router_worker.oracles.shared import Shared
from router_worker.oracles.similar import Similar

logger = logging.getLogger("modelyard.router")

BUILTIN_FOLDER: Final = Path(__file__).parents[1] / "models" / "builtin"
LOOK_EVERY_S: Final = 1.0
"""How often it is looked whether a folder changed."""

MOST_TOLD: Final = 20
"""A longer list of names is no hint."""


class Shelf:
    """The models of a catalog, whose paths are seen from the folder `base`.

    Nothing is read before `knowledge` is asked for. `shared` gives the guesses of all routers, used
    where a route says so. `clock` is in seconds. Not for threads.
    """

    def __init__(
        self,
        base: Path,
        catalog: Catalog,
        *,
        builtin: Path = BUILTIN_FOLDER,
        shared: Callable[[], Shared] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = base
        self._catalog = catalog
        self._embedders: dict[str, Embedder] = {}
        self._strangers: dict[str, list[str]] = {}
        self._clock = clock
        self._looked = -math.inf
        self._knowledge = Knowledge()
        self._caches = caches(catalog, lambda route: route.classifier)
        sharing = any(cache.shared for cache in self._caches.values())
        self._shared = shared() if shared is not None and sharing else None
        self.classifiers: dict[str, Place[Guess]] = {}
        for name, cache in self._caches.items():
            folder = builtin if name == BUILTIN else base / Path(name).expanduser()
            what = f"classifier {name!r}"
            read = partial(self._classifier, name, what, cache)
            self.classifiers[name] = Place(what, folder, read)
        self.predictors: dict[str, Place[Mapping[str, float]]] = {}
        for name, cache in caches(catalog, lambda route: route.predictor).items():
            what = f"predictor {name!r}"
            read_it = partial(self._predictor, name, what, cache)
            self.predictors[name] = Place(what, base / Path(name).expanduser(), read_it)

    @property
    def failures(self) -> int:
        """How often models failed to answer."""
        return sum(place.failures for place in self._places)

    @property
    def is_sharing(self) -> bool:
        """Whether `ahead` and `share` do anything."""
        return self._shared is not None

    def knowledge(self, seen: Seen | None = None) -> Knowledge:
        """Return the models in use, with what was seen. Changed folders are read now and then."""
        now = self._clock()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._look()
        return self._knowledge if seen is None else self._knowledge.having(seen)

    def ahead(self, payloads: Iterable[Any]) -> None:
        """Learn what other routers found out about these requests, where it is shared.

        `payloads` are requests as JSON; what is none is passed over. One question to Redis for each
        classifier, and none for what is known here.
        """
        if self._shared is None:
            return
        unknown: dict[str, set[str]] = {}
        for payload in payloads:
            found = self._unknown(payload)
            if found is not None:
                unknown.setdefault(found[0], set()).add(found[1])
        for name, texts in unknown.items():
            loaded = self.classifiers[name].loaded
            if loaded is not None:
                for text, guess in self._shared.read(loaded.version, sorted(texts)).items():
                    loaded.oracle.cache.put(text, guess)

    def share(self) -> None:
        """Tell other routers what was found out since the last time, where it is shared."""
        if self._shared is None:
            return
        for name, place in self.classifiers.items():
            if place.loaded is not None and place.loaded.oracle.news:
                news, place.loaded.oracle.news = place.loaded.oracle.news, {}
                self._shared.write(place.loaded.version, news, self._caches[name].ttl_s)

    def report(self) -> dict[str, Any]:
        """Return how each model is, as JSON."""
        return {
            "classifiers": {name: place.report() for name, place in self.classifiers.items()},
            "predictors": {name: place.report() for name, place in self.predictors.items()},
        }

    def complaints(self) -> list[str]:
        """Return in words which models can't be used, and what of the routes they do not know."""
        self.knowledge()
        return [
            *(f"{place.what}: {place.problem}" for place in self._places if place.problem),
            *(told for every in self._strangers.values() for told in every),
        ]

    @property
    def _places(self) -> tuple[Place[Any], ...]:
        return (*self.classifiers.values(), *self.predictors.values())

    def _look(self) -> None:
        for place in self._places:
            place.look()
        self._knowledge = Knowledge(
            classifiers={
                name: OracleClassifier(place.loaded.oracle)
                for name, place in self.classifiers.items()
                if place.loaded is not None
            },
            predictors={
                name: OraclePredictor(place.loaded.oracle)
                for name, place in self.predictors.items()
                if place.loaded is not None
            },
        )

    def _unknown(self, payload: Any) -> tuple[str, str] | None:
        """Return which classifier others may have asked what, if it is not known here."""
        try:
            request = Request.decode(payload)
        except (ValueError, TypeError):
            return None  # it will be refused, with the reason, when its turn comes
        route = self._catalog.routes.get(request.route)
        if route is None or route.classifier is None or request.models:
            return None
        loaded = self.classifiers[route.classifier].loaded
        if loaded is None or not self._caches[route.classifier].shared:
            return None
        text = normal(features(request).text)
        return None if text in loaded.oracle.cache else (route.classifier, text)

    def _classifier(self, name: str, what: str, cache: Cache, model: Model) -> Oracle[Guess]:
        embedder = self._embedder(name) if wants_embeddings(model) else None
        classifier = IntentClassifier.of(model, embedder)
        self._strangers[what] = [
            told
            for route_name, route in self._catalog.routes.items()
            if route.classifier == name
            and (told := strangers(route_name, route, classifier.labels)) is not None
        ]
        for told in self._strangers[what]:
            logger.warning("%s", told)
        return Oracle(
            what,
            classifier.classify,
            check_guess,
            cache=Kept(cache.entries),
            similar=None if cache.similar is None else Similar(cache.similar),
            tell=self._shared is not None and cache.shared,
            clock=self._clock,
        )

    def _embedder(self, classifier: str) -> Embedder | None:
        """Return what routes name for a classifier, read once: models come and go more often."""
        routes = self._catalog.routes.values()
        place = next(route.embeddings for route in routes if route.classifier == classifier)
        if place is not None and place not in self._embedders:
            self._embedders[place] = open_embedder(place, self._base)
        return None if place is None else self._embedders[place]

    def _predictor(
        self, name: str, what: str, cache: Cache, model: Model
    ) -> Oracle[Mapping[str, float]]:
        part = model.part("quality")
        try:
            predictor = QualityPredictor.from_part(part.meta, part.arrays)
        except ValueError as error:
            raise part.error(str(error)) from error
        self._strangers[what] = [
            told
            for route_name, route in self._catalog.routes.items()
            if route.predictor == name
            for told in unpredicted(route_name, route, predictor.models, self._catalog)
        ]
        for told in self._strangers[what]:
            logger.warning("%s", told)
        kept: Kept[Mapping[str, float]] = Kept(cache.entries)
        # It goes by capitals and by the lengths of lines: each text stands for itself.
        return Oracle(
            what, predictor.predict, check_predictions, form=str, cache=kept, clock=self._clock
        )


def caches(catalog: Catalog, name_in: Callable[[Route], str | None]) -> dict[str, Cache]:
    """Return for each model that routes name what may be remembered of it."""
    wishes: dict[str, list[Cache]] = {}
    for route in catalog.routes.values():
        name = name_in(route)
        if name is not None:
            wishes.setdefault(name, []).append(route.cache)
    return {name: strictest(each) for name, each in wishes.items()}


def strictest(wishes: Iterable[Cache]) -> Cache:
    """Return to what all routes with one model can agree.

    Similar to one of them is similar to all; but room and sharing change nothing for the others.
    """
    agreed, *others = wishes
    for wish in others:
        both = agreed.similar is not None and wish.similar is not None
        agreed = Cache(
            entries=max(agreed.entries, wish.entries),
            similar=max(agreed.similar or 0.0, wish.similar or 0.0) if both else None,
            shared=agreed.shared or wish.shared,
            ttl_s=min(agreed.ttl_s, wish.ttl_s),
        )
    return agreed


def strangers(name: str, route: Route, labels: Sequence[str]) -> str | None:
    """Return what to say where a route has places for intents that its classifier does not know."""
    unknown = [intent for intent in route.intents if intent not in labels]
    if not unknown:
        return None
    near = suggestion(unknown[0], labels) if len(labels) <= MOST_TOLD else ""
    return f"route {name!r}: its classifier knows no intent {', '.join(map(repr, unknown))}{near}"


def unpredicted(
    name: str, route: Route, predicted: Sequence[str], catalog: Catalog
) -> Iterator[str]:
    """Yield what to say where a route's predictor has other names for models than the route."""
    wrong = [each for each in route.predicts if each not in predicted]
    if wrong:
        near = suggestion(wrong[0], predicted) if len(predicted) <= MOST_TOLD else ""
        known = ", ".join(map(repr, wrong))
        yield f"route {name!r}: predicts has {known}, which its predictor does not know{near}"
    names = {route.predicts.get(each, each) for each in predicted}
    nobody = sorted(names - {model.name for model in catalog.models})
    called = {each for target in route.targets for each in target.models}
    without = [
        model.name
        for model in catalog.models
        if model.name in called - names and not model.is_people
    ]
    # One that was trained on more models than are here is as it should be.
    if nobody and without:
        yield (
            f"route {name!r}: its predictor says nothing of {', '.join(map(repr, without))}, whose "
            f"quality is the catalog's; it knows {', '.join(map(repr, nobody[:MOST_TOLD]))}, which "
            "are no models here: say in predicts which they are"
        )
