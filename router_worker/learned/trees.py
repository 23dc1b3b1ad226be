"""Many small decision trees at once: sums of regression trees of depth three, as arrays."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

DEPTH: Final = 3
NODES: Final = 2**DEPTH - 1
LEAVES: Final = 2**DEPTH


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """For each of M outputs a sum of K trees, each of `NODES` questions and `LEAVES` answers.

    `feature` (int16) and `threshold` (float32) are M x K x NODES, in the order of a heap: after
    node i comes 2i + 1 where the feature is at most the threshold, and else 2i + 2. `leaf`
    (float32) is M x K x LEAVES.
    """

    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    leaf: NDArray[np.float32]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sums for one row of features: an array of M numbers."""
        outputs, trees, _ = self.leaf.shape
        if not trees:
            return np.zeros(outputs, np.float32)
        feature, threshold = self.feature.reshape(-1), self.threshold.reshape(-1)
        root = np.arange(0, feature.size, NODES)
        node = np.zeros(outputs * trees, np.int64)
        for _ in range(DEPTH):  # one step down all trees
            at = root + node
            node += node + 1 + (features[feature[at]] > threshold[at])
        found = self.leaf.reshape(-1, LEAVES)[np.arange(len(node)), node - NODES]
        sums: NDArray[np.float32] = found.reshape(outputs, trees).sum(axis=1, dtype=np.float32)
        return sums
