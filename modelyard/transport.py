"""kombu's Redis transport, and what modelyard adds to it.

*Once*: a message whose headers hold `ONCE_HEADER` is put into its queue only if no message with
the same id was put there with that header before. The mark and the message are written by one
script, so a producer that is killed at any moment can submit the same ids again: what was
accepted is not accepted twice, and what was not is accepted now.

*A connection that is lost*: kombu puts every unacknowledged message back when it closes the
channel, also those whose calls still run here, which makes them run twice; and while Redis is
away that fails in a way that ends a Celery worker. Here messages that are *held* (`hold`) stay
ours and are acknowledged over the next connection; the others are put back over the next one too
if it can't be done now.

Other messages, and other people's clients with a plain `redis://` address, are not affected.
Redis Cluster is not supported, as in kombu: a script touches a mark and a queue at once.
"""

import logging
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps

from modelyard.names import ONCE_HEADER, SUBMITTED_KEY_PREFIX

logger = logging.getLogger("modelyard.transport")

PUT_ONCE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then
    return redis.call('LPUSH', KEYS[2], ARGV[3])
end
return 0
"""
"""Mark KEYS[1] and queue KEYS[2]; the queue's name, seconds to remember, the message."""


class Tags:
    """Delivery tags of this process: held ones, and those to settle over the next connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._ack: set[str] = set()
        self._put_back: set[str] = set()

    def hold(self, tag: str) -> None:
        """Keep this message although its connection may be lost: its task runs here."""
        with self._lock:
            self._held.add(tag)

    def let_go(self, tag: str) -> None:
        """Its task does not run here any more."""
        with self._lock:
            self._held.discard(tag)

    def not_held(self, tags: Iterable[str]) -> list[str]:
        """Return those of `tags` whose tasks do not run here."""
        with self._lock:
            return [tag for tag in tags if tag not in self._held]

    def owe_ack(self, tag: str) -> None:
        """Acknowledge it over the next connection."""
        with self._lock:
            self._ack.add(tag)

    def owe_put_back(self, tags: Iterable[str]) -> None:
        """Put these back over the next connection."""
        with self._lock:
            self._put_back.update(tags)

    def take_owed(self) -> tuple[list[str], list[str]]:
        """Return what to acknowledge and what to put back, and forget both."""
        with self._lock:
            owed = sorted(self._ack), sorted(self._put_back - self._ack)
            self._ack.clear()
            self._put_back.clear()
            return owed


tags = Tags()
"""The worker's own: a process consumes from one broker. Delivery tags are UUIDs."""


class QoS(kombu_redis.QoS):
    """Unacknowledged messages that survive their connection."""

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except self.channel.connection_errors:
            tags.owe_ack(delivery_tag)
            self._quick_ack(delivery_tag)
            raise

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what is not held; what can't be put back now is owed."""
        self._flush()
        left = tags.not_held(self._delivered)
        self._delivered.clear()
        while left:
            if self.channel.connection.client is None:  # lost, and let go of by kombu
                break
            try:
                self.restore_by_tag(left[-1], client=client)
            except self.channel.connection_errors as error:
                logger.info("%d messages are put back when Redis is back: %s", len(left), error)
                break
            left.pop()
        tags.owe_put_back(left)


class Channel(kombu_redis.Channel):
    """A channel that puts a message once, and settles what an earlier connection left behind."""

    QoS = QoS

    def _put(self, queue: str, message: Mapping[str, Any], **kwargs: Any) -> None:
        headers = message.get("headers") or {}
        remember_s = headers.get(ONCE_HEADER)
        if remember_s is None:
            super()._put(queue, message, **kwargs)
            return
        command = (
            PUT_ONCE,
            2,
            SUBMITTED_KEY_PREFIX + headers["id"],
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
        self.settle_owed()
        consuming.add(self)
        return super().basic_consume(queue, *args, **kwargs)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        if self.closed:
            tags.owe_ack(delivery_tag)
            self._settle_elsewhere()
            return
        super().basic_ack(delivery_tag, multiple=multiple)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if self.closed:
            if requeue:
                tags.owe_put_back([delivery_tag])
            else:
                tags.owe_ack(delivery_tag)
            self._settle_elsewhere()
            return
        super().basic_reject(delivery_tag, requeue=requeue)

    def settle_owed(self) -> None:
        """Acknowledge and put back over this connection. Raises connection errors."""
        to_ack, to_put_back = tags.take_owed()
        try:
            while to_ack:
                self.qos._remove_from_indices(to_ack[-1]).execute()
                to_ack.pop()
            while to_put_back:
                self.qos.restore_by_tag(to_put_back[-1])
                to_put_back.pop()
        except self.connection_errors:
            for tag in to_ack:
                tags.owe_ack(tag)
            tags.owe_put_back(to_put_back)
            raise

    def _settle_elsewhere(self) -> None:
        for channel in tuple(consuming):
            if not channel.closed:
                channel.settle_owed()
                return
        logger.info("a message is settled when the broker is back")


consuming: "weakref.WeakSet[Channel]" = weakref.WeakSet()
"""The channels of this process that consume, or did."""


class Transport(kombu_redis.Transport):
    """`broker_transport` of every modelyard app; the broker's address stays `redis://...`."""

    Channel = Channel
