"""Knocking at endpoints that fail, so that one which comes back is called before its cooldown ends.

A knock is a GET that costs nothing. It shows only whether somebody is there, and so it counts only
where nobody was before: an endpoint whose calls fail while it answers this waits for its cooldown.
Where the model has a `probe`, that knows more, and nobody knocks.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from model_workers.endpoints.desk import IDLE_S, Desk, Post
from model_workers.endpoints.desks import Desks
from model_workers.providers.over_http import OverHttp
from modelyard import circuit as circuits
from modelyard.circuit import Circuit, Reason
from modelyard.errors import FailureKind, ProviderError

FIRST_S: Final = 1.0
LONGEST_S: Final = 5.0
GROWTH: Final = 1.25

PATH: Final = "/models"
"""Any answer is one: that there is no such page, too."""


class Knocker:
    """Knocks at the endpoints of the models that are called. Lives on one event loop.

    `changed` is told of an endpoint and the circuit that it had before.
    """

    def __init__(
        self,
        desks: Desks,
        *,
        now: Callable[[], float],
        draw: Callable[[], float],
        changed: Callable[[Desk, Post, Circuit], None],
        first_s: float = FIRST_S,
    ) -> None:
        self._desks = desks
        self._now = now
        self._draw = draw
        self._changed = changed
        self._first_s = first_s
        self._tasks: dict[Post, asyncio.Task[None]] = {}

    def see_to(self, desk: Desk) -> None:
        """See to it that somebody knocks at those endpoints of a model that fail."""
        for post in desk.posts:
            if fails(post) and post not in self._tasks and desk.model.probe is None:
                task = asyncio.get_running_loop().create_task(self._keep_knocking(desk, post))
                self._tasks[post] = task
                task.add_done_callback(lambda _, post=post: self._tasks.pop(post, None))  # type: ignore[misc]

    async def _keep_knocking(self, desk: Desk, post: Post) -> None:
        """Knock until it answers calls again, or nobody calls the model any more."""
        wait_s, silent, in_vain = self._first_s, False, 0.0
        while True:
            await asyncio.sleep(wait_s * circuits.spread(self._draw()))
            now, before = self._now(), post.circuit
            if not fails(post) or post.retired or desk.called_at < now - IDLE_S:
                return
            # Calls may try it by now, or it answered knocks while it failed: they tell nothing.
            if not before.is_open(now) or before.until == in_vain:
                continue
            if not await self._answers(desk, post):
                silent, wait_s = True, min(LONGEST_S, GROWTH * wait_s)
            elif not silent:
                in_vain = before.until
            elif post.circuit == before:
                now, silent, wait_s = self._now(), False, self._first_s
                post.circuit = replace(before, until=now)
                # What others said of it before is no news.
                post.closed_at = now
                self._changed(desk, post, before)

    async def _answers(self, desk: Desk, post: Post) -> bool:
        """Return whether somebody is there."""
        line = post.line
        if not isinstance(line.provider, OverHttp):
            return True
        try:
            with self._desks.using(desk, line):
                await line.provider.probe(PATH)
        except ProviderError as error:
            return error.kind is not FailureKind.RETRYABLE
        return True

    async def aclose(self) -> None:
        """Stop."""
        tasks = list(self._tasks.values())
        for each in tasks:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks)


def fails(post: Post) -> bool:
    """Return whether an endpoint is left alone for its failures."""
    return not post.circuit.is_closed and post.circuit.why is Reason.FAILING
