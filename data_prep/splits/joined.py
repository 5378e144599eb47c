"""Union-find for arrays: sets of many numbers that belong together, and how large each is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Joined:
    """Disjoint sets, as those of `UnionFind`, of arrays of numbers. Holds 16 bytes a number."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count)
        self._size = np.ones(count, dtype=np.int64)  # of the set, at the number that it is named after

    def union(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Join the sets of each two numbers."""
        while len(first):
            first, second = self.find(first), self.find(second)
            apart = first != second
            low = np.minimum(first, second)[apart]
            high = np.maximum(first, second)[apart]
            # Of several that a set is to be joined with it takes one; the next round sees to the others.
            self._parent[high] = low
            joined = np.unique(high)
            np.add.at(self._size, self.find(joined), self._size[joined])
            first, second = low, high

    def find(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the smallest number of the set that each is in."""
        found = self._parent[indices]
        while (found != (above := self._parent[found])).any():
            self._parent[indices] = above  # shortens the way for the next
            found = self._parent[above]
        return found

    def sizes(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many numbers are in the set that each is in."""
        return self._size[self.find(indices)]

    @property
    def largest(self) -> int:
        """How many numbers are in the largest set; 0 where there is none."""
        return int(self._size.max(initial=0))
