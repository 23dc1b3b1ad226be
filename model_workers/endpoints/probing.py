"""Asking endpoints whether they live, beside calls: by the model's `probe`, or by knocking.

A knock is a GET that costs nothing, for models without a `probe`, so that an endpoint which comes
back is called before its cooldown ends. It shows only whether somebody is there, and so it counts
only where nobody was before: an endpoint whose calls fail while it answers this waits for its
cooldown.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from model_workers.endpoints.desk import IDLE_S, Desk, Post
from model_workers.endpoints.desks import Desks
from model_workers.providers.over_http import OverHttp
from modelyard import circuit as circuits
from modelyard.catalog import Probe
from modelyard.circuit import Circuit, Reason
from modelyard.errors import FailureKind, ProviderError

SILENCES: Final = 2
"""So many questions without an answer, one after the other, and an endpoint is left alone."""

FIRST_KNOCK_S: Final = 1.0
LONGEST_KNOCK_S: Final = 5.0
KNOCK_GROWTH: Final = 1.25
"""The wait before the first knock, the longest between two, and how it grows."""

KNOCK_PATH: Final = "/models"
"""Any answer is one: that there is no such page, too."""


class Prober:
    """Asks the endpoints of the models that are called. Lives on one event loop.

    `changed` is told of an endpoint and the circuit that it had before.
    """

    def __init__(
        self,
        desks: Desks,
        *,
        now: Callable[[], float],
        draw: Callable[[], float],
        changed: Callable[[Desk, Post, Circuit], None],
    ) -> None:
        self._desks = desks
        self._now = now
        self._draw = draw
        self._changed = changed
        self._knocking: dict[Post, asyncio.Task[None]] = {}

    def see_to(self, desk: Desk) -> None:
        """See to it that the endpoints of a model that is called are probed, or knocked at where
        they fail.
        """
        loop = asyncio.get_running_loop()
        if desk.model.probe is not None:
            if desk.probing is None or desk.probing.done():
                desk.probing = loop.create_task(self._keep_probing(desk))
            return
        for post in desk.posts:
            if fails(post) and post not in self._knocking:
                task = loop.create_task(self._keep_knocking(desk, post))
                self._knocking[post] = task
                task.add_done_callback(lambda _, post=post: self._knocking.pop(post, None))  # type: ignore[misc]

    # -- with a probe

    async def _keep_probing(self, desk: Desk) -> None:
        """Ask a model's endpoints whether they live, until nobody calls it any more."""
        while self._desks.get(desk.model.name) is desk:
            probe = desk.model.probe
            if probe is None:
                return
            await asyncio.sleep(probe.every_s * circuits.spread(self._draw()))
            if desk.called_at < self._now() - IDLE_S:
                return
            await asyncio.gather(*(self._probe(desk, post, probe) for post in desk.posts))

    async def _probe(self, desk: Desk, post: Post, probe: Probe) -> None:
        if not isinstance(post.line.provider, OverHttp):
            return
        started_at, before = self._now(), post.circuit
        failure = await self._asked(desk, post, probe.path)
        now = self._now()
        if failure is None:
            post.silences = 0
            # What is at its limit, or wants another key for calls, answers this all the same.
            if fails(post):
                breaker = desk.model.breaker
                post.becomes(circuits.answered(post.circuit, breaker, started_at, now), now)
        else:
            post.silences += failure is FailureKind.RETRYABLE
            if failure is FailureKind.DENIED:
                wait_s = desk.model.breaker.denied_s
                post.becomes(circuits.opened(post.circuit, Reason.DENIED, wait_s, now), now)
            elif post.silences >= SILENCES:
                # Until the next ones had their say.
                wait_s = SILENCES * probe.every_s
                post.becomes(circuits.opened(post.circuit, Reason.FAILING, wait_s, now), now)
        self._changed(desk, post, before)

    # -- without one

    async def _keep_knocking(self, desk: Desk, post: Post) -> None:
        """Knock until it answers calls again, or nobody calls the model any more."""
        wait_s, silent, in_vain = FIRST_KNOCK_S, False, 0.0
        while True:
            await asyncio.sleep(wait_s * circuits.spread(self._draw()))
            now, before = self._now(), post.circuit
            if not fails(post) or post.retired or desk.called_at < now - IDLE_S:
                return
            # Calls may try it by now, or it answered knocks while it failed: they tell nothing.
            if not before.is_open(now) or before.until == in_vain:
                continue
            if await self._asked(desk, post, KNOCK_PATH) is FailureKind.RETRYABLE:
                silent, wait_s = True, min(LONGEST_KNOCK_S, KNOCK_GROWTH * wait_s)
            elif not silent:
                in_vain = before.until
            elif post.circuit == before:
                now, silent, wait_s = self._now(), False, FIRST_KNOCK_S
                post.circuit = replace(before, until=now)
                # What others said of it before is no news.
                post.closed_at = now
                self._changed(desk, post, before)

    async def _asked(self, desk: Desk, post: Post, path: str) -> FailureKind | None:
        """Ask an endpoint for `path`, and return what is wrong with it, if anything is.

        One that can't be asked is taken to be well.
        """
        line = post.line
        if not isinstance(line.provider, OverHttp):
            return None
        try:
            with self._desks.using(desk, line):
                await line.provider.probe(path)
        except ProviderError as error:
            return error.kind
        return None

    async def aclose(self) -> None:
        """Stop."""
        probing = [desk.probing for desk in self._desks if desk.probing is not None]
        tasks = [*probing, *self._knocking.values()]
        for each in tasks:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks)


def fails(post: Post) -> bool:
    """Return whether an endpoint is left alone for its failures."""
    return not post.circuit.is_closed and post.circuit.why is Reason.FAILING
