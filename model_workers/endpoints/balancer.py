"""Where a call goes: `Balancer` knows the endpoints of all models that this worker calls."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import redis

from model_workers.endpoints import circuit as circuits
from model_workers.endpoints.board import Heard, Said, exchange
from model_workers.endpoints.circuit import Circuit, Hold, Reason
from model_workers.endpoints.desk import (
    Desk,
    Place,
    Post,
    endpoint_scopes,
    expected_tokens,
    fits,
    hold,
    tenant_scopes,
    told_apart,
    usable,
    view,
)
from model_workers.endpoints.gate import Ask, Gate, Granted
from model_workers.endpoints.order import order
from model_workers.endpoints.quota import Scope
from model_workers.lines import Lines
from model_workers.providers.base import Completion
from model_workers.providers.over_http import OverHttp
from model_workers.redis_threads import RedisThreads
from modelyard.catalog import Catalog, Model, Probe
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Lane, Request

logger = logging.getLogger("modelyard.endpoints")

SHARE_S: Final = 1.0
"""How often the workers tell each other how their endpoints do."""

IDLE_S: Final = 60.0
"""After so long without a call a worker has nothing to tell."""

PATIENCE_S: Final = 5.0
"""For so long a call waits for quota in the worker, in the order in which calls came; for longer
ones it goes back to its queue."""

BATCH_PATIENCE_S: Final = 1.0
"""The batch lane does not get in line so far ahead of the interactive one."""

HEAR_S: Final = 0.25
"""For so long the first call of a model waits for what the others know of its endpoints."""

SILENCES: Final = 2
"""So many questions without an answer, one after the other, and an endpoint is left alone."""

SMOOTHING: Final = 0.2
"""The weight of the newest answer in the mean of their times."""


class Balancer:
    """Picks the endpoint of each call. Lives on one event loop.

    `connect` opens connections to Redis; without it this worker goes by what it sees itself, and
    keeps quotas alone. `region` is where this worker is.
    """

    def __init__(
        self,
        connect: Callable[[], redis.Redis] | None = None,
        *,
        process: str = "alone",
        region: str = "",
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lines = Lines()
        self._desks: dict[str, Desk] = {}
        self._redis = None if connect is None else RedisThreads(connect, "endpoints")
        self._process = process
        self._region = region
        self._draw = draw
        self._ahead_s = 0.0
        self._clock = clock
        self._gate = Gate(connect, process, clock=clock)
        self._sharing: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._hasty = False
        self._silent = False

    def now(self) -> float:
        """Return the time in seconds since the epoch, by the Redis server's clock."""
        return self._clock() + self._ahead_s

    # -- before a call

    async def place(
        self, catalog: Catalog, model: Model, request: Request, *, avoid: str = ""
    ) -> Place | Hold:
        """Return where a call of `request` goes, or for how long none goes anywhere.

        `avoid` is the label of the endpoint that failed it last: another one comes before it.
        """
        desk = self._desk(catalog, model)
        await self._listen(desk)
        able = [post for post in desk.posts if fits(post, request)]
        if not able:
            region = request.limits.region
            return Hold(0.0, Reason.DENIED, f"no endpoint of {model.name} is in region {region!r}")
        while True:
            now = self.now()
            well = [post for post in able if usable(post, model, now)]
            if not well:
                found = hold(able, model, now)
                return replace(found, own=True) if len(able) < len(desk.posts) else found
            if len(well) > 1:
                well = self._ordered(well, model, request, avoid, now)
            taken = await self._take(catalog, desk, well, request)
            if taken is not None:
                return taken

    def elsewhere(self, catalog: Catalog, model: Model, request: Request, label: str) -> bool:
        """Return whether another endpoint than `label` can take a call at once."""
        now = self.now()
        return any(
            post.line.label != label and fits(post, request) and usable(post, model, now)
            for post in self._desk(catalog, model).posts
        )

    def _ordered(
        self, posts: list[Post], model: Model, request: Request, avoid: str, now: float
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
        # What failed this very request comes last, and a probe before what is known to be well:
        # a request that has elsewhere to go can try it.
        return sorted(ordered, key=lambda post: (post.line.label == avoid, post.circuit.is_closed))

    async def _take(
        self, catalog: Catalog, desk: Desk, well: list[Post], request: Request
    ) -> Place | Hold | None:
        """Return what `place` does; None if the endpoint was found to be ill meanwhile."""
        batch = request.lane is Lane.BATCH
        own = tenant_scopes(catalog, request)
        common = (*desk.scopes, *own)
        if not common and not any(post.scopes for post in well):
            return self._placed(desk, well[0], (), 0, batch)
        candidates = [(*common, *post.scopes) for post in well]
        tokens = 0
        if any(scope.tokens for scopes in candidates for scope in scopes):
            tokens = expected_tokens(desk.model, request)
        patience_s = BATCH_PATIENCE_S if batch else PATIENCE_S
        if request.deadline is not None:
            patience_s = min(patience_s, max(0.0, request.deadline - self._clock()))
        answer = await self._gate.take(Ask(tokens, batch, patience_s, candidates))
        if not isinstance(answer, Granted):
            if own and len(desk.scopes) <= answer.scope < len(common):
                tenant = request.metadata.get("tenant")
                why = f"tenant {tenant!r} is at its limit"
                return Hold(answer.wait_s, None, why, own=True, everywhere=True)
            return Hold(answer.wait_s, None, f"{desk.model.name} is at its limit")
        post, scopes = well[answer.candidate], candidates[answer.candidate]
        if not usable(post, desk.model, self.now()):
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
            if post.circuit.is_open(now) or (not post.circuit.is_closed and not place.probing):
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
        post.count(now)
        return Place(desk, post, scopes, tokens, batch, probing, now)

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
        now = self.now()
        before = post.circuit
        if completion is not None:
            took_s = max(0.0, now - place.started_at)
            known = post.latency_s
            post.latency_s = known + SMOOTHING * (took_s - known) if known else took_s
            post.latency_at = now
            post.circuit = circuits.answered(before, breaker, place.started_at, now)
            self._closed(post, before, now)
            self._allowed(post, completion, now)
        elif error is not None:
            post.circuit = circuits.failed(
                before,
                breaker,
                error.kind,
                started_at=place.started_at,
                now=now,
                draw=self._draw(),
                retry_after_s=error.retry_after_s,
            )
            self._closed(post, before, now)
        self._tell(place.desk, post, before)
        if place.scopes:
            used = completion.usage if completion is not None else None
            tokens = used.input_tokens + used.output_tokens if used is not None else 0
            if used is not None and not tokens:
                tokens = place.tokens  # it did not say
            self._gate.give(place.scopes, tokens - place.tokens, batch=place.batch)

    def _closed(self, post: Post, before: Circuit, now: float) -> None:
        if post.circuit.is_closed and not before.is_closed:
            post.closed_at = now

    def given_up(self, place: Place) -> None:
        """Note that a call was not made, or not awaited."""
        self.ended(place, None, None)

    def _allowed(self, post: Post, completion: Completion, now: float) -> None:
        """Leave an endpoint alone that says that nothing is left of its limit."""
        said = completion.allowance
        if said is None:
            return
        resets = [
            reset
            for left, reset in (
                (said.remaining_requests, said.reset_requests_s),
                (said.remaining_tokens, said.reset_tokens_s),
            )
            if left is not None and left < 1 and reset
        ]
        if resets:
            wait_s = min(max(resets), circuits.LONGEST_LIMITED_S)
            post.circuit = circuits.opened(post.circuit, Reason.LIMITED, wait_s, now)

    def _tell(self, desk: Desk, post: Post, before: Circuit) -> None:
        after = post.circuit
        if after.is_closed == before.is_closed and after.until == before.until:
            return
        self._news.set()
        name = f"{desk.model.name} at {post.line.label}"
        if after.is_closed:
            logger.warning("%s answers again", name)
        elif after.why is Reason.DENIED and before.why is not Reason.DENIED:
            logger.error("%s denies our calls: its key, bill, access or name needs a person", name)
        elif before.is_closed:
            wait_s = after.until - after.since
            logger.warning("%s is left alone for %.1f s: it is %s", name, wait_s, after.why)

    # -- beside calls

    async def _keep_probing(self, desk: Desk) -> None:
        """Ask a model's endpoints whether they live, until nobody calls it any more."""
        probe = desk.model.probe
        assert probe is not None
        while self._desks.get(desk.model.name) is desk:
            await asyncio.sleep(probe.every_s * circuits.spread(self._draw()))
            if desk.called_at < self.now() - IDLE_S:
                return
            await asyncio.gather(*(self._probe(desk, post, probe) for post in desk.posts))

    async def _probe(self, desk: Desk, post: Post, probe: Probe) -> None:
        provider = post.line.provider
        if not isinstance(provider, OverHttp):
            return
        started_at, before = self.now(), post.circuit
        try:
            await provider.probe(probe.path)
        except ProviderError as error:
            now = self.now()
            post.silences += error.kind is FailureKind.RETRYABLE
            if error.kind is FailureKind.DENIED:
                wait_s = desk.model.breaker.denied_s
                post.circuit = circuits.opened(post.circuit, Reason.DENIED, wait_s, now)
            elif post.silences >= SILENCES:
                # Until the next ones had their say.
                wait_s = SILENCES * probe.every_s
                post.circuit = circuits.opened(post.circuit, Reason.FAILING, wait_s, now)
        else:
            post.silences = 0
            # What is at its limit, or wants another key for calls, answers this all the same.
            if not post.circuit.is_closed and post.circuit.why is Reason.FAILING:
                breaker = desk.model.breaker
                post.circuit = circuits.answered(post.circuit, breaker, started_at, self.now())
                self._closed(post, before, self.now())
        self._tell(desk, post, before)

    # -- the others

    async def _listen(self, desk: Desk) -> None:
        """See to it that news of a model come in, and wait for the first of them."""
        now = self.now()
        if desk.called_at < now - IDLE_S:
            desk.heard.clear()
        desk.called_at = now
        if desk.model.probe is not None and (desk.probing is None or desk.probing.done()):
            desk.probing = asyncio.get_running_loop().create_task(self._keep_probing(desk))
        if self._redis is None:
            return
        if self._sharing is None or self._sharing.done():
            self._sharing = asyncio.get_running_loop().create_task(self._keep_sharing())
        if not desk.heard.is_set() and not self._silent:
            self._hasty = True
            self._news.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(desk.heard.wait(), HEAR_S)

    async def _keep_sharing(self) -> None:
        assert self._redis is not None
        while True:
            said = self._said(self.now())
            if not said:
                return
            self._news.clear()
            self._hasty = False
            try:
                ahead_s, heard = await self._redis.run(
                    partial(exchange, process=self._process, said=said)
                )
            except (redis.RedisError, OSError) as error:
                if not self._silent:
                    logger.warning("nothing is heard of the other workers' endpoints: %s", error)
                self._silent = True
                for model in said:
                    self._desks[model].heard.set()  # nobody waits for what does not come
            else:
                self._silent = False
                self._ahead_s = ahead_s
                for model, told in said.items():
                    self._told(self._desks[model], told)
                for model, what in heard.items():
                    self._heard(self._desks[model], what)
                    self._desks[model].heard.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), SHARE_S)
                if not self._hasty:
                    # News of many calls that fail together goes once.
                    await asyncio.sleep(SHARE_S / 20)

    def _said(self, now: float) -> dict[str, Said]:
        said = {}
        for name, desk in self._desks.items():
            posts = [post for post in desk.posts if post.line.endpoint is not None]
            if not posts or desk.called_at < now - IDLE_S:
                continue
            said[name] = Said(
                {post.line.label: post.load(now) for post in posts},
                # Once: who says again what all know undoes what another says meanwhile.
                {
                    post.line.label: post.circuit
                    for post in posts
                    if not post.circuit.is_closed and post.circuit.until != post.told
                },
                [post.line.label for post in posts if post.circuit.is_closed and post.told],
            )
        return said

    def _told(self, desk: Desk, said: Said) -> None:
        for post in desk.posts:
            label = post.line.label
            if label in said.opened:
                post.told = said.opened[label].until
            elif label in said.closed:
                post.told = 0.0

    def _heard(self, desk: Desk, heard: Heard) -> None:
        now = self.now()
        for post in desk.posts:
            label = post.line.label
            post.elsewhere = tuple(loads[label] for loads in heard.loads if label in loads)
            theirs, mine = heard.circuits.get(label), post.circuit
            if theirs is None:
                if post.told and post.told == mine.until:
                    # Another worker's probe was answered.
                    post.circuit = Circuit(at=now)
                post.told = 0.0
            elif (
                # A denial is not shared: it may be of another key than this worker's.
                theirs.why is not Reason.DENIED
                and theirs.since > post.closed_at
                and theirs.until > mine.until
            ):
                # What was sent before this was heard proves nothing, either.
                post.circuit = replace(theirs, since=max(theirs.since, now))
                post.told = theirs.until
        self._gate.alone.workers = 1 + len(heard.loads)

    # -- models

    def _desk(self, catalog: Catalog, model: Model) -> Desk:
        desk = self._desks.get(model.name)
        if desk is None or desk.model is not model:
            posts = [
                Post(line, endpoint_scopes(catalog, model, line))
                for line in told_apart(self._lines.connect(model))
            ]
            own = () if model.quota.is_none else (Scope.of(f"model:{model.name}", model.quota),)
            desk = self._desks[model.name] = Desk(model, posts, own)
        return desk

    async def aclose(self) -> None:
        """Close every connection. It can be used again, on another loop."""
        sharing, self._sharing = self._sharing, None
        if sharing is not None:
            sharing.cancel()
            await asyncio.wait([sharing])
        probing = [desk.probing for desk in self._desks.values() if desk.probing is not None]
        for each in probing:
            each.cancel()
        if probing:
            await asyncio.wait(probing)
        await self._gate.aclose()
        await self._lines.aclose()
        self._desks.clear()
        self._news = asyncio.Event()
        if self._redis is not None:
            self._redis.close()
