"""Handing claimed messages to their consumers; what is none, poison or cancelled ends here."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import redis
from kombu.transport import virtual
from kombu.utils.json import dumps

from modelyard.claims import Ack, Claimed, Claims, End, Join
from modelyard.endings import buried, poisoned
from modelyard.holdings import ledger
from modelyard.names import CANCELLED_KEY, DELIVERIES_HEADER
from modelyard.received import QUEUE_FIELD, UNREADABLE, read

logger = logging.getLogger("modelyard.transport")

MAX_DELIVERIES: Final = 5
"""A message that is delivered for this time, and never came to an end, is a dead letter."""


class Handover:
    """Hands over what a channel claimed.

    Each of `after` is called once, and forgotten, when all that was claimed at a time was handed
    over.
    """

    def __init__(self, channel: Any, claims: Claims) -> None:
        self._channel = channel
        self._claims = claims
        self.after: list[Callable[[], object]] = []

    def deliver(self, claimed: Sequence[Claimed], *, cancelled: bool) -> None:
        """Hand these over. `cancelled`: some request somewhere is."""
        qos = self._channel.qos
        try:
            wanted = []
            for each in claimed:
                try:
                    wanted.append((each, read(each)))
                except UNREADABLE as error:
                    self._bury(each, f"no task message: {type(error).__name__}: {error}")
            gone = self._cancelled([raw for _, raw in wanted]) if cancelled else set()
            for each, raw in wanted:
                self._deliver(each, raw, gone)
        finally:
            # If that ended early: what was not handed over is not ours, and its lease runs out.
            qos._flush()
            ledger.settled(each.claim for each in claimed if each.claim not in qos._delivered)
        if ledger.owes:
            self._channel.ack_soon()
        waiting, self.after = self.after, []
        for act in waiting:
            act()

    def bury(self, message: Any, why: str) -> None:
        """End a message in hand that nobody here can do anything with."""
        tag = message.delivery_tag
        claimed = Claimed(tag, message._raw[QUEUE_FIELD], dumps(message._raw).encode())
        id = message.headers.get("id") if isinstance(message.headers, dict) else None
        self._bury(claimed, why, id)
        virtual.QoS.ack(self._channel.qos, tag)

    def _deliver(self, each: Claimed, raw: dict[str, Any], cancelled: set[str]) -> None:
        channel = self._channel
        id, lost = raw["headers"].get("id"), raw["headers"].get(DELIVERIES_HEADER, 0)
        if id in cancelled:
            logger.info("request %s was cancelled", id)
            ledger.ack(each.claim)
            return
        try:
            if lost + 1 >= MAX_DELIVERIES:
                logger.error("request %s is a dead letter: %d workers were lost", id, lost)
                self._end(poisoned(each, channel.Message(raw, channel=channel), lost))
                return
            channel.connection._deliver(raw, each.queue)
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            raise
        except Exception as error:
            # It would end this worker, and every other one that it is given to.
            logger.exception("the worker failed on message %s", id)
            channel.qos._delivered.pop(each.claim, None)
            self._bury(each, f"the worker failed on it: {type(error).__name__}", id)
        else:
            if each.queue in channel.unacknowledged:
                ledger.ack(each.claim)

    def _cancelled(self, messages: Iterable[dict[str, Any]]) -> set[str]:
        """Return which of these were cancelled, and forget them: they have their outcome."""
        ids = [raw["headers"].get("id") for raw in messages]
        named = [id for id in ids if isinstance(id, str)]
        if not named:
            return set()
        with self._channel.conn_or_acquire() as client:
            scores = client.zmscore(CANCELLED_KEY, named)
            found = {id for id, score in zip(named, scores, strict=True) if score is not None}
            if found:
                client.zrem(CANCELLED_KEY, *found)
        return found

    def _bury(self, claimed: Claimed, why: str, id: str | None = None) -> None:
        logger.warning("a message of %s is a dead letter: %s", claimed.queue, why)
        self._end(buried(claimed, why, id))

    def _end(self, end: End | Join | Ack) -> None:
        self._claims.settle([end])
        ledger.settled([end.claim])
