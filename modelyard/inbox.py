"""The inbox: requests that wait for people, who answer or decline them.

A model of provider `people` has a queue like any other, and no worker. What waits there is claimed
for the moment of its end, like a message in a worker's hands: whoever dies in that moment leaves a
claim that is taken over, and the request waits again.

All methods raise `redis.RedisError`, and each of them can be called again after an error.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import redis

from modelyard.claims import DONE, FENCED, LEASE_S, Ack, Hop, settle
from modelyard.errors import InvalidRequest, ModelyardError
from modelyard.inbox_endings import NOBODY_ANSWERED, Ending, Endings
from modelyard.inbox_item import Item, read_item, told
from modelyard.messages import check_encodable
from modelyard.names import (
    CLAIMS_KEY,
    LEASES_KEY,
    RESULT_KEY_PREFIX,
    model_queue,
)
from modelyard.outcome import Outcome, read_outcome
from modelyard.scripts import Script
from modelyard.settings import Settings

PAGE: Final = 50
"""So many messages are read at once: each may have megabytes."""
LOOKS: Final = 3
"""How often the inbox is searched while it changes."""
PERSON: Final = "person"

Onward = Callable[[Item], str | None]
"""The queue to which what waits goes on, or None: it goes on waiting, or ends."""

CLAIM = Script("inbox_claim")


def nowhere(_: Item) -> None:
    """It stays where it is: only a person can answer it."""


class NotWaiting(ModelyardError):
    """Nothing waits under this id that a person can answer (any more); the message says why."""


class Inbox:
    """What waits for the people of `models`. `clock` gives seconds since the epoch.

    `late`: what is told of a request that expired there.
    """

    def __init__(
        self,
        client: redis.Redis,
        models: Sequence[str],
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        late: str = NOBODY_ANSWERED,
    ) -> None:
        self._client = client
        self._late = late
        self._settings = settings
        self._clock = clock
        self.models = tuple(models)
        # Who is urgent comes first, whichever model it waits for.
        self._queues = [
            model_queue(model, batch=batch) for batch in (False, True) for model in self.models
        ]

    def counts(self) -> dict[str, int]:
        """Return how many requests wait for each model's people, in both lanes."""
        lengths = dict(zip(self._queues, self._lengths(), strict=True))
        return {
            model: sum(lengths[model_queue(model, batch=batch)] for batch in (False, True))
            for model in self.models
        }

    def waiting(self, limit: int | None = None) -> list[Item]:
        """Return what waits, at most `limit`, by lane, model and age.

        What has expired or was cancelled is among it, until it is swept.
        """
        found: list[Item] = []
        for queue, message in self._messages():
            if limit is not None and len(found) >= limit:
                break
            found.append(read_item(queue, message))
        return self._with_outcomes(found)

    def find(self, id: str) -> Item:
        """Return the item of this id. Raises `NotWaiting`."""
        for _ in range(LOOKS):
            before = self._lengths()
            for queue, message in self._messages():
                # An id beyond ASCII may be written in more than one way.
                if id.isascii() and id.encode() not in message:
                    continue
                item = read_item(queue, message)
                if item.id == id:
                    return replace(item, outcome=self._outcomes([item.request_id])[0])
            if self._lengths() == before:
                break
        (outcome,) = self._outcomes([id])
        if outcome is not None:
            raise NotWaiting(told(id, outcome))
        raise NotWaiting(
            f"request {id} is not in the inbox: it is with the router, with a model or with "
            "somebody who answers it just now, or was never heard of"
        )

    def answer(self, id: str, text: str, by: str = PERSON) -> Item:
        """End the request with a person's answer, and return what it was.

        The client that waits gets it at once. Raises `NotWaiting` if it has an outcome, has
        expired, or somebody else is faster, and `InvalidRequest` for a text that says nothing.
        """
        check_text("the answer", text)
        check_text("the name", by)
        return self._end(id, lambda endings: endings.answered(text, by))

    def decline(self, id: str, why: str, by: str = PERSON) -> Item:
        """End the request as a dead letter (`refused`), and return what it was.

        Raises as `answer` does.
        """
        check_text("the reason", why)
        check_text("the name", by)
        return self._end(id, lambda endings: endings.declined(why, by))

    def sweep(self, onward: Onward = nowhere) -> Iterator[str]:
        """End what nobody can answer any more, as what it is, and yield in words what that was.

        A request whose deadline has passed becomes a dead letter (`expired`), so its client hears.
        What has no outcome goes on to the queue that `onward` says, if it says one. One page is in
        memory at a time: all that waits may be more than there is room for.
        """
        for queue in self._queues:
            end = -1
            while page := self._page(queue, end):
                end -= PAGE
                for item in self._with_outcomes([read_item(queue, each) for each in page]):
                    state = item.state(self._clock())
                    queue_now = onward(item) if state in {"waiting", "expired"} else None
                    if state == "waiting" and queue_now is None:
                        continue
                    end += 1  # it leaves the queue, and those behind it move up
                    try:
                        claim = self._claim(item)
                    except NotWaiting:
                        continue  # somebody tries to answer it, and is told
                    if queue_now is not None:
                        if settle(self._client, [Hop(claim, queue_now, item.message)]) == [DONE]:
                            yield f"request {item.id} goes on to {queue_now}: nobody serves {queue}"
                    else:
                        yield self._close(item, self._endings(item, claim))

    def _end(self, id: str, end: Callable[[Endings], Ending]) -> Item:
        """Claim an item and end it; one that can't be answered, as what it is."""
        item = self.find(id)
        endings = self._endings(item, self._claim(item))
        if item.state(endings.now) != "waiting":
            raise NotWaiting(self._close(item, endings))
        said = settle(self._client, [end(endings)])
        if said == [FENCED]:
            raise NotWaiting(f"request {id} was put back meanwhile, and waits again")
        if said != [DONE]:
            (outcome,) = self._outcomes([item.request_id])
            raise NotWaiting(told(id, outcome))
        return item

    def _endings(self, item: Item, claim: str) -> Endings:
        return Endings(item, claim, self._clock(), self._settings, self._late)

    def _claim(self, item: Item) -> str:
        """Claim an item and return the claim's name. Raises `NotWaiting` if another is faster."""
        claim = f"inbox:{uuid.uuid4().hex}"
        said = CLAIM(
            self._client,
            [item.queue, CLAIMS_KEY, LEASES_KEY],
            ["", round(1000 * LEASE_S), claim, item.message],
        )
        if said != DONE:
            raise NotWaiting(f"request {item.id}: somebody else has just taken it")
        return claim

    def _close(self, item: Item, endings: Endings) -> str:
        """End a claimed item that can't be answered (any more); return in a sentence why."""
        if item.outcome is not None:
            settle(self._client, [Ack(endings.claim)])
            return told(item.id, item.outcome)
        end = endings.unreadable() if item.call is None else endings.expired()
        if settle(self._client, [end]) != [DONE]:
            (outcome,) = self._outcomes([item.request_id])
            return told(item.id, outcome)
        what = "can't be read" if item.call is None else "has expired"
        return f"request {item.id} {what}: it is a dead letter now"

    def _lengths(self) -> list[int]:
        """Return how long the queues are."""
        with self._client.pipeline(transaction=False) as commands:
            for queue in self._queues:
                commands.llen(queue)
            lengths: list[int] = commands.execute()
        return lengths

    def _messages(self) -> Iterator[tuple[str, bytes]]:
        """Yield each queue's messages, oldest first; those that come meanwhile may be left out."""
        for queue in self._queues:
            end = -1
            while page := self._page(queue, end):
                yield from ((queue, message) for message in page)
                end -= PAGE

    def _page(self, queue: str, end: int) -> list[Any]:
        """Return a page of a queue's messages up to the place `end`, oldest first."""
        page: list[Any] = self._client.lrange(queue, end - PAGE + 1, end)
        return page[::-1]

    def _with_outcomes(self, items: Sequence[Item]) -> list[Item]:
        """Return these, each with what its request has come to already."""
        outcomes = self._outcomes([item.request_id for item in items])
        return [
            replace(item, outcome=outcome) for item, outcome in zip(items, outcomes, strict=True)
        ]

    def _outcomes(self, ids: Sequence[str]) -> list[Outcome | None]:
        """Return what these requests have come to already."""
        if not ids:
            return []
        stored = self._client.mget([RESULT_KEY_PREFIX + id for id in ids])
        return [
            None if raw is None else read_outcome(raw, id)
            for id, raw in zip(ids, stored, strict=True)
        ]


def check_text(what: str, text: str) -> None:
    """Raise `InvalidRequest` if a text is empty, or can't travel."""
    if not text.strip():
        raise InvalidRequest(f"{what} has no text")
    try:
        check_encodable(text)
    except ValueError as error:
        raise InvalidRequest(f"{what} can't be sent: {error}") from error
