"""Who makes an answer while others wait for it: `AnswerCache`.

In a process one of those that want the same answer looks for it in Redis, and the others wait for
what that one finds, or makes. Whoever makes it holds the lease on its key. The lease is the
request's: a worker that was killed leaves it to whoever gets its message, or it runs out.

Two that made nothing that can be kept are enough: then nobody waits any more, and all call. So a
model that is down, or whose answers are never accepted, costs those who wait two calls' time, and
not one after the other.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from model_workers.answer_cache.embeddings import Embed, NoEmbeddings, open_embeddings, vector_of
from model_workers.answer_cache.entry import Entry, Kept, Likeness, as_hit
from model_workers.answer_cache.prompts import Floats, Prompts
from model_workers.answer_cache.store import Store
from model_workers.aside import aside
from modelyard.messages import Draft

logger = logging.getLogger("modelyard.cache")

IN_VAIN: Final = 2
"""After so many that made no answer to keep, nobody waits for another one."""

FIRST_LOOK_S: Final = 0.05
LAST_LOOK_S: Final = 0.5
"""How often one in each process looks for an answer that is made elsewhere."""

OPEN_S: Final = 30.0
EMBED_S: Final = 2.0
"""Embeddings that take longer, to load or for a prompt, are not waited for ..."""

DEAF_S: Final = 60.0
"""... and for so long not asked again, as those that fail."""


@dataclass(slots=True, eq=False)
class Turn:
    """One request at the cache. `hit`: its answer, if there is one; else it is to be made."""

    id: str = ""
    hit: Draft | None = None
    made: Draft | None = None
    moves_on: bool = False
    leads: bool = False
    vector: Floats | None = None

    def keep(self, draft: Draft) -> None:
        """Say that this is the answer."""
        self.made = draft

    def move_on(self) -> None:
        """Say that the answer is made, and goes elsewhere to be accepted: others go on waiting."""
        self.moves_on = True


Found = tuple[Kept, float | None]
"""An answer, and how similar its prompt is, None if it is the same."""


@dataclass(slots=True)
class Flight:
    """Those in this process that want the same answer. `first` looks for it, or makes it.

    `landed` is what the first one found; None if it left without an answer.
    """

    members: int = 0
    first: Turn | None = None
    in_vain: int = 0
    landed: "asyncio.Future[Found | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def land(self, found: Found | None) -> None:
        """Tell those who wait, and let the next one be first."""
        self.first = None
        self.landed.set_result(found)
        self.landed = asyncio.get_running_loop().create_future()


class AnswerCache:
    """The answers that the calls of one process find and leave. Lives on one event loop.

    `base` is the folder from which those of embeddings are seen; `clock` is in seconds since the
    epoch.
    """

    def __init__(
        self, store: Store, base: Path = Path(), *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._base = base
        self._clock = clock
        self._flights: dict[str, Flight] = {}
        self._leases: dict[str, str] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._prompts = Prompts()
        self._embeds: dict[str, Embed] = {}
        self._deaf: dict[str, float] = {}
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def turn(
        self, entry: Entry | None, id: str, deadline: float | None = None, *, resumes: bool = False
    ) -> AsyncIterator[Turn]:
        """Give what there is for request `id`, waiting for who makes it up to the `deadline`.

        Without an `entry` there is nothing. Who `resumes` has its answer, which moved on here.
        """
        turn = Turn(id)
        if entry is None:
            yield turn
            return
        flight = self._flights.get(entry.key)
        if flight is None:
            flight = self._flights[entry.key] = Flight()
        flight.members += 1
        try:
            if resumes:
                await self._resume(flight, entry, turn)
            else:
                found = await self._seek(flight, entry, turn, deadline)
                turn.hit = as_hit(*found) if found is not None else None
            yield turn
            if turn.made is not None:
                await self._keep(flight, entry, turn, turn.made)
        finally:
            self._leave(flight, entry, turn)

    async def _seek(
        self, flight: Flight, entry: Entry, turn: Turn, deadline: float | None
    ) -> Found | None:
        """Return the answer, or None: then this one makes it."""
        while not self._is_late(deadline):
            if flight.in_vain >= IN_VAIN:
                kept = await self._store.find(entry.key)
                return None if kept is None else (kept, None)
            if flight.first is None:
                flight.first = turn
                found = await self._look(flight, entry, turn, deadline)
                if found is not None:
                    flight.land(found)
                return found
            left = None if deadline is None else deadline - self._clock()
            await asyncio.wait([landed := flight.landed], timeout=left)
            if landed.done() and (found := landed.result()) is not None:
                return found
        return None

    async def _look(
        self, flight: Flight, entry: Entry, turn: Turn, deadline: float | None
    ) -> Found | None:
        """Return the answer as soon as it is in Redis; None if this one is to make it."""
        seen, pause_s = "", FIRST_LOOK_S
        while True:
            there = await self._store.take(entry.key, turn.id)
            if isinstance(there, Kept):
                return there, None
            if seen and there != seen:
                flight.in_vain += 1
            if there is None or there == turn.id:
                self._lead(entry, turn, leased=there is not None)
                return await self._similar(entry.likeness, turn)
            if flight.in_vain >= IN_VAIN or self._is_late(deadline):
                return None
            seen = there
            left = LAST_LOOK_S if deadline is None else max(0.0, deadline - self._clock())
            await asyncio.sleep(min(pause_s, left))
            pause_s = min(2 * pause_s, LAST_LOOK_S)

    async def _resume(self, flight: Flight, entry: Entry, turn: Turn) -> None:
        if flight.first is None:
            flight.first = turn
        # The lease is this request's still, or nobody's, or somebody took its place.
        if await self._store.take(entry.key, turn.id) == turn.id:
            self._lead(entry, turn, leased=True)

    def _lead(self, entry: Entry, turn: Turn, *, leased: bool) -> None:
        turn.leads = True
        if leased:
            self._leases[entry.key] = turn.id
            if self._keeping is None or self._keeping.done():
                self._keeping = asyncio.get_running_loop().create_task(self._keep_leases())

    async def _keep_leases(self) -> None:
        """Renew all leases of this process, in one round trip."""
        while self._leases:
            await asyncio.sleep(self._store.lease_s / 3)
            if self._leases:
                await self._store.renew(dict(self._leases))

    async def _keep(self, flight: Flight, entry: Entry, turn: Turn, draft: Draft) -> None:
        if entry.likeness is not None and turn.vector is None:
            turn.vector = await self._vector(entry.likeness)
        await self._store.put(entry, turn.id, draft, turn.vector)
        flight.in_vain = 0
        if flight.first is turn or flight.first is None:
            flight.land((Kept(of=turn.id, draft=draft), None))

    def _leave(self, flight: Flight, entry: Entry, turn: Turn) -> None:
        if self._leases.get(entry.key) == turn.id:
            del self._leases[entry.key]
            if turn.moves_on:
                # Renewed to its whole length: who takes the message goes on from there.
                self._later(self._store.renew({entry.key: turn.id}))
            elif turn.made is None:
                self._later(self._store.let_go(entry.key, turn.id))
        if flight.first is turn:
            if turn.leads and turn.made is None and turn.hit is None and not turn.moves_on:
                flight.in_vain += 1
            flight.land(None)
        flight.members -= 1
        if not flight.members and self._flights.get(entry.key) is flight:
            del self._flights[entry.key]

    def _later(self, act: Coroutine[Any, Any, None]) -> None:
        """Do it without waiting: whoever leaves may have been cancelled."""
        task = asyncio.get_running_loop().create_task(act)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _is_late(self, deadline: float | None) -> bool:
        return deadline is not None and self._clock() >= deadline

    # -- what is similar

    async def _similar(self, likeness: Likeness | None, turn: Turn) -> Found | None:
        """Return the answer to the prompt that is most like this one."""
        if likeness is None:
            return None
        turn.vector = await self._vector(likeness)
        if turn.vector is None:
            return None
        group = self._prompts.group(likeness.group)
        await self._store.read(likeness.group, group)
        for key, cosine in group.like(turn.vector, likeness.floor):
            kept = await self._store.find(key)  # what is in the group may be over by now
            if kept is not None:
                return kept, min(1.0, cosine)
        return None

    async def _vector(self, likeness: Likeness) -> Floats | None:
        """Return the vector of a prompt; None if there is none to be had."""
        place = likeness.embeddings
        if self._clock() < self._deaf.get(place, 0.0):
            return None
        try:
            async with self._opening:
                if place not in self._embeds:
                    opened = await aside(OPEN_S, open_embeddings, place, self._base)
                    self._embeds[place] = opened
            return await aside(EMBED_S, vector_of, self._embeds[place], place, likeness.words)
        except (NoEmbeddings, TimeoutError) as error:
            why = str(error) or f"embeddings {place}: too slow"
            logger.warning("%s; for %g s only the same requests are found", why, DEAF_S)
            self._deaf[place] = self._clock() + DEAF_S
            return None

    async def aclose(self) -> None:
        """Give leases back and close the connection."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None
        if self._leaving:
            await asyncio.wait(self._leaving)
        self._leases.clear()
        await self._store.aclose()
