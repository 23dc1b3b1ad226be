"""How many messages a worker takes, and what becomes of those it has in hand."""

from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from modelyard.claims import AT_ONCE
from modelyard.holdings import ledger


class QoS(kombu_redis.QoS):
    """Messages in hand. What Redis knows of them is in its claims, not in `unacked`."""

    @property
    def room(self) -> int:
        """How many messages this worker may claim."""
        return self.prefetch_count - ledger.count if self.prefetch_count else AT_ONCE

    def can_consume(self) -> bool:
        return self.room > 0

    def append(self, message: Any, delivery_tag: str) -> None:
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        if ledger.ack(delivery_tag):
            self.channel.ack_soon()
        self.channel.look_soon()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        message = self._delivered.get(delivery_tag)
        if not requeue or message is None:
            self.ack(delivery_tag)
            return
        virtual.QoS.ack(self, delivery_tag)
        if ledger.holds(delivery_tag):
            ledger.settled([delivery_tag])
            self.channel.put_back([message], "last")
        self.channel.look_soon()

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what does not run here."""
        self._flush()
        parted = set(ledger.part_with(self._delivered))
        messages = [message for tag, message in self._delivered.items() if tag in parted]
        self._delivered.clear()
        # The oldest last: it is then the first to be taken.
        self.channel.put_back(messages[::-1], "next")

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Leave it to the leases."""

    def restore_by_tag(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("claims are put back with their messages")
