"""Messages that a killed worker had in hand, given back to their queues at once."""

import logging
from typing import Final

from kombu.connection import Connection

log = logging.getLogger("modelyard.yard")

TRANSPORT: Final = "modelyard.transport:Transport"


def restore_unacked(url: str) -> int:
    """Put every message that was taken and not acknowledged back; return how many there were.

    Only for a broker that no worker uses: a worker that is alive would lose its claim, and its
    messages would run twice. Oldest messages are the first to be taken again.
    """
    # The name of a transport goes beside the address, as in the app's `broker_transport`.
    with Connection(url, transport=TRANSPORT) as connection, connection.channel() as channel:
        client = channel.client
        # Workers take from the right and this puts to the right: the oldest must come last.
        tags = client.zrevrange(channel.unacked_index_key, 0, -1)
        indexed = set(tags)
        tags += [tag for tag in client.hkeys(channel.unacked_key) if tag not in indexed]
        for tag in tags:
            channel.qos.restore_by_tag(tag.decode(), client)
        # A worker that was killed while it looked for lost messages keeps others from looking.
        client.delete(channel.unacked_mutex_key)
    if tags:
        log.warning("%d messages that an earlier run had in hand are queued again", len(tags))
    return len(tags)
