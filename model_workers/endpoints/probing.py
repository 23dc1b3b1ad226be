"""Asking endpoints whether they live, beside calls, where their model has a `probe`."""

import asyncio
from collections.abc import Callable
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


class Prober:
    """Probes the endpoints of the models that are called. Lives on one event loop.

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

    def see_to(self, desk: Desk) -> None:
        """See to it that the endpoints of a model that is called are probed."""
        if desk.model.probe is not None and (desk.probing is None or desk.probing.done()):
            desk.probing = asyncio.get_running_loop().create_task(self._keep_probing(desk))

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
        line = post.line
        if not isinstance(line.provider, OverHttp):
            return
        started_at, before = self._now(), post.circuit
        try:
            with self._desks.using(desk, line):
                await line.provider.probe(probe.path)
        except ProviderError as error:
            now = self._now()
            post.silences += error.kind is FailureKind.RETRYABLE
            if error.kind is FailureKind.DENIED:
                wait_s = desk.model.breaker.denied_s
                post.becomes(circuits.opened(post.circuit, Reason.DENIED, wait_s, now), now)
            elif post.silences >= SILENCES:
                # Until the next ones had their say.
                wait_s = SILENCES * probe.every_s
                post.becomes(circuits.opened(post.circuit, Reason.FAILING, wait_s, now), now)
        else:
            post.silences = 0
            # What is at its limit, or wants another key for calls, answers this all the same.
            if not post.circuit.is_closed and post.circuit.why is Reason.FAILING:
                now = self._now()
                breaker = desk.model.breaker
                post.becomes(circuits.answered(post.circuit, breaker, started_at, now), now)
        self._changed(desk, post, before)

    async def aclose(self) -> None:
        """Stop."""
        probing = [desk.probing for desk in self._desks if desk.probing is not None]
        for each in probing:
            each.cancel()
        if probing:
            await asyncio.wait(probing)
