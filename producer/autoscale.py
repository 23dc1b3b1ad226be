"""Sizing the pools of a yard on this machine: what is read now and then, and what follows from it.

Redis is read in a thread: one that hangs must not hold up the supervision. Processes are started
and ended by the yard's own thread, which alone may (see `modelyard.processes`).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from modelyard.catalog import Catalog
from modelyard.errors import ModelyardError
from modelyard.wording import counted
from producer.children import ChildSpec
from producer.scale_numbers import BATCH_SHARE, Numbers, read_numbers, rule_of
from producer.scaling import Load, Rule, State, begun, resized, seen, wanted

log = logging.getLogger("modelyard.yard")

READ_EVERY_S: Final = 1.0

Reading = Callable[[], Mapping[str, Numbers]]


class Pools(Protocol):
    """The processes, by name: `producer.children.Children`."""

    def names(self) -> frozenset[str]:
        """Return the names that are taken, also by those that end."""
        ...

    def add(self, spec: ChildSpec) -> None:
        """Start one more."""
        ...

    def retire(self, name: str) -> None:
        """Have one finish what it has and end."""
        ...


@dataclass(frozen=True, slots=True)
class Scale:
    """How far pools may grow, and why: nothing should wait longer than `max_wait_s` in a queue, and
    what has a deadline should be called before it. `batch_share` is what workers give the batch
    lane.

    After `cooldown_s` with less to do they shrink.
    """

    catalog: Catalog
    max_processes: int
    max_wait_s: float = 10.0
    cooldown_s: float = 30.0
    batch_share: float = BATCH_SHARE

    def reading(self, url: str) -> Reading:
        """Return what reads the numbers from the Redis at `url`."""
        return partial(read_numbers, url, self.catalog, self.max_wait_s, self.batch_share)


@dataclass(frozen=True, slots=True)
class Pool:
    """A model's pool as it may grow: its rule, and how its process of a number is run."""

    model: str
    rule: Rule
    spec: Callable[[int], ChildSpec]


def pools_of(
    scale: Scale, processes: int, spec: Callable[[str, int], ChildSpec]
) -> tuple[Pool, ...]:
    """Return the pools of the models that can be called, which begin with so many `processes`."""
    return tuple(
        Pool(
            model.name,
            replace(
                rule_of(model, scale.max_wait_s),
                at_least=processes,
                at_most=max(processes, scale.max_processes),
                cooldown_s=scale.cooldown_s,
            ),
            partial(spec, model.name),
        )
        for model in scale.catalog.live_models
    )


def changed(model: str, before: int, size: int, load: Load) -> str:
    """Return what becomes of a pool and why, for logs and people."""
    return (
        f"{model}: {counted(size, 'process', 'processes')}, {before} before: "
        f"{load.queued:,} {'waits' if load.queued == 1 else 'wait'}, "
        f"{load.in_flight:,} in flight{first(load)}"
    )


def first(load: Load) -> str:
    """Return when the first deadline is of what waits, for logs."""
    due = [each.in_s for each in load.due if each.in_s > 0.0]
    return f", the first deadline in {min(due):.0f} s" if due else ""


class Reader:
    """Reads the numbers again and again in a thread. `take` gives each reading once."""

    def __init__(self, read: Reading, every_s: float = READ_EVERY_S) -> None:
        self._read = read
        self._every_s = every_s
        self._ended = threading.Event()
        self._latest: Mapping[str, Numbers] | None = None
        self._away = False
        self._thread = threading.Thread(target=self._run, name="autoscale", daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def reads(self, read: Reading) -> None:
        """Read this from now on."""
        self._read = read

    def take(self) -> Mapping[str, Numbers] | None:
        """Return what was read since the last time, or None."""
        latest, self._latest = self._latest, None
        return latest

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._latest = self._read()
                self._away = False
            except ModelyardError as error:
                # Without numbers the pools stay as they are.
                if not self._away:
                    log.warning("the pools keep their size: %s", error)
                self._away = True


class Autoscaler:
    """Grows and shrinks pools. Each begins with its rule's least, as numbers from 1.

    `notice` gets a line when one has another size.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        children: Pools,
        *,
        notice: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = children
        self._notice = notice
        self._clock = clock
        self._pools: dict[str, Pool] = {}
        self._states: dict[str, State] = {}
        self._running: dict[str, list[int]] = {}
        self.size(pools)

    def size(self, pools: Sequence[Pool]) -> None:
        """Size these, too: new ones, and those that have another rule now."""
        for pool in pools:
            self._pools[pool.model] = pool
            state = self._states.get(pool.model)
            if state is None:
                least = pool.rule.at_least
                self._states[pool.model] = begun(pool.rule, least, self._clock())
                self._running[pool.model] = list(range(1, least + 1))
            else:
                self._states[pool.model] = replace(state, rule=pool.rule)

    def apply(self, numbers: Mapping[str, Numbers]) -> None:
        """Make the pools as large as these numbers want them."""
        now = self._clock()
        for model, pool in self._pools.items():
            if model not in numbers:
                continue
            load = numbers[model].load
            state = seen(self._states[model], load, now)
            size = wanted(state, now)
            if size != state.processes:
                line = changed(model, state.processes, size, load)
                log.info("%s", line)
                self._notice(line)
            self._resize(pool, size)
            self._states[model] = resized(state, size, now)

    def _resize(self, pool: Pool, size: int) -> None:
        running = self._running[pool.model]
        while len(running) > size:
            # The newest: those with low numbers stay, and with them their logs.
            self._children.retire(pool.spec(running.pop()).name)
        while len(running) < size:
            number = next(self._free(pool))
            self._children.add(pool.spec(number))
            running.append(number)
            running.sort()

    def _free(self, pool: Pool) -> Iterator[int]:
        """Yield the numbers that nobody has: a process that ends has its name until it has."""
        taken = self._children.names()
        number = 1
        while True:
            if pool.spec(number).name not in taken:
                yield number
            number += 1
