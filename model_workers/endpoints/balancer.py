"""Where a call goes: `Balancer` knows the endpoints of all models that this worker calls."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import redis

from model_workers.endpoints.desk import (
    IDLE_S,
    Desk,
    Place,
    Post,
    able,
    expected_tokens,
    learned_scopes,
    tenant_scopes,
    usable,
    view,
)
from model_workers.endpoints.desks import Desks
from model_workers.endpoints.gate import Ask, Gate, Granted
from model_workers.endpoints.learning import hear, refused
from model_workers.endpoints.order import order
from model_workers.endpoints.probing import Prober
from model_workers.endpoints.sharing import Sharing
from model_workers.endpoints.steady import steady
from model_workers.providers.base import Completion
from modelyard import circuit as circuits
from modelyard.catalog import Catalog, Model
from modelyard.circuit import Hold, Reason
from modelyard.errors import ProviderError
from modelyard.messages import Lane, Request
from modelyard.quota import Scope

PATIENCE_S: Final = 5.0
"""For so long a call waits for quota in the worker, in the order in which calls came; for longer
ones it goes back to its queue."""

BATCH_PATIENCE_S: Final = 1.0
"""The batch lane does not get in line so far ahead of the interactive one."""

SMOOTHING: Final = 0.2
"""The weight of the newest answer in the mean of their times."""


class Balancer:
    """Picks the endpoint of each call. Lives on one event loop.

    `connect` opens connections to Redis; without it this worker goes by what it sees itself, and
    keeps quotas alone. `region` is where this worker is. `current` gives the catalog in force.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis] | None = None,
        *,
        process: str = "alone",
        region: str = "",
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = steady,
        current: Callable[[], Catalog] | None = None,
    ) -> None:
        self._region = region
        self._draw = draw
        self._desks = Desks(current)
        self._gate = Gate(connect, process, clock=clock)
        self._sharing = Sharing(
            self._desks, connect, process=process, clock=clock, counted=self._gate.count_workers
        )
        self._prober = Prober(self._desks, now=self.now, draw=draw, changed=self._sharing.changed)

    def now(self) -> float:
        """Return the time in seconds since the epoch, by the Redis server's clock."""
        return self._sharing.now()

    # -- before a call

    async def place(
        self,
        catalog: Catalog,
        model: Model,
        request: Request,
        *,
        avoid: Sequence[str] = (),
        carried: dict[tuple[Any, ...], bool] | None = None,
    ) -> Place | Hold:
        """Return where a call of `request` goes, or for how long none goes anywhere.

        `avoid` are the labels of the endpoints that failed it, one for each time: those that did
        not come before them. `carried` is kept from one question about a request to the next
        (`desk.able`).
        """
        await self._listen(self._desks.of(catalog, model, self.now()))
        while True:
            now = self.now()
            # The catalog may have changed while this waited.
            desk = self._desks.of(catalog, model, now)
            posts = able(desk, request, carried)
            if not posts:
                where = f" is in region {request.limits.region!r}" if desk.posts else ""
                why = f"no endpoint of {model.name}{where or ' can be called'}"
                return Hold(0.0, Reason.DENIED, why)
            well = [post for post in posts if usable(post, desk.model, now)]
            if not well:
                found = circuits.hold([post.circuit for post in posts], now)
                return replace(found, own=True) if len(posts) < len(desk.posts) else found
            if len(well) > 1:
                well = self._ordered(well, desk.model, request, avoid, now)
            taken = await self._take(self._desks.newest(catalog, now), desk, well, request)
            if taken is not None:
                return taken

    def elsewhere(
        self,
        catalog: Catalog,
        model: Model,
        request: Request,
        avoid: Sequence[str],
        carried: dict[tuple[Any, ...], bool] | None = None,
    ) -> bool:
        """Return whether an endpoint that is none of `avoid` can take a call at once. `carried` as
        in `place`.
        """
        now = self.now()
        desk = self._desks.of(catalog, model, now)
        return any(
            post.line.label not in avoid and usable(post, desk.model, now)
            for post in able(desk, request, carried)
        )

    async def _listen(self, desk: Desk) -> None:
        """Wait for the first news of a model, and see to it that more come in."""
        now = self.now()
        if desk.called_at < now - IDLE_S:
            desk.heard.clear()
        desk.called_at = now
        self._prober.see_to(desk)
        await self._sharing.listen(desk)

    def _ordered(
        self, posts: list[Post], model: Model, request: Request, avoid: Sequence[str], now: float
    ) -> list[Post]:
        metadata = request.metadata
        sticky = metadata.get("session") or metadata.get("user") or ""
        views = [view(post, now) for post in posts]
        ranks = order(
            views,
            model.balance,
            sticky=f"{metadata.get('tenant', '')}\0{sticky}" if sticky else "",
            region=self._region,
            draws=[self._draw() for _ in posts],
        )
        ordered = [posts[at] for at in ranks]
        # What failed this very request comes last. A probe comes before what is known to be well:
        # the request has elsewhere to go. Not if it failed before: it must not be used up.
        return sorted(
            ordered,
            key=lambda post: (
                avoid.count(post.line.label),
                post.line.label in avoid[-1:],
                post.circuit.is_closed != bool(avoid),
            ),
        )

    async def _take(
        self, catalog: Catalog, desk: Desk, well: list[Post], request: Request
    ) -> Place | Hold | None:
        """Return what `place` does; None if the endpoint was found to be ill meanwhile, or the
        catalog has it no more.
        """
        batch = request.lane is Lane.BATCH
        own = tenant_scopes(catalog, request)
        common = (*desk.scopes, *own)
        now, tokens = self.now(), 0
        if any(post.learned.tokens for post in well):
            tokens = expected_tokens(desk.model, request)
        candidates = [
            (*common, *post.scopes, *learned_scopes(desk.model, post, tokens, now)) for post in well
        ]
        if not any(candidates):
            return self._placed(desk, well[0], (), 0, batch)
        if not tokens and any(scope.tokens for scopes in candidates for scope in scopes):
            tokens = expected_tokens(desk.model, request)
        patience_s = BATCH_PATIENCE_S if batch else PATIENCE_S
        if request.deadline is not None:
            patience_s = min(patience_s, max(0.0, request.deadline - self.now()))
        answer = await self._gate.take(Ask(tokens, batch, patience_s, candidates))
        if not isinstance(answer, Granted):
            if own and len(desk.scopes) <= answer.scope < len(common):
                tenant = request.metadata.get("tenant")
                why = f"tenant {tenant!r} is at its limit"
                return Hold(answer.wait_s, None, why, own=True, everywhere=True)
            return Hold(answer.wait_s, None, f"{desk.model.name} is at its limit")
        post, scopes = well[answer.candidate], candidates[answer.candidate]
        if post.retired or not usable(post, desk.model, self.now()):
            self._gate.give(scopes, -tokens, batch=batch)
            return None
        place = self._placed(desk, post, scopes, tokens, batch)
        if answer.delay_s:
            try:
                await asyncio.sleep(answer.delay_s)
            except asyncio.CancelledError:
                self.given_up(place)
                raise
            now = place.started_at = self.now()
            ill = post.circuit.is_open(now) or (not post.circuit.is_closed and not place.probing)
            if ill or post.retired:
                self.given_up(place)
                return None
        return place

    def _placed(
        self, desk: Desk, post: Post, scopes: Sequence[Scope], tokens: int, batch: bool
    ) -> Place:
        now = self.now()
        probing = not post.circuit.is_closed
        post.probes += probing
        post.in_flight += 1
        post.line.calls += 1
        post.count(now)
        return Place(desk, post, post.line, scopes, tokens, batch, probing, now)

    # -- after it

    def ended(
        self, place: Place, completion: Completion | None, error: ProviderError | None
    ) -> None:
        """Note how a call ended: with a completion, an error, or neither, if it was given up."""
        if place.over:
            return
        place.over = True
        post, breaker = place.post, place.desk.model.breaker
        post.in_flight -= 1
        post.probes -= place.probing
        now, took = self.now(), 0
        before = post.circuit
        if completion is not None:
            took_s = max(0.0, now - place.started_at)
            known = post.latency_s
            post.latency_s = known + SMOOTHING * (took_s - known) if known else took_s
            post.latency_at = now
            post.becomes(circuits.answered(before, breaker, place.started_at, now), now)
            took = completion.usage.input_tokens + completion.usage.output_tokens
            hear(post, completion.allowance, took, now)
        elif error is not None:
            found = circuits.failed(
                before,
                breaker,
                error.kind,
                started_at=place.started_at,
                now=now,
                draw=self._draw(),
                retry_after_s=error.retry_after_s,
            )
            post.becomes(found, now)
            refused(post, error, now)
        self._sharing.changed(place.desk, post, before)
        self._desks.release(place.desk, place.line)
        if place.scopes:
            tokens = took
            if completion is not None and not tokens:
                tokens = place.tokens  # it did not say
            self._gate.give(place.scopes, tokens - place.tokens, batch=place.batch)

    def given_up(self, place: Place) -> None:
        """Note that a call was not made, or not awaited."""
        self.ended(place, None, None)

    async def aclose(self) -> None:
        """Close every connection. It can be used again, on another loop."""
        await self._sharing.aclose()
        await self._prober.aclose()
        await self._gate.aclose()
        await self._desks.aclose()
