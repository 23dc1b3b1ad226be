"""Telling the other workers how the endpoints do, and hearing it from them."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import redis

from model_workers.endpoints.board import Heard, Said, exchange
from model_workers.endpoints.desk import IDLE_S, Desk, Post
from model_workers.endpoints.desks import Desks
from model_workers.endpoints.learned import NOTHING, learned_after, newest
from model_workers.endpoints.steady import steady
from model_workers.redis_threads import RedisThreads
from modelyard.circuit import AHEAD_S, Circuit, Reason, is_from_ahead

logger = logging.getLogger("modelyard.endpoints")

SHARE_S: Final = 1.0
"""How often the workers tell each other how their endpoints do."""

HEAR_S: Final = 0.25
"""For so long the first call of a model waits for what the others know of its endpoints."""


class Sharing:
    """What a worker process and the others tell each other. Lives on one event loop.

    `connect` opens connections to Redis; without it there are no others. `counted` is told how many
    processes there are.
    """

    def __init__(
        self,
        desks: Desks,
        connect: Callable[[], redis.Redis] | None,
        *,
        process: str,
        clock: Callable[[], float] = steady,
        counted: Callable[[int], None],
    ) -> None:
        self._desks = desks
        self._redis = None if connect is None else RedisThreads(connect, "endpoints")
        self._process = process
        self._clock = clock
        self._counted = counted
        self._ahead_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._hasty = False
        self._silent = False

    def now(self) -> float:
        """Return the time in seconds since the epoch, by the Redis server's clock."""
        return self._clock() + self._ahead_s

    def tell(self) -> None:
        """Have the others hear soon what is new."""
        self._news.set()

    def changed(self, desk: Desk, post: Post, before: Circuit) -> None:
        """Tell people and the others if an endpoint is left alone now, or is no more."""
        after = post.circuit
        if (after.is_closed == before.is_closed and after.until == before.until) or post.retired:
            return
        self.tell()
        name = f"{desk.model.name} at {post.line.label}"
        if after.is_closed:
            logger.warning("%s answers again", name)
        elif after.why is Reason.DENIED and before.why is not Reason.DENIED:
            logger.error("%s denies our calls: its key, bill, access or name needs a person", name)
        elif before.is_closed:
            wait_s = after.until - after.since
            logger.warning("%s is left alone for %.1f s: it is %s", name, wait_s, after.why)

    async def listen(self, desk: Desk) -> None:
        """See to it that news of a model come in, and wait for the first of them."""
        if self._redis is None:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._keep_sharing())
        if not desk.heard.is_set() and not self._silent:
            self._hasty = True
            self._news.set()
            # `wait_for` of Python 3.11 loses a cancellation that comes with what it waits for:
            # https://github.com/python/cpython/issues/86296
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEAR_S):
                    await desk.heard.wait()

    async def _keep_sharing(self) -> None:
        assert self._redis is not None
        while True:
            said = self._said(self.now())
            if not said:
                return
            self._news.clear()
            self._hasty = False
            try:
                self._ahead_s, heard = await self._redis.run(
                    partial(exchange, process=self._process, said=said, clock=self._clock)
                )
            except (redis.RedisError, OSError) as error:
                if not self._silent:
                    logger.warning("nothing is heard of the other workers' endpoints: %s", error)
                self._silent = True
                for name in said:
                    if desk := self._desks.get(name):
                        desk.heard.set()  # nobody waits for what does not come
            else:
                self._silent = False
                self._take_in(said, heard)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHARE_S):
                    await self._news.wait()
                if not self._hasty:
                    # News of many calls that fail together goes once.
                    await asyncio.sleep(SHARE_S / 20)

    def _said(self, now: float) -> dict[str, Said]:
        said = {}
        for desk in self._desks:
            posts = [post for post in desk.posts if post.line.endpoint is not None]
            if not posts or desk.called_at < now - IDLE_S:
                continue
            said[desk.model.name] = Said(
                {post.line.label: post.load(now) for post in posts},
                # Once: who says again what all know undoes what another says meanwhile.
                {
                    post.line.label: post.circuit
                    for post in posts
                    if not post.circuit.is_closed and post.circuit.until != post.told
                },
                [post.line.label for post in posts if post.circuit.is_closed and post.told],
                {
                    post.line.label: post.learned
                    for post in posts
                    if post.learned != post.learned_told
                },
            )
        return said

    def _take_in(self, said: Mapping[str, Said], heard: Mapping[str, Heard]) -> None:
        for name, what in heard.items():
            desk = self._desks.get(name)
            if desk is None:
                continue  # the catalog changed meanwhile
            now = self.now()
            for post in desk.posts:
                was_told(post, said[name])
                take_in(post, what, now)
            desk.heard.set()
            self._counted(1 + len(what.loads))

    async def aclose(self) -> None:
        """Stop, and close the connection."""
        sharing, self._task = self._task, None
        if sharing is not None:
            sharing.cancel()
            await asyncio.wait([sharing])
        self._news = asyncio.Event()
        if self._redis is not None:
            self._redis.close()


def was_told(post: Post, said: Said) -> None:
    """Note what the others know now of an endpoint from here."""
    label = post.line.label
    if label in said.opened:
        post.told = said.opened[label].until
    elif label in said.closed:
        post.told = 0.0


def take_in(post: Post, heard: Heard, now: float) -> None:
    """Believe what the others say of an endpoint, where it is newer than what is known here."""
    label = post.line.label
    # By a clock that was set back since, or before this worker knew the server's.
    if is_from_ahead(post.circuit, now):
        post.circuit = Circuit(at=now)
    if post.closed_at > now + AHEAD_S:
        post.closed_at = now
    post.elsewhere = tuple(loads[label] for loads in heard.loads if label in loads)
    post.learned_told = heard.learned.get(label, NOTHING)
    post.learned = newest(post.learned, learned_after(post.learned_told, post.since))
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
