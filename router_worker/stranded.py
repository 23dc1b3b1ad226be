"""Looks after queues that no model of the catalog has and that no worker consumes.

What waits there goes on to a worker that can do something about it: under an alias to the model's
own, of a model that is gone to one that goes on with the rest of the plan, as after a failure. What
only that model could answer waits for it to come back, and for its deadline: this machine's catalog
may only be older than another's. For the same reason nothing is moved at once.
"""

import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Final

import redis

from modelyard.advance import GO_ON
from modelyard.catalog import Catalog, UnknownName
from modelyard.inbox import Inbox
from modelyard.inbox_item import Item
from modelyard.messages import Call, Part
from modelyard.names import BATCH_PREFIX, model_queue, queue_model
from modelyard.settings import Settings
from modelyard.stranded import note_queues, other_queues, served_queues

LEASES_UNSERVED: Final = 3
"""For so long a queue has had no worker before anything there is moved: one may just start."""

LOOK_S: Final = 1.0
"""How often a sweep looks which queues have workers by now, in seconds."""

LATE: Final = "its deadline passed in the queue of a model that is not in the catalog"

PAID: Final = frozenset({Part.JUDGE, Part.COMBINE})
"""What has an answer already, which must not be lost with a deadline."""


class Stranded:
    """The stranded queues, by one catalog. `former`: models of earlier ones. Not for threads.

    `clock` gives seconds.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        former: Collection[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._former = former
        self._clock = clock
        self._since: dict[str, float] = {}

    def sweep(self, client: redis.Redis) -> Iterator[str]:
        """End what has expired or has an outcome, move what can go on, and yield that in words.

        Raises `redis.RedisError`.
        """
        others = other_queues(client, self._catalog, self._former)
        served = served_queues(client) if others else frozenset()
        now = self._clock()
        self._since = {name: self._since.get(name, now) for name in others if name not in served}
        if not self._since:
            return
        note_queues(client, self._since)
        old = now - LEASES_UNSERVED * self._settings.lease_s
        due = {name for name, since in self._since.items() if since <= old}
        names = sorted({queue_model(name) or "" for name in self._since})
        inbox = Inbox(client, names, self._settings, late=LATE)
        looked = now

        def current(item: Item) -> str | None:
            nonlocal served, looked
            # A long queue takes minutes, and a worker of it may have started meanwhile.
            if self._clock() - looked >= LOOK_S:
                served, looked = served_queues(client), self._clock()
            if item.queue in served and item.state(time.time()) != "expired":
                return None
            return onward(item, catalog=self._catalog, served=served, due=due)

        yield from inbox.sweep(current)


def onward(
    item: Item, *, catalog: Catalog, served: Collection[str], due: Collection[str]
) -> str | None:
    """Return the queue whose workers can go on with what waits in a stranded one, or None.

    The message stays as it is: they find that they do not know its model, and do what is right for
    that part of a plan. Only queues that are `due` are left by what is in time.
    """
    if item.call is None:
        return None
    queue_of = partial(model_queue, batch=item.queue.startswith(BATCH_PREFIX))
    late = item.state(time.time()) == "expired"
    if late and not (item.call.drafts or item.call.part in PAID):
        return None
    if not late and item.queue not in due:
        return None
    if item.model in catalog.aliases:
        return queue_of(catalog.aliases[item.model])
    others = others_of(item.call, catalog)
    if not late and not others and item.call.part in {*GO_ON, Part.MEMBER}:
        return None
    names = (*others, *(model.name for model in catalog.live_models))
    return next((queue for name in names if (queue := queue_of(name)) in served), None)


def others_of(call: Call, catalog: Catalog) -> list[str]:
    """Return the models of a call's plan that can do what this step's can't: the later ones, and
    for a member the other members, as its part of the answer is left out.
    """
    first = 0 if call.part is Part.MEMBER else call.step + 1
    found = []
    for step in call.decision.plan.steps[first:]:
        try:
            found.append(catalog.model(step.model).name)
        except UnknownName:
            continue
    return found
