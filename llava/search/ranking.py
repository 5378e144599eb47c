"""From the windows' probabilities to a heat map and a few places: evidence, suppression, second look."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llava.search.windows import Box, shared

SAME_PLACE = 0.2
"""Two windows of which one has such a share in the other are one place; only the better is a candidate."""
HEAT_CELLS = 256
"""Along the photo's longer edge, at most."""
CERTAIN = 1e-6
"""Probabilities are kept so far from 0 and 1, where their log-odds are infinite."""


def mean_probability(probabilities: Iterable[float]) -> float:
    """Return the probability whose log-odds are the mean: one view that is sure counts for more than in a
    mean of probabilities."""
    logits = [_logit(p) for p in probabilities]
    return 1 / (1 + math.exp(-sum(logits) / len(logits)))


def _logit(p: float) -> float:
    p = min(max(p, CERTAIN), 1 - CERTAIN)
    return math.log(p / (1 - p))


def best_places(answers: Mapping[Box, float], count: int) -> list[Box]:
    """Return at most `count` windows that are different places, the likeliest first (non-maximum
    suppression)."""
    places: list[Box] = []
    for box in sorted(answers, key=lambda box: -answers[box]):
        if all(shared(box, place) < SAME_PLACE for place in places):
            places.append(box)
            if len(places) == count:
                break
    return places


def centred(views: Sequence[tuple[Box, float]]) -> Box:
    """Return the first view's box moved to the mean of all, weighted by their probabilities.

    Views that do not show the thing pull nothing, so that the box moves towards it.
    """
    (x1, y1, x2, y2), _ = views[0]
    weights = np.array([p for _, p in views])
    corners = np.array([box[:2] for box, _ in views], np.float64)
    if not weights.sum():
        return x1, y1, x2, y2
    left, top = (round(value) for value in weights @ corners / weights.sum())
    return left, top, left + x2 - x1, top + y2 - y1


class HeatMap:
    """The mean probability of the windows over each cell of a photo; of several sizes, the highest mean."""

    def __init__(self, size: tuple[int, int], side: int) -> None:
        """Start without a value.

        Args:
            size: The photo's (width, height).
            side: Of the smallest windows; a cell is at most a quarter of it.
        """
        width, height = size
        self._cell = max(side / 4, max(size) / HEAT_CELLS)
        self._shape = math.ceil(height / self._cell), math.ceil(width / self._cell)
        self._sums: dict[int, NDArray[np.float32]] = {}
        self._counts: dict[int, NDArray[np.float32]] = {}

    def add(self, box: Box, p_yes: float, side: int) -> None:
        """Lay a window on the map, among those of its `side`."""
        if side not in self._sums:
            self._sums[side] = np.zeros(self._shape, np.float32)
            self._counts[side] = np.zeros(self._shape, np.float32)
        x1, y1, x2, y2 = (value / self._cell for value in box)
        place = np.s_[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)]
        self._sums[side][place] += p_yes
        self._counts[side][place] += 1

    @property
    def values(self) -> NDArray[np.float32]:
        """The map (rows, columns); NaN where there is no window."""
        heat = np.full(self._shape, np.nan, np.float32)
        for side, sums in self._sums.items():
            counts = self._counts[side]
            mean = np.divide(sums, counts, out=np.full(self._shape, np.nan, np.float32), where=counts > 0)
            heat = np.fmax(heat, mean)
        return heat
