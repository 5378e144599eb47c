"""Union-find: sets of the numbers 0 .. n - 1 that belong together, directly or in a chain."""

from __future__ import annotations


class UnionFind:
    """Disjoint sets that start with one number each and are named after their smallest."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def union(self, first: int, second: int) -> None:
        """Join the sets of two numbers."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parent[high] = low

    def find(self, index: int) -> int:
        """Return the smallest number of the set that `index` is in."""
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]  # halves the way for the next
            index = self._parent[index]
        return index
