"""What a router decides by. All of it belongs to one catalog, and a changed one brings all anew."""

import threading
from functools import partial
from typing import Any

import redis

from modelyard.catalog import Catalog
from modelyard.connect import connect
from modelyard.settings import Settings
from router_worker.experiments.watch import Seen, Watch, asks
from router_worker.knowledge import Knowledge
from router_worker.oracles.shared import Shared
from router_worker.oracles.shelf import Shelf
from router_worker.rules import prepare
from router_worker.spending import Spending
from router_worker.stranded import Stranded
from router_worker.sweep import Sweeper


class Basis:
    """A catalog, its learned models, what is seen and spent, and who sweeps its inbox.

    `url` is the broker's. `seen` is what is known until the ledger was read, and `asked` whether a
    request asked for it. `former`: the models of earlier catalogs.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        url: str,
        *,
        seen: Seen | None = None,
        asked: bool = False,
        former: frozenset[str] = frozenset(),
    ) -> None:
        self.catalog = catalog
        self.shelf = Shelf(settings.catalog_path.parent, catalog, shared=partial(Shared.at, url))
        self._watch = Watch(catalog, partial(open_redis, url, 10.0))
        if seen is not None:
            self._watch.seen = seen
        self._asked = asked
        self._spending = Spending(catalog, partial(open_redis, url, 2.0))
        people = tuple(model.name for model in catalog.models if model.is_people)
        self._models = former.union(model.name for model in catalog.models)
        stranded = Stranded(catalog, settings, self._models)
        self._sweeper = Sweeper(people, partial(open_redis, url, 10.0), settings, stranded=stranded)
        self._next = partial(Basis, settings=settings, url=url)

    def knowledge(self) -> Knowledge:
        """Return what was learned and what was seen, as of now."""
        return self._spending.added(self.shelf.knowledge(self._watch.seen))

    def heed(self, payload: Any, expires: float | None) -> None:
        """Follow the ledger from soon after the first request that was forwarded and is decided by
        it: most yards have none, and reading along costs a router a share of each request."""
        if not self._asked and asks(payload, expires):
            self._asked = True
            self._watch.start(asked=True)

    def start(self) -> None:
        """Make all ready: no request waits for a pattern to be compiled, or a model to be read."""
        for route in self.catalog.routes.values():
            prepare(route)
        self.shelf.knowledge()
        self._watch.start(asked=self._asked)
        self._sweeper.start()

    def stop(self) -> None:
        """End its threads."""
        self._watch.stop()
        self._sweeper.stop()

    def followed_by(self, catalog: Catalog) -> "Basis":
        """Return the one for a changed catalog, started, in place of this one.

        What was seen goes along: an experiment that was taken back must not be tried for a moment.
        What waits for a model that is gone is looked after.
        """
        basis = self._next(catalog, seen=self._watch.seen, asked=self._asked, former=self._models)
        basis.start()
        # A thread that waits for Redis ends late, and requests don't wait for that.
        threading.Thread(target=self.stop, name="stop", daemon=True).start()
        return basis


def open_redis(url: str, timeout_s: float) -> redis.Redis:
    """Return a connection to the broker that gives up after so many seconds."""
    return connect(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
