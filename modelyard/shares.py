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
        turns.sort()
        order = [queue for _, queue in turns]
        shares = self._sure(turns, room)
        turns = [(at + shares[queue] * self._stride(queue), queue) for at, queue in turns]
        heapq.heapify(turns)
        for _ in range(room - sum(shares.values())):
            at, queue = turns[0]
            shares[queue] += 1
            heapq.heapreplace(turns, (at + self._stride(queue), queue))
        return [Want(queue, shares[queue], room) for queue in order]

    def _sure(self, turns: Sequence[tuple[float, str]], room: int) -> dict[str, int]:
        """Return how many turns each has for certain: all but a few of `room`.

        `turns` are sorted. Were messages divisible, all passes would come to one level, but for
        those above it.
        """
        shares = {queue: 0 for _, queue in turns}
        weight = moved = level = 0.0
        for at, queue in turns:
            if weight and at >= level:
                break
            weight += 1.0 / self._stride(queue)
            moved += at / self._stride(queue)
            level = (room + moved) / weight
        for at, queue in turns:
            shares[queue] = max(0, int((level - at) / self._stride(queue)) - 1)
        return shares

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
