"""Where requests lie that could not be answered: to be read, replayed, dropped and exported.

`endings.died` makes the record and `settle` stores it together with the outcome. A letter stays
until somebody acts on it. It is known by its id and when it died: a request that was replayed may
die again, and what was decided about the first letter must not happen to the second.

All methods raise `redis.RedisError`, and each of them can be called again after an error.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

import redis

from modelyard.claims import DONE, NO_ROOM
from modelyard.dead_entries import EVERY, Entry, Filter, read_died_at, read_entry
from modelyard.messages import DeadReason, Request
from modelyard.names import (
    BEHIND_KEY_PREFIX,
    CANCELLED_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_BY_AGE_KEY,
    DEAD_LETTERS_KEY,
    RESULT_KEY_PREFIX,
    WAKE_KEY_PREFIX,
)
from modelyard.replay import (
    AS_IT_WAS,
    Edit,
    NotReplayable,
    edited,
    message_of,
    queue_of,
    replayed_at,
)
from modelyard.scripts import Script

PAGE: Final = 200
"""Most letters that are read or dropped at once."""
PAGE_BYTES: Final = 8 * 1024 * 1024
"""About how many bytes of letters are read at once."""
HEAD_BYTES: Final = 300
"""How much of a letter is read to learn its reason, which stands after its id."""
NEAR: Final = 0.8
"""A store that is filled by this much is nearly full."""
UNREADABLE: Final = "unreadable"
"""Stands for the reason of what is no dead letter of this version."""
FIRST_WAIT_S: Final = 0.05
LAST_WAIT_S: Final = 2.0

READ, MEND = Script("dead_page"), Script("dead_mend")
DROP, REPLAY = Script("dead_drop"), Script("dead_replay")
STORE: Final = (DEAD_LETTERS_KEY, DEAD_LETTERS_BY_AGE_KEY)
REASONS: Final = frozenset(reason.value.encode() for reason in DeadReason)
REASON: Final = re.compile(rb'\{"id":"(?:[^"\\]|\\.)*","reason":"([a-z]+)"')


def near_limit(count: int, limit: int) -> bool:
    """Return whether `count` letters are nearly as many as there may be, or more (0: no limit)."""
    return limit > 0 and count >= NEAR * limit


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one letter in a replay.

    `replayed`: its request is on `queue` (in a dry run: would be). `refused`: `why` says what to
    do. `gone`: somebody else replayed or dropped it first. `again`: it was replayed since this
    replay began, and died once more.
    """

    id: str
    what: Literal["replayed", "refused", "gone", "again"]
    queue: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Full:
    """The queue, or a model's queue behind it, has no room for the request now."""

    queue: str


class DeadLetters:
    """The dead letters of one yard. `clock` gives seconds since the epoch."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock

    def count(self) -> int:
        """Return how many letters there are."""
        return int(self._client.hlen(DEAD_LETTERS_KEY))

    def by_reason(self) -> dict[str, int]:
        """Return how many letters there are of each reason, most first; some may be unreadable."""
        counts: Counter[str] = Counter()
        for id, _, head in self._rows(EVERY, head_bytes=HEAD_BYTES):
            found = REASON.match(head)
            if found is not None and found[1] in REASONS:
                counts[found[1].decode()] += 1
            elif (entry := self.get(id)) is not None:  # a long id, or not written by this version
                counts[entry.letter.reason.value if entry.letter else UNREADABLE] += 1
        return dict(counts.most_common())

    def get(self, id: str) -> Entry | None:
        """Return one letter, or None if there is none of this id."""
        return next(self._some((id,)), None)

    def find(
        self, which: Filter = EVERY, *, newest_first: bool = False, limit: int | None = None
    ) -> Iterator[Entry]:
        """Yield the letters that are meant by their age, at most `limit` of them.

        One page is in memory at a time. A letter that is there from begin to end is yielded once,
        whatever comes and goes meanwhile. Those that are asked for by id come in that order.
        """
        entries = (
            self._some(which.ids)
            if which.ids
            else (read_entry(*row) for row in self._rows(which, newest_first=newest_first))
        )
        return islice((entry for entry in entries if which.matches(entry)), limit)

    def replay(
        self,
        which: Filter = EVERY,
        edit: Edit = AS_IT_WAS,
        *,
        limit: int | None = None,
        most: int = 0,
        dry_run: bool = False,
        on_full: Callable[[str], object] = lambda queue: None,
        wait: Callable[[float], object] = time.sleep,
    ) -> Iterator[Fate]:
        """Put the requests of letters onto their queues again, oldest first, and yield their fates.

        Each is one step: the letter is gone, its failure is no outcome any more, and its message
        waits under the same id. Whoever stops between two of them has lost and doubled nothing,
        and goes on by doing the same again. A queue that has `most` messages (0: no bound), or
        behind which a model's queue has so many, is waited for; `on_full` is called with its name.
        """
        began = self._clock()
        for entry in self.find(which, limit=limit):
            last = replayed_at(entry.letter) if entry.letter else None
            if last is not None and last >= began:
                yield Fate(entry.id, "again")
                continue
            wait_s = FIRST_WAIT_S
            while isinstance(fate := self._replay_one(entry, edit, most, dry_run), Full):
                if wait_s == FIRST_WAIT_S:
                    on_full(fate.queue)
                wait(wait_s)
                wait_s = min(2 * wait_s, LAST_WAIT_S)
            yield fate

    def drop(self, entries: Sequence[Entry]) -> int:
        """Remove these letters for good, and return how many were still there.

        The failures that their clients were told stay their outcomes.
        """
        return self.drop_those([(entry.id, entry.died_at) for entry in entries])

    def drop_those(self, known: Sequence[tuple[str, float]]) -> int:
        """Remove letters that are known by id and when they died, as `drop` does."""
        dropped = 0
        for some in batched(known):
            args = [part for id, died_at in some for part in (id, repr(died_at))]
            dropped += DROP(self._client, [*STORE, COUNTERS_KEY], args).count(DONE)
        return dropped

    def mend(self) -> int:
        """Make the index agree with the letters, and return how many entries that took.

        Needed once after an update, as there was no index before, and after letters were removed
        by hand. `find` does it when the two differ in number.
        """
        mended = 0
        for some in batched(self._client.hscan_iter(DEAD_LETTERS_KEY, count=PAGE // 10)):
            scores = self._client.zmscore(DEAD_LETTERS_BY_AGE_KEY, [id for id, _ in some])
            args = [
                part
                for (id, raw), score in zip(some, scores, strict=True)
                if score is None
                for part in (id, repr(read_died_at(raw)))
            ]
            mended += MEND(self._client, STORE, args)
        for some in batched(self._client.zscan_iter(DEAD_LETTERS_BY_AGE_KEY, count=PAGE)):
            args = [part for id, _ in some for part in (id, "")]
            mended += MEND(self._client, STORE, args)
        return mended

    def _replay_one(self, entry: Entry, edit: Edit, most: int, dry_run: bool) -> Fate | Full:
        """Replay one letter and return its fate, or that it must wait for its queue."""
        try:
            request = edited_entry(entry, edit, self._clock())
            queue = queue_of(request)
            reply_to = entry.letter.reply_to if entry.letter else ""
            message = message_of(entry.id, request, queue, reply_to)
        except NotReplayable as error:
            return Fate(entry.id, "refused", why=str(error))
        said = REPLAY(
            self._client,
            [
                *(*STORE, COUNTERS_KEY, RESULT_KEY_PREFIX + entry.id, CANCELLED_KEY),
                *(queue, WAKE_KEY_PREFIX + queue, BEHIND_KEY_PREFIX + queue),
            ],
            [entry.id, repr(entry.died_at), most, message, int(dry_run)],
        )
        if said == NO_ROOM:
            return Full(queue)
        if isinstance(said, bytes):
            had = "an answer" if said == b"SUCCESS" else "been cancelled"
            why = f"it was submitted anew since, and has {had}: drop the letter"
            return Fate(entry.id, "refused", why=why)
        return Fate(entry.id, "replayed", queue) if said == DONE else Fate(entry.id, "gone")

    def _some(self, ids: Sequence[str]) -> Iterator[Entry]:
        """Yield the letters of these ids."""
        for some in batched(dict.fromkeys(ids), PAGE // 10):
            with self._client.pipeline(transaction=False) as pipeline:
                pipeline.hmget(DEAD_LETTERS_KEY, some)
                pipeline.zmscore(DEAD_LETTERS_BY_AGE_KEY, some)
                letters, scores = pipeline.execute()
            for id, raw, score in zip(some, letters, scores, strict=True):
                if raw is not None:
                    yield read_entry(id, read_died_at(raw) if score is None else score, raw)

    def _rows(
        self, which: Filter, *, newest_first: bool = False, head_bytes: int = 0
    ) -> Iterator[tuple[str, float, bytes]]:
        """Yield id, when it died and the begin of each letter of the filter's time, by age."""
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hlen(DEAD_LETTERS_KEY)
            pipeline.zcard(DEAD_LETTERS_BY_AGE_KEY)
            letters, indexed = pipeline.execute()
        if letters != indexed:
            self.mend()
        start, end = (which.before, which.since) if newest_first else (which.since, which.before)
        place: tuple[Any, ...] = (bound(start), "", 0)
        direction = "down" if newest_first else "up"
        while True:
            said = READ(
                self._client,
                STORE,
                [direction, *place, bound(end), PAGE, head_bytes, PAGE_BYTES],
            )
            for id, died_at, raw in zip(said[::3], said[1::3], said[2::3], strict=True):
                if raw is not None:
                    yield id.decode(errors="replace"), float(died_at), raw
            if not said:
                return
            place = (said[-2], said[-3], 1)


def bound(moment: float) -> str:
    """Return a moment as Redis reads it."""
    return repr(moment) if math.isfinite(moment) else ("+inf" if moment > 0 else "-inf")


def batched(rows: Iterable[Any], size: int = PAGE) -> Iterator[list[Any]]:
    """Cut into pieces that one command can take without holding Redis up."""
    left = iter(rows)
    while some := list(islice(left, size)):
        yield some


def edited_entry(entry: Entry, edit: Edit, now: float) -> Request:
    """Return the request to replay. Raises `NotReplayable`."""
    if entry.letter is None:
        raise NotReplayable(f"{entry.problem}: export it, mend it and submit it anew")
    return edited(entry.letter, edit, now)
