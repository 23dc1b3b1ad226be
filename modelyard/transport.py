"""kombu's Redis transport, and what modelyard adds to it.

*Once*: a message whose headers hold `ONCE_HEADER` is put into its queue only if no message with
the same id was put there with that header before. The mark and the message are written by one
script, so a producer that is killed at any moment can submit the same ids again: what was
accepted is not accepted twice, and what was not is accepted now.

Other messages, and other people's clients with a plain `redis://` address, are not affected.
Redis Cluster is not supported, as in kombu: a script touches a mark and a queue at once.
"""

from collections.abc import Mapping
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps

from modelyard.names import ONCE_HEADER, SUBMITTED_KEY_PREFIX

PUT_ONCE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then
    return redis.call('LPUSH', KEYS[2], ARGV[3])
end
return 0
"""
"""Mark KEYS[1] and queue KEYS[2]; the queue's name, seconds to remember, the message."""


class Channel(kombu_redis.Channel):
    """A channel that can put a message once."""

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


class Transport(kombu_redis.Transport):
    """`broker_transport` of every modelyard app; the broker's address stays `redis://...`."""

    Channel = Channel
