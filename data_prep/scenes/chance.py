"""Random draws that give the same bits on every machine.

NumPy's bits, whole numbers and 0..1 floats are exact everywhere. Its `uniform` and `normal` are not: C
compilers fuse their multiply-add where the processor can. What is needed of them is made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Floats = NDArray[np.float64]


class Chance:
    """A stream of random numbers; `key` names it."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.Generator(np.random.PCG64(key))

    def happens(self, probability: float) -> bool:
        return self._bits.random() < probability

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._bits.random()

    def uniforms(self, low: float, high: float, shape: int | tuple[int, ...]) -> Floats:
        return low + (high - low) * self._bits.random(shape)

    def shares(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Between 0 and 1."""
        return self._bits.random(shape, np.float32)

    def normals(self, deviation: float, shape: int | tuple[int, ...]) -> Floats:
        """About normal around 0: a sum of four uniform numbers, 3.46 deviations at most."""
        one, two, three, four = (self._bits.random(shape) for _ in range(4))
        return (one + two + three + four - 2.0) * (deviation * math.sqrt(3))

    def integer(self, low: int, high: int) -> int:
        """At least `low`, below `high`."""
        return int(self._bits.integers(low, high))

    def seed(self) -> int:
        return self.integer(0, 2**32)

    def sign(self) -> int:
        return 1 if self.happens(0.5) else -1

    def pick(self, items: Sequence[Item], shares: Sequence[float] | None = None) -> Item:
        """One of `items`, each as likely, or by `shares`, which add up to 1."""
        if shares is None:
            return items[self.integer(0, len(items))]
        rest = self._bits.random()
        for item, share in zip(items, shares, strict=True):
            rest -= share
            if rest < 0:
                return item
        return items[-1]

    def order(self, count: int) -> list[int]:
        """0 to `count` - 1 in random order."""
        return [int(place) for place in self._bits.permutation(count)]

    def words(self, count: int) -> NDArray[np.uint64]:
        """64 random bits, `count` times."""
        return self._bits.integers(0, 2**64, count, np.uint64)
