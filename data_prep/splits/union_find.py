"""Union-find: which of the numbers 0 .. n - 1 belong together, directly or in a chain."""

from __future__ import annotations


class Unions:
    """Sets that start with one number each. A set is known by its smallest member."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low

    def root(self, index: int) -> int:
        """The smallest number of the set that `index` is in."""
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]  # halves the way for the next
            index = self._parent[index]
        return index
