"""Messages that workers had in hand when they were killed, given back to their queues at once."""

import logging

from modelyard.claims import AT_ONCE, Back, Claims
from modelyard.connect import connect
from modelyard.leases import redelivered

log = logging.getLogger("modelyard.yard")

END_OF_TIME_MS = 2**52


def restore_claims(url: str) -> int:
    """Put every message that is claimed back on its queue; return how many there were.

    Only for a broker that no worker uses, for which nobody wants to wait until leases run out. It
    does not count as a delivery: who kills a whole yard means no message of it. Raises
    `redis.RedisError`.
    """
    restored = 0
    with connect(url) as client:
        # For whoever looks from the end of time, every lease has run out.
        claims = Claims(client, now_ms=lambda: END_OF_TIME_MS)
        while taken := claims.take_over(AT_ONCE):
            backs = [
                Back(each.claim, each.queue, redelivered(each.message, lost=False))
                for each in reversed(taken)
            ]
            claims.settle(backs)
            restored += len(taken)
    if restored:
        log.warning("%d messages that an earlier run had in hand are queued again", restored)
    return restored
