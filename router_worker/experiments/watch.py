"""What a router learns from the ledger while it runs: how long models take, how experiments go.

A thread follows the stream of decisions. It takes back an experiment whose treatment breaks a bound
of its rollback, and sees what others took back. Routing reads the last thing it said and never
waits for it: without Redis, or without the thread, all goes on with what was known.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import redis

from modelyard.catalog import Catalog
from modelyard.decision_ledger import BEGIN, PAGE, Entry, begin, follow, is_after
from modelyard.redis_errors import passes
from modelyard.routes import Experiment
from modelyard.standings import Standing, read_standings, stand, standings
from router_worker.experiments.trial import Trial
from router_worker.observed import Observed, Observer

logger = logging.getLogger("modelyard.experiments")

POLL_S: Final = 0.5
"""How often the ledger is looked at."""
BREATH_S: Final = 0.01
"""Between two pages of a ledger that is behind: requests come first."""
LAST_WAIT_S: Final = 5.0
"""How long a Redis that is away is left alone, at most."""
MEMORY_S: Final = 86_400.0
"""How much of the ledger is read at the start where no experiment needs all of it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was learned by one moment."""

    observed: Observed = field(default_factory=Observed)
    taken_back: frozenset[str] = frozenset()


def experiments(catalog: Catalog) -> dict[str, Experiment]:
    """Return the experiments of all routes by name.

    Of two with one name in two routes the first is tested; taking it back takes back both.
    """
    found: dict[str, Experiment] = {}
    for route in catalog.routes.values():
        for each in route.experiments:
            found.setdefault(each.name, each)
    return found


def is_needed(catalog: Catalog) -> bool:
    """Return whether deciding by this catalog asks for anything that is learned here."""
    return bool(experiments(catalog)) or weighs(catalog)


def weighs(catalog: Catalog) -> bool:
    """Return whether its routes choose by what calls take and how long answers are."""
    return any(
        target.choose == "cheapest"
        or target.max_latency_s is not None
        or target.max_cost_usd is not None
        for route in catalog.routes.values()
        for target in route.targets
    )


def asks(payload: Any, expires: float | None = None) -> bool:
    """Return whether a request itself is decided by what is learned here, whatever the catalog.

    It has a limit on seconds or dollars, or a deadline; `expires` is when its message does. The
    payload may be anything.
    """
    if not isinstance(payload, dict):
        return False
    if expires is not None or payload.get("deadline") is not None:
        return True
    limits = payload.get("limits")
    return isinstance(limits, dict) and any(
        limits.get(name) is not None for name in ("max_latency_s", "max_cost_usd")
    )


class Progress:
    """The ledger as far as it was read, for the experiments of one catalog. Not for threads."""

    def __init__(self, catalog: Catalog, client: redis.Redis) -> None:
        self._client = client
        self.trials = {name: Trial(each) for name, each in experiments(catalog).items()}
        self.standings: dict[str, Standing] = {}
        self.observer = Observer()
        self._stored: dict[str, bytes] = {}
        self._last: str | None = None
        self._now = 0.0
        self._after: dict[str, str] = {}
        self.unreadable = 0

    def read(self, now: float) -> bool:
        """Read how experiments stand and one page of the ledger; return whether there may be more.

        Where requests come all the time there is always an entry, and only a full page says that
        reading is behind. `now` is in seconds since the epoch. Raises `redis.RedisError`: it goes
        on where it was.
        """
        self._read_standings()
        self._now = now
        if self._last is None:
            self._last = BEGIN if self.trials else begin(now - MEMORY_S)
        entries, last = follow(self._client, self._last)
        for id, entry in entries:
            if entry is None:
                self.unreadable += 1
            else:
                self.observer.add(entry)
                self._try(id, entry)
        self._last = last
        return len(entries) == PAGE

    def seen(self) -> Seen:
        """Return what was learned so far, as of the last reading."""
        return Seen(self.observer.observed(self._now), self.taken_back())

    def taken_back(self) -> frozenset[str]:
        """Return the experiments that are over."""
        return frozenset(name for name, standing in self.standings.items() if standing.is_back)

    def broken(self) -> dict[str, str]:
        """Return why experiments are to be taken back that are not yet."""
        found: dict[str, str] = {}
        for name, trial in self.trials.items():
            standing = self.standings.get(name)
            if (standing is None or not standing.is_back) and (why := trial.verdict()) is not None:
                found[name] = why
        return found

    def take_back(self, name: str, why: str, now: float) -> bool:
        """Take an experiment back; False if somebody else changed how it stands before."""
        standing = Standing(
            state="taken back",
            at=now,
            by="test",
            why=why,
            statistics=self.trials[name].statistics(),
            after=self._after.get(name, BEGIN),
        )
        return stand(self._client, name, standing, self._stored.get(name))

    def _try(self, id: str, entry: Entry) -> None:
        """Let the experiments that an entry tells of have it."""
        for arm in entry.arms:
            trial = self.trials.get(arm.experiment)
            if trial is not None and is_after(id, self._after.get(arm.experiment, BEGIN)):
                trial.add(entry)

    def _read_standings(self) -> None:
        """Read how experiments stand. One that was put in force again begins anew."""
        stored = standings(self._client)
        if stored == self._stored:
            return
        current = read_standings(stored)
        for name, trial in self.trials.items():
            standing = current.get(name)
            after = standing.after if standing else BEGIN
            if after != self._after.get(name, BEGIN):
                self._begin_anew(name, trial.experiment, after)
        self._stored, self.standings = stored, current

    def _begin_anew(self, name: str, experiment: Experiment, after: str) -> None:
        """Forget what came until `after`, and read again what came since."""
        trial, place = Trial(experiment), after
        while self._last is not None and is_after(self._last, place):
            entries, place = follow(self._client, place)
            if not entries:
                break
            for id, entry in entries:
                if entry is not None and not is_after(id, self._last):
                    trial.add(entry)
        self.trials[name], self._after[name] = trial, after


class Watch:
    """Follows the ledger in a thread. `seen` can be read at any time, and costs nothing."""

    def __init__(
        self,
        catalog: Catalog,
        connect: Callable[[], redis.Redis],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.seen = Seen()
        self._catalog = catalog
        self._connect = connect
        self._clock = clock
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, *, asked: bool = False) -> None:
        """Begin to follow, if deciding by the catalog needs it, or a request `asked` for it."""
        if self._thread is None and (asked or is_needed(self._catalog)):
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(LAST_WAIT_S)
            self._thread = None

    def _run(self) -> None:
        wait_s = POLL_S
        with self._connect() as client:
            progress = Progress(self._catalog, client)
            while not self._stopped.is_set():
                try:
                    more = self._step(progress)
                    wait_s = BREATH_S if more else POLL_S
                except Exception as error:
                    # Whatever is wrong with the ledger, routing goes on with what was known.
                    if not passes(error):
                        logger.exception("what is in the ledger can't be learned from")
                        wait_s = LAST_WAIT_S
                    elif wait_s < LAST_WAIT_S:
                        logger.warning("the ledger can't be read, trying again: %s", error)
                    wait_s = min(max(POLL_S, 2 * wait_s), LAST_WAIT_S)
                self._stopped.wait(wait_s)

    def _step(self, progress: Progress) -> bool:
        """Read one page, act on it, and say what is known now; return whether to go on at once."""
        unreadable = progress.unreadable
        behind = more = progress.read(self._clock())
        if progress.unreadable > unreadable:
            count = progress.unreadable - unreadable
            logger.warning("%d entries of the decision ledger can't be read", count)
        for name, why in progress.broken().items():
            if progress.take_back(name, why, self._clock()):
                logger.warning("experiment %s is taken back: %s", name, why)
                more = True  # how it stands now is read at once
        # While it is behind, what it read last is not what calls took lately.
        if behind:
            self.seen = replace(self.seen, taken_back=progress.taken_back())
        else:
            self.seen = progress.seen()
        return more
