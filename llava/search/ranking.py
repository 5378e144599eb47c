"""From the windows' probabilities to a heat map and the likeliest places.

What is there is seen in all windows that hold it; a mistake mostly in one. So a place is as likely as the
windows over it say together: the mean of their log-odds, each size of windows for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llava.search.windows import Box, move

CELLS = 8
"""Of the map, to a side of the smallest window."""
CERTAIN = 1e-6
"""Probabilities are kept so far from 0 and 1, where their log-odds are infinite."""

Map = NDArray[np.float32]


def mean_probability(probabilities: Iterable[float]) -> float:
    """Return the probability whose log-odds are the mean."""
    odds = [log_odds(p) for p in probabilities]
    return 1 / (1 + math.exp(-sum(odds) / len(odds)))


def log_odds(p: float) -> float:
    """Return log(p / (1 - p)), finite."""
    p = min(max(p, CERTAIN), 1 - CERTAIN)
    return math.log(p / (1 - p))


class EvidenceMap:
    """What the windows say of each cell of a photo."""

    def __init__(self, size: tuple[int, int], side: int) -> None:
        """Start without windows.

        Args:
            size: The photo's (width, height).
            side: Of the smallest windows.
        """
        self._size = size
        self._cell = max(side / CELLS, 1)
        width, height = size
        self._shape = math.ceil(height / self._cell), math.ceil(width / self._cell)
        self._sums: dict[int, Map] = {}
        self._counts: dict[int, Map] = {}

    def add(self, box: Box, p_yes: float, side: int) -> None:
        """Lay a window on the map, among those of its `side`."""
        if side not in self._sums:
            self._sums[side] = np.zeros(self._shape, np.float32)
            self._counts[side] = np.zeros(self._shape, np.float32)
        left, top, right, bottom = (math.ceil(value / self._cell - 0.5) for value in box)  # to cell centres
        self._sums[side][top:bottom, left:right] += log_odds(p_yes)
        self._counts[side][top:bottom, left:right] += 1

    def _evidence(self) -> dict[int, Map]:
        """Return the mean log-odds of the windows over each cell, by their side; -inf without any."""
        return {
            side: np.where(self._counts[side] > 0, sums / np.maximum(self._counts[side], 1), -np.inf)
            for side, sums in self._sums.items()
        }

    @property
    def heat(self) -> Map:
        """The probability at each cell (rows, columns), of several sizes the highest; NaN without windows."""
        highest = np.maximum.reduce(list(self._evidence().values()))
        return np.where(np.isneginf(highest), np.nan, 1 / (1 + np.exp(-highest))).astype(np.float32)

    def places(self, count: int) -> list[tuple[Box, float, int]]:
        """Return at most `count` different places, the likeliest first (non-maximum suppression).

        Returns:
            A window centred on each, its probability and the side of its kind. No centre of one lies in
            another.
        """
        evidence = self._evidence()
        found: list[tuple[Box, float, int]] = []
        while len(found) < count:
            # of equals the smallest window
            side = min(evidence, key=lambda side: (-evidence[side].max(), side))
            highest = evidence[side].max()
            if np.isneginf(highest):
                break
            x, y = self._peak(evidence[side], side)
            half_width, half_height = (min(side, length) / 2 for length in self._size)
            box = (0, 0, round(2 * half_width), round(2 * half_height))
            box = move(box, round(x - half_width), round(y - half_height), self._size)
            found.append((box, 1 / (1 + math.exp(-float(highest))), side))
            for other, values in evidence.items():
                reach = max(side, other) / 2
                values[self._cells(x, y, reach)] = -np.inf
        return found

    def _peak(self, values: Map, side: int) -> tuple[float, float]:
        """Return the middle, in pixels, of the highest cells that lie together."""
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        x, y = (float(at + 0.5) * self._cell for at in (column, row))
        near = self._cells(x, y, side / 2)
        rows, columns = np.nonzero(values[near] >= values[row, column] - 1e-6)
        return (
            float(columns.mean() + near[1].start + 0.5) * self._cell,
            float(rows.mean() + near[0].start + 0.5) * self._cell,
        )

    def _cells(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """Return the rows and columns of the cells whose centres are within `reach` of a point."""
        left, right = (x - reach) / self._cell - 0.5, (x + reach) / self._cell - 0.5
        top, bottom = (y - reach) / self._cell - 0.5, (y + reach) / self._cell - 0.5
        return (
            slice(max(math.ceil(top), 0), math.floor(bottom) + 1),
            slice(max(math.ceil(left), 0), math.floor(right) + 1),
        )
