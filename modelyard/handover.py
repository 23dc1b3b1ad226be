"""Handing claimed messages to their consumers; what is none, poison or cancelled ends here."""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import redis
from kombu.transport import virtual
from kombu.utils.json import dumps

from modelyard.claims import FENCED, Ack, Claimed, Claims, End, Join, Record
from modelyard.endings import buried, poisoned
from modelyard.holdings import ledger
from modelyard.names import DELIVERIES_HEADER, JOIN_KEY_PREFIX
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

    def deliver(self, claimed: Sequence[Claimed], cancelled: Collection[str]) -> None:
        """Hand these over, but for the ids that are `cancelled`: they have their outcome."""
        qos = self._channel.qos
        try:
            wanted = []
            for each in claimed:
                try:
                    wanted.append((each, read(each)))
                except UNREADABLE as error:
                    self._bury(each, f"no task message: {type(error).__name__}: {error}")
            for each, raw in wanted:
                self._deliver(each, raw, cancelled)
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

    def _deliver(self, each: Claimed, raw: dict[str, Any], cancelled: Collection[str]) -> None:
        channel = self._channel
        id, lost = raw["headers"].get("id"), raw["headers"].get(DELIVERIES_HEADER, 0)
        if id in cancelled:
            logger.info("request %s was cancelled", id)
            ledger.ack(each.claim)
            return
        try:
            if lost + 1 >= MAX_DELIVERIES:
                logger.error("request %s is a dead letter: %d workers were lost", id, lost)
                message = channel.Message(raw, channel=channel)
                end = poisoned(
                    each,
                    message,
                    lost,
                    join=self._join(id),
                    entries=channel.ledger_entries,
                    keep_text=channel.ledger_text,
                )
                self._end(end)
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

    def _join(self, id: Any) -> dict[bytes, bytes]:
        """Return what is known of the members of a request."""
        with self._channel.conn_or_acquire() as client:
            fields: dict[bytes, bytes] = client.hgetall(f"{JOIN_KEY_PREFIX}{id}")
        return fields

    def _bury(self, claimed: Claimed, why: str, id: str | None = None) -> None:
        logger.warning("a message of %s is a dead letter: %s", claimed.queue, why)
        self._end(buried(claimed, why, id))

    def _end(self, end: End | Join | Record | Ack) -> None:
        if self._claims.settle([end]) == [FENCED]:
            logger.warning("another worker has it meanwhile: this end of it does not count")
        ledger.settled([end.claim])
