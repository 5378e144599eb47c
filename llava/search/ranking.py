"""From the windows' probabilities to a heat map and the likeliest places.

What is there is seen in all windows that hold it; a mistake mostly in one. So a place is as likely as the
windows over it say together: the mean of their log-odds, each size of windows for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llava.search.windows import Box, centre_in, move

CELLS = 8
"""Of the map, to a side of the smallest window."""
CERTAIN = 1e-6
"""Probabilities are kept so far from 0 and 1, where their log-odds are infinite."""

MARGIN = 2.5
"""In log-odds: of two places of which one holds the other, the larger counts only if so much likelier."""

Map = NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """Where something may be, and how likely."""

    box: Box
    p_yes: float


def mean_probability(probabilities: Iterable[float]) -> float:
    """Return the probability whose log-odds are the mean."""
    odds = [log_odds(p) for p in probabilities]
    return 1 / (1 + math.exp(-sum(odds) / len(odds)))


def log_odds(p: float) -> float:
    """Return log(p / (1 - p)), finite."""
    p = min(max(p, CERTAIN), 1 - CERTAIN)
    return math.log(p / (1 - p))


def ranked(places: Iterable[Place], count: int) -> list[Place]:
    """Return at most `count` places, the likeliest first, of those that hold each other only one.

    That is the smallest, which says best where the thing is, unless a larger one is likelier by MARGIN, or
    at all where the smaller is not even likely.
    """
    kept: list[Place] = []
    for place in sorted(places, key=lambda place: (place.box[2] - place.box[0], -place.p_yes)):
        inside = [other for other in kept if centre_in(other.box, place.box)]
        likeliest = max((other.p_yes for other in inside), default=0.0)
        margin = MARGIN if likeliest > 0.5 else 0.0
        if not inside or log_odds(place.p_yes) > log_odds(likeliest) + margin:
            kept = [other for other in kept if other not in inside] + [place]
    return sorted(kept, key=lambda place: -place.p_yes)[:count]


class EvidenceMap:
    """What the windows say of each cell of a photo."""

    def __init__(self, size: tuple[int, int], side: int) -> None:
        """Start without windows.

        Args:
            size: The photo's (width, height).
            side: Of the smallest windows.
        """
        self._size = size
        cell = max(side / CELLS, 1)
        columns, rows = (max(round(length / cell), 1) for length in size)
        self._shape = rows, columns
        self._scale = columns / size[0], rows / size[1]  # cells a pixel
        self._sums: dict[int, Map] = {}
        self._counts: dict[int, Map] = {}

    def add(self, box: Box, p_yes: float, side: int) -> None:
        """Lay a window on the map, among those of `side` pixels."""
        if side not in self._sums:
            self._sums[side] = np.zeros(self._shape, np.float32)
            self._counts[side] = np.zeros(self._shape, np.float32)
        place = self._cells(*box)
        self._sums[side][place] += log_odds(p_yes)
        self._counts[side][place] += 1

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

    def places(self, count: int) -> list[Place]:
        """Return at most `count` different places of each size of windows (non-maximum suppression)."""
        return [
            place for side, values in self._evidence().items() for place in self._best(values, side, count)
        ]

    def _best(self, values: Map, side: int, count: int) -> list[Place]:
        """Return the highest places of one size of windows."""
        found: list[Place] = []
        width, height = (min(side, length) for length in self._size)
        while len(found) < count and not np.isneginf(highest := values.max()):
            peak = np.unravel_index(int(values.argmax()), values.shape)
            x, y = self._middle(values, int(peak[0]), int(peak[1]), side)
            box = move((0, 0, width, height), round(x - width / 2), round(y - height / 2), self._size)
            found.append(Place(box, 1 / (1 + math.exp(-float(highest)))))
            values[self._cells(*box)] = -np.inf
            values[peak] = -np.inf
        return found

    def _middle(self, values: Map, row: int, column: int, side: int) -> tuple[float, float]:
        """Return the middle, in pixels, of the cells near a peak that are as high."""
        across, down = self._scale
        as_high = values >= values[row, column] - 1e-6
        x, y = (column + 0.5) / across, (row + 0.5) / down
        for _ in range(2):  # the peak that is given lies at the edge of its plateau
            near = self._cells(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            rows, columns = np.nonzero(as_high[near])
            if not len(rows):
                break
            x = (float(columns.mean()) + near[1].start + 0.5) / across
            y = (float(rows.mean()) + near[0].start + 0.5) / down
        return x, y

    def _cells(self, x1: float, y1: float, x2: float, y2: float) -> tuple[slice, slice]:
        """Return the rows and columns of the cells whose centres lie in a box."""
        across, down = self._scale
        left, right = (max(math.ceil(x * across - 0.5), 0) for x in (x1, x2))
        top, bottom = (max(math.ceil(y * down - 0.5), 0) for y in (y1, y2))
        return slice(top, bottom), slice(left, right)
