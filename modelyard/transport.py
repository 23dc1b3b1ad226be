"""kombu's Redis transport, and what modelyard adds to it.

*Once*: a message whose headers hold `ONCE_HEADER` is put into its queue only if no message with
the same mark was put there before. The message and the mark are written by one script, so whoever
is killed at any moment, or does not know what became of a publish, can publish again: what was
accepted is not accepted twice, and what was not is accepted now.

*A connection that is lost*: kombu puts every unacknowledged message back when it closes the
channel, also those whose calls still run here, which makes them run twice; and while Redis is
away that fails in a way that ends a Celery worker. Here messages that are held (`ledger.Ledger`)
stay ours and are acknowledged over the next connection; the others are put back over the next one
too if it can't be done now. What Redis refuses for the moment is tried again.

Other messages, and other people's clients with a plain `redis://` address, are not affected.
Redis Cluster is not supported, as in kombu: a script touches a mark and a queue at once.
"""

import itertools
import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import redis
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from kombu.utils.scheduling import round_robin_cycle

from modelyard.ledger import Ledger
from modelyard.names import ONCE_HEADER, SUBMITTED_KEY_PREFIX

logger = logging.getLogger("modelyard.transport")

SETTLE_S = 5.0
"""How often what is owed is tried again, in seconds."""

EXIT_S = 3.0
"""How long a process that ends tries to settle what it owes, in seconds."""

PUT_ONCE = """
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
local length = redis.call('LPUSH', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return length
"""
"""Mark KEYS[1] and queue KEYS[2]; the queue's name, seconds to remember, the message.

The message first: a script that fails between the two is not undone, and a message without its
mark is a lesser evil than a mark without its message.
"""

ledger = Ledger()
"""What this process holds and owes. It consumes from one broker; delivery tags are UUIDs."""


class QoS(kombu_redis.QoS):
    """Unacknowledged messages that survive their connection."""

    def append(self, message: Any, delivery_tag: str) -> None:
        ledger.received(delivery_tag)
        super().append(message, delivery_tag)

    def taken(self, queue: str) -> int:
        """Return how many messages of `queue` this channel has."""
        self._flush()
        return sum(
            message.delivery_info.get("routing_key") == queue
            for message in self._delivered.values()
        )

    def can_consume(self) -> bool:
        limit = self.prefetch_count
        taken = len(self._delivered) - len(self._dirty) + ledger.orphans
        return not limit or taken < limit

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except redis.RedisError as error:
            ledger.owe_ack(delivery_tag)
            self._quick_ack(delivery_tag)
            if isinstance(error, self.channel.connection_errors):
                raise
            logger.warning("an ack is tried again later: %s", error)

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what is not held; what can't be put back now is owed."""
        self._flush()
        left = ledger.part_with(self._delivered)
        self._delivered.clear()
        while left and self.channel.connection.client is not None:  # None: lost, kombu let it go
            try:
                self.restore_by_tag(left[-1], client=client)
            except (redis.RedisError, OSError) as error:
                logger.warning("%d messages are put back later: %s", len(left), error)
                break
            left.pop()
        ledger.owe_put_back(left)


class OpenQueues(round_robin_cycle):
    """Kombu's order of queues, without those of which this process has as much as it may."""

    def __init__(self, is_open: Callable[[str], bool]) -> None:
        super().__init__()
        self._is_open = is_open

    def consume(self, n: int) -> list[str]:
        return [queue for queue in super().consume(n) if self._is_open(queue)]


class Channel(kombu_redis.Channel):
    """A channel that puts a message once, and settles what an earlier connection left behind.

    The transport option `queue_limits` says of how many messages of a queue a process may have
    at a time, so that a slow queue does not take the room of the others.
    """

    QoS = QoS
    queue_limits: ClassVar[Mapping[str, int]] = {}
    from_transport_options: tuple[str, ...] = (  # type: ignore[assignment]
        *kombu_redis.Channel.from_transport_options,
        "queue_limits",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.queue_limits:
            self._queue_cycle = OpenQueues(self._is_open)

    def _is_open(self, queue: str) -> bool:
        limit = self.queue_limits.get(queue)
        return limit is None or self.qos.taken(queue) < limit

    def _put(self, queue: str, message: Mapping[str, Any], **kwargs: Any) -> None:
        once = (message.get("headers") or {}).get(ONCE_HEADER)
        if once is None:
            super()._put(queue, message, **kwargs)
            return
        mark, remember_s = once
        command = (
            PUT_ONCE,
            2,
            SUBMITTED_KEY_PREFIX + mark,
            self._q_for_pri(queue, self._get_message_priority(message, reverse=False)),
            queue,
            int(remember_s),
            dumps(message),
        )
        batch = kwargs.get("_publish_batch")
        if batch is not None:
            batch.add("eval", *command)
            return
        with self.conn_or_acquire() as client:
            client.eval(*command)

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        consuming.add(self)
        self.settle_owed()
        return super().basic_consume(queue, *args, **kwargs)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        if self.closed:
            ledger.owe_ack(delivery_tag)
            settle_open()
            return
        super().basic_ack(delivery_tag, multiple=multiple)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self.closed:
            super().basic_reject(delivery_tag, requeue=requeue)
            return
        if requeue:
            ledger.owe_put_back([delivery_tag])
        else:
            ledger.owe_ack(delivery_tag)
        settle_open()

    def settle_owed(self) -> None:
        """Acknowledge and put back over this connection; what is refused stays owed."""
        to_ack, to_put_back = ledger.take_owed()
        try:
            while to_ack:
                self.qos._remove_from_indices(to_ack[-1]).execute()
                to_ack.pop()
            while to_put_back:
                self.qos.restore_by_tag(to_put_back[-1])
                to_put_back.pop()
        except (redis.RedisError, OSError) as error:
            logger.warning(
                "%d acks and %d returns are tried again: %s", len(to_ack), len(to_put_back), error
            )
            for tag in to_ack:
                ledger.owe_ack(tag)
            ledger.owe_put_back(to_put_back)


consuming: "weakref.WeakSet[Channel]" = weakref.WeakSet()
"""The channels of this process that consume, or did."""


def settle_open() -> None:
    """Settle what is owed over a connection that consumes, if there is one."""
    if ledger.owes:
        for channel in tuple(consuming):
            if not channel.closed:
                channel.settle_owed()
                return


def settle_at_exit(connection: Any) -> None:
    """Settle what a process that ends still owes, within `EXIT_S` seconds."""
    if not ledger.owes:
        return
    try:
        with connection:
            connection.ensure_connection(max_retries=3, interval_step=0.5, timeout=EXIT_S)
            connection.default_channel.settle_owed()
    except (*connection.connection_errors, OSError) as error:
        logger.warning("Redis is away: %s", error)
    if ledger.owes:
        logger.warning(
            "messages stay unacknowledged and come back after the visibility timeout: %s",
            ", ".join(itertools.chain(*ledger.take_owed())),
        )


class Transport(kombu_redis.Transport):
    """`broker_transport` of every modelyard app; the broker's address stays `redis://...`."""

    Channel = Channel

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        loop.call_repeatedly(SETTLE_S, settle_open)
