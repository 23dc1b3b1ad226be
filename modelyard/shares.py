"""In which proportion a worker takes from its queues, so that none of them starves another.

Stride scheduling (C. Waldspurger, W. Weihl, 1995): each message moves its queue's *pass* on by one
over the queue's weight, and the queue with the least pass comes next. A queue that had nothing to
give is moved up to the others: it may not save its turns.
"""

import heapq
from collections.abc import Mapping, Sequence

from modelyard.claims import Want


class Shares:
    """The turns of some queues. A queue without a weight has weight 1."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._passes: dict[str, float] = {}

    def wants(self, queues: Sequence[str], room: int) -> list[Want]:
        """Divide `room` among `queues`, those whose turn it is first."""
        turns = [(self._passes.setdefault(queue, 0.0), queue) for queue in queues]
        heapq.heapify(turns)
        order = [queue for _, queue in sorted(turns)]
        shares = dict.fromkeys(queues, 0)
        for _ in range(room):
            at, queue = turns[0]
            shares[queue] += 1
            heapq.heapreplace(turns, (at + self._stride(queue), queue))
        return [Want(queue, shares[queue], room) for queue in order]

    def took(self, wants: Sequence[Want], counts: Mapping[str, int]) -> None:
        """Note what the queues gave of what was wanted of them."""
        for want in wants:
            self._passes[want.queue] += counts.get(want.queue, 0) * self._stride(want.queue)
        gave = [want.queue for want in wants if counts.get(want.queue, 0) >= max(1, want.share)]
        level = min((self._passes[queue] for queue in gave), default=0.0)
        for want in wants:
            if counts.get(want.queue, 0) < want.share:
                self._passes[want.queue] = max(self._passes[want.queue], level)

    def _stride(self, queue: str) -> float:
        return 1.0 / self._weights.get(queue, 1.0)
